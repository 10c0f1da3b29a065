package choice

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"entrepot/geo/locate"

	"github.com/opencontainers/go-digest"
)

// Kind is what a mirror speaks.
type Kind uint8

// The kinds of mirrors.
const (
	// Node is an entrepot node or origin: images below the upstream's name, and
	// files.
	Node Kind = iota
	// Registry is any OCI registry. Its URL may have a path, which is put before
	// every repository.
	Registry
	// Bucket holds blobs, at a template such as
	// https://bucket.example.org/containers/images/{digest}.
	Bucket
	// Files is a tree of files over HTTP.
	Files
)

// String is the kind as the configuration has it.
func (k Kind) String() string {
	switch k {
	case Node:
		return "node"
	case Registry:
		return "registry"
	case Bucket:
		return "bucket"
	default:
		return "files"
	}
}

// ParseKind reads a kind.
func ParseKind(s string) (Kind, error) {
	for k := Node; k <= Files; k++ {
		if k.String() == s {
			return k, nil
		}
	}
	return 0, fmt.Errorf("%q is no kind of mirror; write node, registry, bucket or files", s)
}

// Tier is how far a mirror is trusted.
type Tier uint8

// The tiers, the most trusted first.
const (
	// Origin is authoritative for names.
	Origin Tier = iota
	// Trusted serves what clients take on trust, but for names.
	Trusted
	// Community serves what clients verify.
	Community
)

// String is the tier as the configuration has it.
func (t Tier) String() string {
	switch t {
	case Origin:
		return "origin"
	case Trusted:
		return "trusted"
	default:
		return "community"
	}
}

// ParseTier reads a tier.
func ParseTier(s string) (Tier, error) {
	for t := Origin; t <= Community; t++ {
		if t.String() == s {
			return t, nil
		}
	}
	return 0, fmt.Errorf("%q is no tier; write origin, trusted or community", s)
}

// Mirror is one place that clients may be sent to, as configured.
type Mirror struct {
	Name string
	// URLs are tried by scheme: a client that came by https is sent to the first
	// https URL, any other to the first. Paths are kept; of a bucket they are
	// templates.
	URLs []*url.URL
	Kind Kind
	Tier Tier
	// Names says that the mirror follows the ledger, so that its names can be
	// relied on as an origin's can. It must be trusted.
	Names bool
	// Incomplete says that the mirror may lack content that it is fit for, and
	// has to be asked first.
	Incomplete bool

	// Lat and Lon are degrees north and east.
	Lat, Lon  float64
	Country   locate.Country
	Continent locate.Continent
	// Cloud and Region are where in which cloud it is; "" outside clouds.
	Cloud, Region string
	// Prefixes are of clients that are to be sent here before anywhere else;
	// ASNs are the networks that it is in.
	Prefixes []netip.Prefix
	ASNs     []uint32
	// Families are 4, 6 or both; none means both.
	Families []int
	// Namespaces are the upstreams that it has, as patterns in which * stands for
	// any text; none means all.
	Namespaces []string
	// OnlyCountries, if any, and NeverCountries are whose clients it serves.
	OnlyCountries, NeverCountries []locate.Country
	// MaxSize is the largest content that it serves, in bytes; 0 is no limit.
	MaxSize int64
	// Capacity is what it can send, in bits a second; 0 means DefaultCapacity.
	Capacity int64
	// CostPerGiB is what its traffic costs, in any currency; among equals the
	// cheaper is chosen.
	CostPerGiB float64
	// Draining takes it out of choice, without an alarm.
	Draining bool
}

// DefaultCapacity is that of a mirror which says none, in bits a second.
const DefaultCapacity = 1_000_000_000

// Target is what a client is to be sent to, parsed: see [Mirror.Location].
type Target struct {
	// Namespace is the upstream's name; "" leaves it to the mirror.
	Namespace string
	// Repository and Route are of an image: "library/nginx", and what follows it:
	// "blobs/sha256:…", "manifests/1.29", "tags/list".
	Repository, Route string
	// Digest is of a blob, which a bucket knows it by.
	Digest digest.Digest
	// File is a path of the namespace, percent-encoded as it was sent, without a
	// slash at its start.
	File string
	// Query is appended after a question mark, if it is not empty.
	Query string
}

// Location is the URL of a target at a mirror, made of the configured URL and
// what was parsed, and nothing else. secure says that the client came by https.
// It is "" when the mirror has no URL for it.
func (m *Mirror) Location(secure bool, t *Target) string {
	base := m.URL(secure)
	if base == nil {
		return ""
	}
	// Each in one concatenation: every redirect has one.
	path := strings.TrimSuffix(base.EscapedPath(), "/")
	var location string
	switch m.Kind {
	case Bucket:
		if t.Digest == "" {
			return ""
		}
		hex := t.Digest.Encoded()
		location = base.Scheme + "://" + base.Host + strings.NewReplacer(
			"{digest}", string(t.Digest), "{algorithm}", string(t.Digest.Algorithm()), "{hex}", hex, "{hex2}", hex[:2],
		).Replace(templatePath(base))
	case Registry:
		if t.Repository == "" {
			return ""
		}
		location = base.Scheme + "://" + base.Host + "/v2" + path + "/" + t.Repository + "/" + t.Route
	case Files:
		if t.File == "" {
			return ""
		}
		location = base.Scheme + "://" + base.Host + path + "/" + t.File
	case Node:
		slash := ""
		if t.Namespace != "" {
			slash = "/"
		}
		if t.Repository != "" {
			location = base.Scheme + "://" + base.Host + "/v2" + path + "/" + t.Namespace + slash + t.Repository + "/" + t.Route
		} else {
			location = base.Scheme + "://" + base.Host + path + "/" + t.Namespace + slash + t.File
		}
	}
	if t.Query != "" {
		location += "?" + t.Query
	}
	return location
}

// URL is the first for clients that came by https, or by http; nil when there is
// none.
func (m *Mirror) URL(secure bool) *url.URL {
	for _, u := range m.URLs {
		if !secure || u.Scheme == "https" {
			return u
		}
	}
	return nil
}

// templatePath is the path of a template as it was written: its braces are not
// to be percent-encoded.
func templatePath(u *url.URL) string {
	return strings.NewReplacer("%7B", "{", "%7D", "}").Replace(u.EscapedPath())
}

package transfer

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Repository is a repository of a registry.
type Repository struct {
	Host string // "registry.k8s.io", "127.0.0.1:5000"
	Name string // "coredns/coredns"
}

// ParseRepository reads "host[:port]/name". The host has to be spelt out: a
// promotion has no default registry. Errors: ErrUnsupported.
func ParseRepository(text string) (Repository, error) {
	ref, err := ParseRef(text)
	if err != nil {
		return Repository{}, err
	}
	if ref.Tag != "" || ref.Digest != "" {
		return Repository{}, failf(ErrUnsupported, "repository %q: want host/name, without tag or digest", text)
	}
	return ref.Repository, nil
}

// String is the form that [ParseRepository] reads.
func (r Repository) String() string { return r.Host + "/" + r.Name }

// Ref is a repository, or a name in it: a tag, a digest, or both, of which the
// digest counts.
type Ref struct {
	Repository

	Tag    string
	Digest digest.Digest
}

// ParseRef reads "host[:port]/name[:tag][@digest]". Errors: ErrUnsupported.
func ParseRef(text string) (Ref, error) {
	host, rest, _ := strings.Cut(text, "/")
	if rest == "" || !isHost(host) {
		return Ref{}, failf(ErrUnsupported, "image %q: want host/name[:tag][@digest], as in registry.k8s.io/pause:3.10", text)
	}
	parsed, err := reference.Parse(text)
	if err != nil {
		return Ref{}, failf(ErrUnsupported, "image %q: %w", text, err)
	}
	named, ok := parsed.(reference.Named)
	if !ok {
		return Ref{}, failf(ErrUnsupported, "image %q: want host/name[:tag][@digest]", text)
	}
	ref := Ref{Repository: Repository{Host: host, Name: strings.TrimPrefix(named.Name(), host+"/")}}
	if tagged, ok := parsed.(reference.Tagged); ok {
		ref.Tag = tagged.Tag()
	}
	if digested, ok := parsed.(reference.Digested); ok {
		ref.Digest = digested.Digest()
	}
	return ref, nil
}

// String is the form that [ParseRef] reads.
func (r Ref) String() string {
	text := r.Repository.String()
	if r.Tag != "" {
		text += ":" + r.Tag
	}
	if r.Digest != "" {
		text += "@" + r.Digest.String()
	}
	return text
}

// reference is what stands in the path after manifests/.
func (r Ref) reference() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}

// checkTag refuses what is no tag, before it becomes part of a path.
func checkTag(tag string) error {
	const most = 128
	valid := tag != "" && len(tag) <= most && tag[0] != '.' && tag[0] != '-'
	for i := range len(tag) {
		c := tag[i]
		valid = valid && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '.' || c == '-')
	}
	if !valid {
		return failf(ErrUnsupported, "tag %.130q: want 1 to %d letters, digits, underscores, dots and dashes, and no dot or dash first", tag, most)
	}
	return nil
}

// isHost tells a host from the first element of a path, as image names do: it
// has a dot or a port, or is localhost.
func isHost(text string) bool {
	return text == "localhost" || strings.ContainsAny(text, ".:")
}

// isLoopback says whether a host, with or without port, is this machine.
func isLoopback(host string) bool {
	u := url.URL{Host: host}
	name := u.Hostname()
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(name, "localhost")
}

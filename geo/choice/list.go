package choice

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// List is mirrors that are ready to be chosen from. What it says never changes: it
// only remembers what it computed.
type List struct {
	mirrors []prepared
	model   *model

	declaring  []int32 // mirrors that have prefixes
	remembered memory
}

// prepared is a mirror with what does not depend on the client.
type prepared struct {
	Mirror

	at       vector
	hash     uint64 // of the name
	order    int32  // of the name among all: ties do not depend on the list's order
	v4, v6   bool
	weight   float64       // by capacity
	measured []Measurement // of this mirror
}

// ErrList says that a list of mirrors cannot be used.
var ErrList = errors.New("the list of mirrors cannot be used")

// NewList checks mirrors and prepares them. The error, ErrList, joins every
// problem; each names its mirror, and says what would be right.
func NewList(mirrors []Mirror, c Constants) (*List, error) {
	l := &List{model: newModel(c), mirrors: make([]prepared, len(mirrors))}
	var problems []error
	label := regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	names := map[string]bool{}
	authoritative := false
	for i := range mirrors {
		m := &mirrors[i]
		for _, problem := range m.problems(label) {
			problems = append(problems, fmt.Errorf("mirror %q: %s", m.Name, problem))
		}
		if names[m.Name] {
			problems = append(problems, fmt.Errorf("mirror %q: there are two of this name; give each its own", m.Name))
		}
		names[m.Name] = true
		authoritative = authoritative || (m.Tier == Origin || m.Names && m.Tier != Community) && m.Kind != Bucket
		l.mirrors[i] = newPrepared(m)
	}
	if !authoritative {
		problems = append(problems, errors.New("no mirror is authoritative for names: give one tier origin, or names: true where it follows the ledger"))
	}
	for _, measurement := range c.Measured {
		at := slices.IndexFunc(l.mirrors, func(m prepared) bool { return m.Name == measurement.Mirror })
		if at < 0 || measurement.Millis <= 0 {
			problems = append(problems, fmt.Errorf("measured %v ms from %s to %q: want a mirror of the list, and more than 0 ms",
				measurement.Millis, measurement.From, measurement.Mirror))
			continue
		}
		l.mirrors[at].measured = append(l.mirrors[at].measured, measurement)
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w:\n%w", ErrList, errors.Join(problems...))
	}
	byName := make([]*prepared, len(l.mirrors))
	for i := range l.mirrors {
		byName[i] = &l.mirrors[i]
	}
	slices.SortFunc(byName, func(a, b *prepared) int { return cmp.Compare(a.Name, b.Name) })
	for order, m := range byName {
		m.order = int32(order)
	}
	for i := range l.mirrors {
		if len(l.mirrors[i].Prefixes) > 0 {
			l.declaring = append(l.declaring, int32(i))
		}
	}
	l.remembered = newMemory(len(l.mirrors))
	return l, nil
}

func newPrepared(m *Mirror) prepared {
	capacity := cmp.Or(m.Capacity, DefaultCapacity)
	return prepared{
		Mirror: *m, at: newVector(m.Lat, m.Lon), hash: xxhash.Sum64String(m.Name), weight: float64(capacity),
		v4: len(m.Families) == 0 || slices.Contains(m.Families, 4),
		v6: len(m.Families) == 0 || slices.Contains(m.Families, 6),
	}
}

// Len is how many mirrors there are.
func (l *List) Len() int { return len(l.mirrors) }

// NeedsSizes says whether it matters to any mirror how large a blob is.
func (l *List) NeedsSizes() bool {
	return slices.ContainsFunc(l.mirrors, func(m prepared) bool { return m.MaxSize > 0 || m.Tier == Community && m.Kind != Files })
}

// Mirror is the mirror at an index, as it was configured. It must not be changed.
func (l *List) Mirror(i int) *Mirror { return &l.mirrors[i].Mirror }

// problems are what is wrong with a mirror by itself; its name is to be a label.
func (m *Mirror) problems(label *regexp.Regexp) []string {
	var problems []string
	add := func(wrong bool, format string, args ...any) {
		if wrong {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	add(!label.MatchString(m.Name),
		"its name is no label; write up to 63 of a-z, 0-9, '.', '_' and '-', such as eu-1")
	add(len(m.URLs) == 0, "it has no URL; write at least one")
	for _, u := range m.URLs {
		problems = append(problems, m.urlProblems(u)...)
	}
	add(m.Lat < -90 || m.Lat > 90 || m.Lat != m.Lat, "lat %v is none; want degrees north, from -90 to 90", m.Lat)
	add(m.Lon < -180 || m.Lon > 180 || m.Lon != m.Lon, "lon %v is none; want degrees east, from -180 to 180", m.Lon)
	add((m.Cloud == "") != (m.Region == ""), "its cloud is %q and its region %q; write both, as in aws:eu-central-1", m.Cloud, m.Region)
	add(m.Names && m.Tier == Community, "it is of tier community and cannot be relied on for names; give it tier trusted")
	add(m.Names && m.Kind == Bucket, "a bucket has no names")
	add(m.Names && m.Kind == Files, "a tree of files does not follow a ledger; names: true is for nodes and registries")
	for _, f := range m.Families {
		add(f != 4 && f != 6, "family %d is none; write 4 or 6", f)
	}
	for _, p := range m.Prefixes {
		add(!p.IsValid() || p.Masked() != p || p.Addr().Is4In6(), "prefix %v is none; want a network such as 129.132.0.0/16", p)
	}
	add(slices.Contains(m.ASNs, 0), "ASN 0 is no network")
	add(m.MaxSize < 0, "max_size %d is negative", m.MaxSize)
	add(m.Capacity < 0, "capacity %d is negative", m.Capacity)
	add(m.CostPerGiB < 0, "cost_per_gib %v is negative", m.CostPerGiB)
	return problems
}

func (m *Mirror) urlProblems(u *url.URL) []string {
	var problems []string
	shown := u.Redacted()
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		problems = append(problems, fmt.Sprintf("%q is no URL of a mirror; want https://host or http://host", shown))
	case u.User != nil:
		problems = append(problems, fmt.Sprintf("%q has credentials, which every client would be shown; leave them out", shown))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		problems = append(problems, fmt.Sprintf("%q has a query or fragment; leave it out", shown))
	}
	path := templatePath(u)
	template := strings.Contains(path, "{digest}") || strings.Contains(path, "{hex}")
	if m.Kind == Bucket && !template {
		problems = append(problems, fmt.Sprintf("%q is no template of a bucket; want {digest} or {hex} in its path, as in https://bucket.example.org/containers/images/{digest}", shown))
	}
	if m.Kind != Bucket && strings.ContainsAny(path, "{}") {
		problems = append(problems, fmt.Sprintf("%q has braces, which only buckets' URLs may", shown))
	}
	return problems
}

package choice

import (
	"slices"
	"strings"

	"entrepot/geo/locate"
)

// SmallBlob is the size in bytes below which blobs are served by who is trusted:
// configs, which clients act on, and what a redirect costs more than it saves.
const SmallBlob = 128 << 10

// Unfit is why a mirror is passed over, in plain words; "" when it is not.
func (m *prepared) unfit(q *Query, s *State) string {
	switch {
	case m.Name == q.Avoid:
		return "the client asked to avoid it"
	case s.Quarantined:
		return "it sent wrong bytes and is quarantined until a person lifts that"
	case m.Draining:
		return "it is draining"
	case !s.Up || s.Ramp <= 0:
		if s.Reason != "" {
			return "it is down: " + s.Reason
		}
		return "it is down"
	case s.Frozen && m.Tier == Community:
		return "many mirrors of its continent fell at once: only origin and trusted ones count"
	}
	if reason := m.mayServe(q); reason != "" {
		return reason
	}
	return m.reaches(q)
}

// mayServe says why a mirror may not serve what is asked for, to anyone.
func (m *prepared) mayServe(q *Query) string {
	switch {
	case q.OfFile && (m.Kind == Registry || m.Kind == Bucket):
		return "it has no files"
	case !q.OfFile && m.Kind == Files:
		return "it has files only"
	case q.What != Blob && m.Kind == Bucket:
		return "it has blobs only"
	case q.What == Names && m.Tier != Origin && !m.Names:
		return "it is not authoritative for names"
	case !m.Has(q.Namespace):
		return "it does not have " + q.Namespace
	case m.MaxSize > 0 && q.Size < 0:
		return "it serves content up to a size, and this one's is not known"
	case m.MaxSize > 0 && q.Size > m.MaxSize:
		return "the content is larger than it serves"
	}
	if m.Tier != Community {
		return ""
	}
	switch {
	case q.Private:
		return "the content is private, and its tier is not trusted with it"
	case q.What == Manifest:
		return "its tier is not trusted with manifests"
	case q.What == Blob && q.Size < 0:
		return "its tier serves blobs of 128 KiB or more, and this one's size is not known"
	case q.What == Blob && q.Size < SmallBlob:
		return "its tier serves blobs of 128 KiB or more"
	case q.What == File && !q.Verifies:
		return "its tier serves files only to clients that show that they verify them"
	}
	return ""
}

// reaches says why a mirror is not for this client.
func (m *prepared) reaches(q *Query) string {
	switch {
	case q.Client.IsValid() && q.Client.Is4() && !m.v4:
		return "it has no IPv4 address"
	case q.Client.IsValid() && !q.Client.Is4() && !m.v6:
		return "it has no IPv6 address"
	case m.URL(q.Secure) == nil:
		return "it has no https URL, and the client came by https"
	case len(m.OnlyCountries) > 0 && !slices.Contains(m.OnlyCountries, q.Place.Country):
		return "it serves some countries only"
	case q.Place.Country != locate.Country{} && slices.Contains(m.NeverCountries, q.Place.Country):
		return "it does not serve " + q.Place.Country.String()
	}
	return ""
}

// Has says whether a mirror has a namespace.
func (m *Mirror) Has(namespace string) bool {
	return len(m.Namespaces) == 0 || slices.ContainsFunc(m.Namespaces, func(pattern string) bool { return matches(pattern, namespace) })
}

// matches compares with a pattern in which * stands for any text, also none.
func matches(pattern, s string) bool {
	for {
		before, rest, star := strings.Cut(pattern, "*")
		if !star {
			return s == pattern
		}
		if !strings.HasPrefix(s, before) {
			return false
		}
		s = s[len(before):]
		next, _, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(s, next)
		}
		at := strings.Index(s, next)
		if at < 0 {
			return false
		}
		s, pattern = s[at:], rest
	}
}

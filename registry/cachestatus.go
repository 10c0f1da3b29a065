package registry

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// knownSeconds bounds the ages and lifetimes, in seconds, whose header values
// are made beforehand: longer ones are formatted when they come up.
const knownSeconds = 600

// cacheHeaders writes Cache-Status (RFC 9211) and Age. Hits, which are many,
// format nothing.
type cacheHeaders struct {
	name string // of this cache, as a structured field's token or string

	hit     []string
	hitTTL  []string // by seconds: "<name>; hit; ttl=N"
	seconds []string // by seconds: "N"
}

func newCacheHeaders(name string) *cacheHeaders {
	c := &cacheHeaders{name: bareItem(name)}
	c.hit = []string{c.name + "; hit"}
	for i := range knownSeconds {
		n := strconv.Itoa(i)
		c.seconds = append(c.seconds, n)
		c.hitTTL = append(c.hitTTL, c.hit[0]+"; ttl="+n)
	}
	return c
}

// set puts the headers for cs into h.
func (c *cacheHeaders) set(h http.Header, cs *CacheStatus) {
	if value := c.status(cs); value != nil {
		h["Cache-Status"] = value
	}
	if !cs.HasTTL {
		return
	}
	if age := max(int64(cs.Age/time.Second), 0); age < knownSeconds {
		h["Age"] = c.seconds[age : age+1 : age+1]
	} else {
		h["Age"] = []string{strconv.FormatInt(age, 10)}
	}
}

// status returns the value of Cache-Status, nil for none.
func (c *cacheHeaders) status(cs *CacheStatus) []string {
	switch {
	case cs.Outcome == OutcomeNone:
		return nil
	case cs.Outcome == OutcomeHit && cs.Detail == "":
		if !cs.HasTTL {
			return c.hit
		}
		if ttl := wholeSeconds(cs.TTL); 0 <= ttl && ttl < knownSeconds {
			return c.hitTTL[ttl : ttl+1 : ttl+1]
		}
	}
	b := make([]byte, 0, 96)
	b = append(b, c.name...)
	switch {
	case cs.Outcome == OutcomeHit, cs.Outcome == OutcomeStale:
		b = append(b, "; hit"...)
	case cs.Outcome == OutcomeMiss, cs.FwdStatus != 0:
		b = append(b, "; fwd=uri-miss"...)
		if cs.FwdStatus != 0 {
			b = strconv.AppendInt(append(b, "; fwd-status="...), int64(cs.FwdStatus), 10)
		}
		if cs.Stored {
			b = append(b, "; stored"...)
		}
		if cs.Collapsed {
			b = append(b, "; collapsed"...)
		}
	}
	if cs.HasTTL && cs.Outcome != OutcomeError {
		b = strconv.AppendInt(append(b, "; ttl="...), wholeSeconds(cs.TTL), 10)
	}
	if cs.Detail != "" {
		b = append(append(b, "; detail="...), bareItem(cs.Detail)...)
	}
	return []string{string(b)}
}

// wholeSeconds rounds down, so that nothing stale is called fresh.
func wholeSeconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d < 0 && d%time.Second != 0 {
		s--
	}
	return s
}

// bareItem writes s as a token of a structured field, or as a string where it
// is none (RFC 8941, sections 3.3.3 and 3.3.4). What neither can hold becomes
// a question mark.
func bareItem(s string) string {
	if isToken(s) {
		return s
	}
	b := []byte{'"'}
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c >= 0x7f:
			b = append(b, '?')
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

func isToken(s string) bool {
	if s == "" || !isAlnum(s[0]) && s[0] != '*' || '0' <= s[0] && s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~:/", s[i]) < 0 {
			return false
		}
	}
	return true
}

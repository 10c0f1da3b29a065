package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// fileMeta is what upstream said of one version of a file besides its bytes. It
// is immutable.
type fileMeta struct {
	// Header is what clients are told too: see keptHeaders.
	Header http.Header `json:"header"`
	// Date is when upstream said so, by its own clock.
	Date time.Time `json:"date"`
	Size int64     `json:"size"` // bytes; negative when upstream did not say
}

// keptHeaders are passed on as upstream sent them. Not kept are those about the
// connection, and Vary: every request upstream is the same but for the name.
func keptHeaders() []string {
	return []string{
		"Etag", "Last-Modified", "Content-Type", "Content-Disposition", "Content-Encoding", "Content-Language",
		"Cache-Control", "Expires",
	}
}

// newFileMeta takes it from a response of status 200, 206 or 304.
func newFileMeta(resp *http.Response, size int64) *fileMeta {
	m := &fileMeta{Header: make(http.Header), Size: size, Date: time.Now().UTC().Truncate(time.Second)}
	for _, key := range keptHeaders() {
		if values := resp.Header[key]; len(values) > 0 {
			m.Header[key] = values
		}
	}
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		m.Date = t
	}
	return m
}

// renewed is m with what a 304 said anew (RFC 9111, section 3.2).
func (m *fileMeta) renewed(resp *http.Response) *fileMeta {
	fresh := newFileMeta(resp, m.Size)
	for key, values := range m.Header {
		if fresh.Header[key] == nil {
			fresh.Header[key] = values
		}
	}
	fresh.Date = m.Date // whether Last-Modified is strong, it tells as of then
	return fresh
}

// sized is m of content of so many bytes.
func (m *fileMeta) sized(size int64) *fileMeta {
	sized := *m
	sized.Size = size
	return &sized
}

func (m *fileMeta) etag() string { return m.Header.Get("Etag") }

func (m *fileMeta) lastModified() string { return m.Header.Get("Last-Modified") }

// dateIsWeak reports that the file may have changed twice in the second that
// Last-Modified names (RFC 9110, section 8.8.2.2).
func (m *fileMeta) dateIsWeak() bool {
	t, err := http.ParseTime(m.lastModified())
	return err != nil || m.Date.Sub(t) < time.Minute
}

// strong is the validator for If-Range: a strong entity tag, or a date that is
// one; "" when there is none.
func (m *fileMeta) strong() string {
	switch tag := m.etag(); {
	case strings.HasPrefix(tag, `"`):
		return tag
	case tag == "" && !m.dateIsWeak():
		return m.lastModified()
	}
	return ""
}

// sameVersion says whether another answer is of the same version, as far as
// its validators tell. One to an If-Range need not repeat a date.
func (m *fileMeta) sameVersion(other *fileMeta, partial bool) bool {
	switch {
	case m.etag() != "" || other.etag() != "":
		return m.etag() == other.etag()
	case partial && other.lastModified() == "":
		return true
	}
	return m.lastModified() == other.lastModified()
}

// hasValidators reports that upstream can be asked whether the file changed.
func (m *fileMeta) hasValidators() bool { return m.etag() != "" || m.lastModified() != "" }

// described is the file as clients are told of it.
func (m *fileMeta) described(d digest.Digest, size int64) registry.File {
	f := registry.File{Digest: d, Size: size, ETag: m.etag(), DateIsWeak: m.dateIsWeak(), Header: m.Header}
	if t, err := http.ParseTime(m.lastModified()); err == nil {
		f.Modified = t
	}
	if d == "" {
		return f
	}
	f.Header = m.Header.Clone()
	f.Header["Repr-Digest"] = []string{reprDigest(d)}
	if f.ETag == "" {
		f.ETag = digestTag(d)
		f.Header["Etag"] = []string{f.ETag}
	}
	return f
}

// freshness is for how long upstream says that an answer holds (RFC 9111,
// section 4.2.1); said is false when it does not. transient says that it is not
// to be kept.
func freshness(h http.Header, age string, date time.Time) (ttl time.Duration, said, transient bool) {
	maxAge, shared := -1, -1
	for directive := range strings.SplitSeq(strings.Join(h["Cache-Control"], ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		seconds, err := strconv.Atoi(strings.Trim(value, `"`))
		if err != nil || seconds < 0 {
			seconds = 0 // what cannot be read is stale
		}
		switch strings.ToLower(name) {
		case "no-store", "private":
			transient = true
		case "no-cache":
			return 0, true, transient
		case "max-age":
			maxAge = min(seconds, maxSeconds)
		case "s-maxage":
			shared = min(seconds, maxSeconds)
		}
	}
	switch expires := h["Expires"]; {
	case transient:
		return 0, true, true
	case shared >= 0:
		ttl = time.Duration(shared) * time.Second
	case maxAge >= 0:
		ttl = time.Duration(maxAge) * time.Second
	case len(expires) > 0:
		t, err := http.ParseTime(expires[0])
		if err != nil {
			return 0, true, false // "0", say: in the past
		}
		ttl = t.Sub(date)
	default:
		return 0, false, false
	}
	return max(0, ttl-parseAge(age)), true, false
}

// parseAge reads an Age header (RFC 9111, section 5.1), 0 for none.
func parseAge(age string) time.Duration {
	seconds, err := strconv.Atoi(age)
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, maxSeconds)) * time.Second
}

// maxSeconds bounds lifetimes, in seconds: a century.
const maxSeconds = 100 * 365 * 24 * 3600

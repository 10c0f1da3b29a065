package ledger

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// timeLayout is that of times in leaves. Its fixed width lets them be compared
// as text.
const timeLayout = "2006-01-02T15:04:05.000Z"

// maxInteger is the largest that JSON readers agree on (RFC 8785 section
// 3.2.2.3): 2^53 - 1.
const maxInteger = 1<<53 - 1

// leafSet is how a leaf names its destinations: spelled out, or by the leaf
// that did so first.
type leafSet struct {
	refers bool
	leaf   uint64
}

// encodeLeaf is an entry as its leaf in the log: JSON in the canonical
// form of RFC 8785 (keys sorted, no space, minimal escapes), without what is
// empty. One entry has one encoding, so that whoever has the entry can tell the
// hash of its leaf.
func encodeLeaf(e *Entry, set leafSet) []byte {
	b := make([]byte, 0, 512)
	text := func(key, value string) {
		if value != "" {
			b = append(b, key...)
			b = appendString(b, value)
		}
	}
	b = append(b, `{"action":`...)
	b = appendString(b, string(e.Action))
	switch {
	case set.refers:
		b = append(b, `,"destinations":`...)
		b = strconv.AppendUint(b, set.leaf, 10)
	case len(e.Destinations) > 0:
		b = append(b, `,"destinations":`...)
		for i, destination := range e.Destinations {
			b = append(b, "[,"[min(i, 1)])
			b = appendString(b, destination)
		}
		b = append(b, ']')
	}
	text(`,"digest":`, string(e.Digest))
	text(`,"kind":`, string(e.Kind))
	text(`,"mediaType":`, e.MediaType)
	text(`,"name":`, e.Name)
	text(`,"previous":`, string(e.Previous))
	text(`,"project":`, e.Project)
	text(`,"reason":`, e.Reason)
	text(`,"revision":`, e.Revision)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendUint(b, e.Sequence, 10)
	if e.Size != 0 {
		b = append(b, `,"size":`...)
		b = strconv.AppendInt(b, e.Size, 10)
	}
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, timeLayout)
	return append(b, `"}`...)
}

// appendString appends a JSON string as RFC 8785 section 3.2.2.2 has it.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c >= 0x20:
			b = append(b, c)
		case strings.IndexByte("\b\t\n\f\r", c) >= 0:
			b = append(b, '\\', "btn\x00fr"[c-'\b'])
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		}
	}
	return append(b, '"')
}

// leafReader reads leaves. It takes only what encodeLeaf writes, byte for byte,
// so that nothing can hide in an encoding; and it is many times faster than
// reading any JSON would be.
type leafReader struct {
	s    string // the leaf
	i    int    // where in it
	lead byte   // what must come before the next key
	err  error

	shared   map[string]string // strings that many entries have
	timeText string            // of the leaf before: entries come in lots of one time
	time     time.Time
}

// read decodes a leaf, all of it but what only the other leaves can tell: what
// set it refers to, and whether sequence and time follow. The entry does not
// hold on to the leaf's memory. Errors: ErrCorrupt.
func (r *leafReader) read(leaf []byte) (e Entry, set leafSet, err error) {
	r.s, r.i, r.lead, r.err = string(leaf), 0, '{', nil
	r.require(`"action":`)
	e.Action = r.action()
	if r.key(`"destinations":`) {
		e.Destinations, set = r.destinations()
	}
	e.Digest = digest.Digest(r.text(`"digest":`))
	e.Kind = r.kind()
	e.MediaType = r.share(r.text(`"mediaType":`))
	e.Name = r.text(`"name":`)
	e.Previous = digest.Digest(r.text(`"previous":`))
	e.Project = r.share(r.text(`"project":`))
	e.Reason = r.share(r.text(`"reason":`))
	e.Revision = r.share(r.text(`"revision":`))
	r.require(`"sequence":`)
	e.Sequence = r.integer()
	if r.key(`"size":`) {
		e.Size = int64(r.integer())
		if e.Size == 0 {
			r.fail("a size of 0, which is left out")
		}
	}
	r.require(`"time":`)
	e.Time = r.timestamp()
	if r.err == nil && r.s[r.i:] != "}" {
		r.fail("want the end of the entry")
	}
	if r.err != nil {
		return Entry{}, leafSet{}, r.err
	}
	e.Name = strings.Clone(e.Name)
	e.Digest = digest.Digest(strings.Clone(string(e.Digest)))
	e.Previous = digest.Digest(strings.Clone(string(e.Previous)))
	return e, set, nil
}

func (r *leafReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: byte %d of the entry: %s", ErrCorrupt, r.i, fmt.Sprintf(format, args...))
	}
	r.i = len(r.s) // nothing matches from here on
}

// key goes past a key, if it is the next.
func (r *leafReader) key(key string) bool {
	rest := r.s[r.i:]
	if len(rest) <= len(key) || rest[0] != r.lead || rest[1:1+len(key)] != key {
		return false
	}
	r.i += 1 + len(key)
	r.lead = ','
	return true
}

func (r *leafReader) require(key string) {
	if !r.key(key) {
		r.fail("want the key %s", key)
	}
}

// text is the string of a key, which must not be empty if the key is there.
func (r *leafReader) text(key string) string {
	if !r.key(key) {
		return ""
	}
	s := r.str()
	if s == "" {
		r.fail("%s is empty, and would be left out", key)
	}
	return s
}

func (r *leafReader) str() string {
	rest := r.s[r.i:]
	if rest == "" || rest[0] != '"' {
		r.fail("want a string")
		return ""
	}
	ascii := true
	for i := 1; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			r.i += i + 1
			s := rest[1:i]
			if !ascii && !utf8.ValidString(s) {
				r.fail("a string that is not UTF-8")
			}
			return s
		case c == '\\':
			return r.escaped()
		case c < 0x20:
			r.fail("a control character in a string")
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.fail("a string without an end")
	return ""
}

// escaped is str for a string with escapes.
func (r *leafReader) escaped() string {
	rest := r.s[r.i:]
	quoted := 0 // where the string ends, its quotes included
	for i := 1; i < len(rest); i++ {
		if rest[i] == '\\' {
			i++
		} else if rest[i] == '"' {
			quoted = i + 1
			break
		}
	}
	// Go's syntax has all of the escapes that RFC 8785 writes; that there are
	// no others shows when it is written again.
	s, err := strconv.Unquote(rest[:quoted])
	if err != nil || !utf8.ValidString(s) || string(appendString(nil, s)) != rest[:quoted] {
		r.fail("a string that is not in canonical form")
		return ""
	}
	r.i += quoted
	return s
}

func (r *leafReader) integer() uint64 {
	start := r.i
	var n uint64
	for r.i < len(r.s) && r.s[r.i] >= '0' && r.s[r.i] <= '9' && n <= maxInteger {
		n = 10*n + uint64(r.s[r.i]-'0')
		r.i++
	}
	if r.i == start || n > maxInteger || r.s[start] == '0' && r.i > start+1 {
		r.fail("want an integer of at most %d", uint64(maxInteger))
		return 0
	}
	return n
}

func (r *leafReader) timestamp() time.Time {
	s := r.str()
	if r.err != nil || s == r.timeText {
		return r.time
	}
	t, err := time.Parse(timeLayout, s)
	if err != nil || t.Format(timeLayout) != s {
		r.fail("want a time such as %s", timeLayout)
		return time.Time{}
	}
	r.timeText, r.time = strings.Clone(s), t
	return t
}

func (r *leafReader) destinations() (list []string, set leafSet) {
	if r.i < len(r.s) && r.s[r.i] != '[' {
		return nil, leafSet{refers: true, leaf: r.integer()}
	}
	for r.i < len(r.s) && r.s[r.i] != ']' {
		if want := "[,"[min(len(list), 1)]; r.s[r.i] != want {
			r.fail("want %q", want)
			break
		}
		r.i++
		list = append(list, strings.Clone(r.str()))
	}
	if r.i == len(r.s) || len(list) == 0 {
		r.fail("want a list of destinations")
		return nil, leafSet{}
	}
	r.i++ // past the bracket
	return list, leafSet{}
}

func (r *leafReader) action() Action {
	s := r.str()
	for _, action := range [...]Action{Set, Adopt, Delete, Revoke, Unrevoke} {
		if s == string(action) {
			return action
		}
	}
	r.fail("there is no action %q", s)
	return ""
}

func (r *leafReader) kind() Kind {
	switch s := r.text(`"kind":`); s {
	case "":
		return ""
	case string(Image):
		return Image
	case string(File):
		return File
	default:
		r.fail("there is no kind %q", s)
		return ""
	}
}

// share returns the one string of those that are equal.
func (r *leafReader) share(s string) string {
	if s == "" {
		return ""
	}
	if shared, ok := r.shared[s]; ok {
		return shared
	}
	if r.shared == nil {
		r.shared = make(map[string]string)
	}
	s = strings.Clone(s)
	r.shared[s] = s
	return s
}

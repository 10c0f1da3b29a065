package registry

import (
	"net/http"
	"strconv"
)

// headerSet collects the header values of one response in a buffer: they cost
// one string and one array together, however many they are.
type headerSet struct {
	buf  []byte
	keys [8]string
	ends [8]int
	n    int
}

// add ends the value that was appended to buf, under a canonical key.
func (s *headerSet) add(key string) {
	s.keys[s.n], s.ends[s.n] = key, len(s.buf)
	s.n++
}

// put puts the values into h.
func (s *headerSet) put(h http.Header) {
	all, values, start := string(s.buf), make([]string, s.n), 0
	for i := range s.n {
		values[i] = all[start:s.ends[i]]
		h[s.keys[i]] = values[i : i+1 : i+1]
		start = s.ends[i]
	}
}

// blobHeaders puts the headers of a successful answer into the header. length
// is the body's, in bytes, negative when unknown; part is what of the blob the
// body is, nil for all of it or for several parts.
func (x *exchange) blobHeaders(b *Blob, length int64, part *byteRange) {
	s := headerSet{buf: x.scratch[:0]}
	s.validators(b)
	if length >= 0 {
		s.buf = strconv.AppendInt(s.buf, length, 10)
		s.add("Content-Length")
	}
	if part != nil {
		s.buf = part.appendContentRange(s.buf, b.Size)
		s.add("Content-Range")
	}
	if b.MediaType != "" {
		s.buf = append(s.buf, b.MediaType...)
		s.add("Content-Type")
	} else {
		x.header["Content-Type"] = x.values.octetStream
	}
	s.put(x.header)
	if b.Size >= 0 {
		x.header["Accept-Ranges"] = x.values.bytes
	}
	x.header["Cache-Control"] = x.immutable()
	x.header["X-Content-Type-Options"] = x.values.nosniff
}

// blobValidators puts the headers of an answer without content (RFC 9110,
// section 15.4.5) into the header.
func (x *exchange) blobValidators(b *Blob) {
	var s headerSet
	s.validators(b)
	s.put(x.header)
	x.header["Cache-Control"] = x.immutable()
}

func (s *headerSet) validators(b *Blob) {
	s.buf = append(s.buf, b.Digest...)
	s.add("Docker-Content-Digest")
	s.buf = append(s.buf, '"')
	s.buf = append(s.buf, b.Digest...)
	s.buf = append(s.buf, '"')
	s.add("Etag")
	if !b.Modified.IsZero() {
		s.buf = b.Modified.UTC().AppendFormat(s.buf, http.TimeFormat)
		s.add("Last-Modified")
	}
}

func (r byteRange) appendContentRange(b []byte, size int64) []byte {
	b = append(b, "bytes "...)
	b = strconv.AppendInt(b, r.start, 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, r.start+r.length-1, 10)
	b = append(b, '/')
	return strconv.AppendInt(b, size, 10)
}

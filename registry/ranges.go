package registry

import (
	"math"
	"strings"
)

// maxRanges bounds the ranges answered in one response. No client of a
// registry asks for more than one; who asks for hundreds gets the whole, which
// RFC 9110, section 14.2, allows.
const maxRanges = 64

// byteRange is a part of a blob: length bytes from start, both within it.
type byteRange struct {
	start, length int64 // bytes
	toEnd         bool  // the client named no end: it wants what it lacks
}

// rangeVerdict is what a Range header means for a blob.
type rangeVerdict uint8

const (
	rangeWhole         rangeVerdict = iota // there is none, or it is to be ignored: 200
	rangePartial                           // 206
	rangeUnsatisfiable                     // 416
)

// parseRange appends to dst the ranges that a Range header asks for of a blob
// of size bytes, clamped to it (RFC 9110, section 14.1.2).
//
// A header of another unit, or with a syntax error, is ignored, as are sets
// larger than [maxRanges] and sets that sum to more than the blob. A range
// whose end lies before its start is a range error, which a server may ignore
// or reject: it counts as unsatisfiable, as the OCI conformance suite wants. An
// empty blob is always sent whole: no Content-Range can describe a part of it.
func parseRange(dst []byteRange, header string, size int64) ([]byteRange, rangeVerdict) {
	const unit = "bytes="
	if size <= 0 || len(header) < len(unit) || !strings.EqualFold(header[:len(unit)], unit) {
		return nil, rangeWhole
	}
	var total int64
	specs := 0
	for rest, more := header[len(unit):], true; more; {
		var spec string
		spec, rest, more = strings.Cut(rest, ",")
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue // RFC 9110, section 5.6.1.2: empty list elements are skipped
		}
		if specs++; specs > maxRanges {
			return nil, rangeWhole
		}
		r, satisfiable, ok := parseRangeSpec(spec, size)
		if !ok {
			return nil, rangeWhole
		}
		if !satisfiable {
			continue
		}
		if total += r.length; total > size {
			return nil, rangeWhole
		}
		dst = append(dst, r)
	}
	switch {
	case specs == 0:
		return nil, rangeWhole
	case len(dst) == 0:
		return nil, rangeUnsatisfiable
	default:
		return dst, rangePartial
	}
}

// parseRangeSpec reads "first-last", "first-" or "-suffix".
func parseRangeSpec(spec string, size int64) (r byteRange, satisfiable, ok bool) {
	from, to, dash := strings.Cut(spec, "-")
	if !dash || from == "" && to == "" {
		return r, false, false
	}
	first, ok1 := parsePosition(from)
	last, ok2 := parsePosition(to)
	if !ok1 || !ok2 {
		return r, false, false
	}
	switch {
	case from == "":
		length := min(last, size)
		return byteRange{start: size - length, length: length}, length > 0, true
	case to == "":
		return byteRange{start: first, length: size - first, toEnd: true}, first < size, true
	default:
		last = min(last, size-1)
	}
	return byteRange{start: first, length: last - first + 1}, first <= last, true
}

// parsePosition reads decimal digits; none are 0, too many the largest number.
func parsePosition(s string) (int64, bool) {
	var n int64
	for i := range len(s) {
		c := s[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		if n > (math.MaxInt64-9)/10 {
			n = math.MaxInt64
			continue
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

package folder

import (
	"strconv"
	"strings"
)

// The media types of pages.
const (
	mediaText = "text/plain"
	mediaJSON = "application/json"
	mediaHTML = "text/html"
)

// Preferred is which of some media types a client wants most (RFC 9110,
// section 12.5.1); of those that it wants alike, the first. It is the first
// too when it wants none: better that than nothing.
func Preferred(accept []string, offers ...string) string {
	best, weight := offers[0], 0.0
	for _, offer := range offers {
		if w := accepted(accept, offer); w > weight {
			best, weight = offer, w
		}
	}
	return best
}

// accepted is the weight, 0 to 1, that a client gives to a media type: that of
// the most specific range that has it.
func accepted(accept []string, mediaType string) float64 {
	if len(accept) == 0 {
		return 1
	}
	kind, _, _ := strings.Cut(mediaType, "/")
	var weight float64
	specific := 0
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, parameters, _ := strings.Cut(item, ";")
		level := 0
		switch name = strings.ToLower(strings.TrimSpace(name)); name {
		case mediaType:
			level = 3
		case kind + "/*":
			level = 2
		case "*/*":
			level = 1
		}
		if level > specific {
			specific, weight = level, quality(parameters)
		}
	}
	return weight
}

// quality is the weight among the parameters of a media range.
func quality(parameters string) float64 {
	for parameter := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		q, err := strconv.ParseFloat(value, 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 1 // a malformed weight is none
		}
		return q
	}
	return 1
}

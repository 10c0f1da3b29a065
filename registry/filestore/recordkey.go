package filestore

import (
	"net/url"
	"strings"
)

// fileRecords is the first segment of the records of files.
const fileRecords = "files"

// Elements of a path are UTF-8 of up to 255 bytes, segments of a record's key
// printable ASCII of as many. In a segment, every byte that is not, and every
// "%", is percent-escaped. What is then too long goes on in the next segment,
// and each piece but the last ends in a "%" that begins no escape.
const (
	maxSegment = 255
	pieceSize  = 250 // leaves more than "." or ".." for the last piece
)

// recordKey is the key of a file's record.
func recordKey(p Path) string {
	var key strings.Builder
	key.WriteString(fileRecords)
	for element := range strings.SplitSeq(string(p), "/") {
		segment := escapeElement(element)
		for len(segment) > maxSegment {
			key.WriteString("/" + segment[:pieceSize] + "%")
			segment = segment[pieceSize:]
		}
		key.WriteString("/" + segment)
	}
	return key.String()
}

// recordPath reads the path back from a key that recordKey made. It reports
// false for all others.
func recordPath(key string) (Path, bool) {
	rest, ok := strings.CutPrefix(key, fileRecords+"/")
	if !ok {
		return "", false
	}
	text, err := url.PathUnescape(strings.ReplaceAll(rest, "%/", ""))
	if err != nil {
		return "", false
	}
	p, err := ParsePath(text)
	return p, err == nil && recordKey(p) == key
}

func escapeElement(element string) string {
	const digits = "0123456789ABCDEF"
	escaped := make([]byte, 0, len(element))
	for i := range len(element) {
		c := element[i]
		if c < ' ' || c > '~' || c == '%' {
			escaped = append(escaped, '%', digits[c>>4], digits[c&0xf])
			continue
		}
		escaped = append(escaped, c)
	}
	return string(escaped)
}

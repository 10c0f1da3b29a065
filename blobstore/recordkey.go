package blobstore

import (
	"fmt"
	"strings"
)

// A record key becomes a path that any file system and any S3 server takes,
// and from which the key can be read back:
//
//   - in each segment, every byte but letters, digits, "-", "_" and inner dots
//     is percent-escaped;
//   - a segment that is then longer than maxPathName goes on in the next path
//     element, and every element but its last ends in "+";
//   - the last element of all ends in "~".
//
// Escaped segments hold neither "+" nor "~", so the paths of two keys differ,
// and "a" (a~) can lie beside "a/b" (a/b~), of which a file system, and S3
// servers on top of one, would refuse the plain names.
const (
	maxPathName     = 254 // bytes; with the mark, the 255 that Linux file systems take
	recordContinues = "+"
	recordEnds      = "~"
)

// maxSegment bounds a segment of a record key, in bytes.
const maxSegment = 255

// checkKey says whether key follows the rules of Records. Errors: ErrInvalidKey.
func checkKey(key string) error {
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "" || segment == "." || segment == ".." || len(segment) > maxSegment {
			return invalidKey(key)
		}
		for i := range len(segment) {
			if segment[i] < ' ' || segment[i] > '~' {
				return invalidKey(key)
			}
		}
	}
	return nil
}

func invalidKey(key string) error {
	const shown = 160 // bytes
	if len(key) > shown {
		key = key[:shown] + "…"
	}
	return fmt.Errorf(`%w %q: want segments of 1 to %d printable ASCII characters, not "." or "..", joined by "/"`,
		ErrInvalidKey, key, maxSegment)
}

// recordPath is the path of a valid key, below the place for records.
func recordPath(key string) string {
	return strings.TrimSuffix(recordDir(key), "/") + recordEnds
}

// recordDir is the path, ending in "/", below which lie the records that are
// below prefix, which is a valid key or empty.
func recordDir(prefix string) string {
	if prefix == "" {
		return ""
	}
	var path strings.Builder
	for segment := range strings.SplitSeq(prefix, "/") {
		name := escapeSegment(segment)
		for len(name) > maxPathName {
			path.WriteString(name[:maxPathName] + recordContinues + "/")
			name = name[maxPathName:]
		}
		path.WriteString(name + "/")
	}
	return path.String()
}

// recordKey reads a key back from the path that recordPath made of it. It
// reports false for a path that recordPath makes of no key.
func recordKey(path string) (string, bool) {
	joined, ok := strings.CutSuffix(path, recordEnds)
	if !ok {
		return "", false
	}
	joined = strings.ReplaceAll(joined, recordContinues+"/", "")
	var key strings.Builder
	for name := range strings.SplitSeq(joined, "/") {
		if key.Len() > 0 {
			key.WriteByte('/')
		}
		segment, ok := unescapeSegment(name)
		if !ok {
			return "", false
		}
		key.WriteString(segment)
	}
	if checkKey(key.String()) != nil || recordPath(key.String()) != path {
		return "", false
	}
	return key.String(), true
}

func escapeSegment(segment string) string {
	const digits = "0123456789ABCDEF"
	name := make([]byte, 0, len(segment))
	for i := range len(segment) {
		c := segment[i]
		// A dot at either end is escaped: hidden files and names such as
		// "a." are treated apart by some servers.
		inner := 0 < i && i < len(segment)-1
		if isPlain(c) || c == '.' && inner {
			name = append(name, c)
			continue
		}
		name = append(name, '%', digits[c>>4], digits[c&0xf])
	}
	return string(name)
}

func unescapeSegment(name string) (string, bool) {
	segment := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if name[i] != '%' {
			segment = append(segment, name[i])
			continue
		}
		if i+2 >= len(name) {
			return "", false
		}
		high, low := upperHexValue(name[i+1]), upperHexValue(name[i+2])
		if high|low > 0xf {
			return "", false
		}
		segment = append(segment, high<<4|low)
		i += 2
	}
	return string(segment), true
}

func isPlain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// upperHexValue is the value of an upper-case hex digit, or 0xff.
func upperHexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

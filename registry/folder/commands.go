package folder

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// EscapePath is a path as it is written in a URL.
func EscapePath(path string) string {
	var b strings.Builder
	for element := range strings.SplitSeq(path, "/") {
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(element))
	}
	return b.String()
}

// appendFetch appends the command that downloads a file from the URL of its folder.
// curl's -O would save a name as it is in the URL, percent-encoded.
func appendFetch(b []byte, folderURL, name string) []byte {
	escaped := url.PathEscape(name)
	b = append(b, "curl -fL"...)
	if escaped == name {
		b = append(b, "O "...)
	} else {
		b = append(b, "o "...)
		if name[0] == '-' {
			b = appendQuoted(b, "./", name)
		} else {
			b = appendQuoted(b, name)
		}
		b = append(b, ' ')
	}
	return appendQuoted(b, folderURL, escaped)
}

// appendCheck appends the command that checks a file that was downloaded.
func appendCheck(b []byte, sum, name string) []byte {
	line := strings.TrimSuffix(string(appendSum(nil, sum, name)), "\n")
	if line[0] == '\\' {
		b = append(b, `printf '%s\n' `...) // some shells' echo reads backslashes
	} else {
		b = append(b, "echo "...)
	}
	b = appendQuoted(b, line)
	return append(b, " | sha256sum -c"...)
}

// appendQuoted appends a word, in parts, for a POSIX shell. A control character,
// which a terminal would act on when it is pasted, is spelt out (POSIX.1-2024,
// section 2.2.4).
func appendQuoted(b []byte, parts ...string) []byte {
	start := len(b)
	b = append(b, '\'')
	for _, s := range parts {
		from := 0
		for i := range len(s) {
			switch c := s[i]; {
			case c == '\'':
				b = append(append(b, s[from:i]...), `'\''`...)
				from = i + 1
			case c < ' ' || c >= 0x7f:
				return appendSpelt(b[:start], parts)
			}
		}
		b = append(b, s[from:]...)
	}
	return append(b, '\'')
}

// appendSpelt is appendQuoted of a word with characters that are not ASCII's, or
// control characters.
func appendSpelt(b []byte, parts []string) []byte {
	s := strings.Join(parts, "")
	if !strings.ContainsFunc(s, isUnsafe) {
		return append(append(append(b, '\''), strings.ReplaceAll(s, `'`, `'\''`)...), '\'')
	}
	b = append(b, `$'`...)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\'' || r == '\\':
			b = append(b, '\\', s[i])
		case isUnsafe(r):
			b = appendOctal(b, []byte(s[i:i+size]))
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return append(b, '\'')
}

// isUnsafe says whether a terminal may act on a character, or take it for another
// where its encoding is broken.
func isUnsafe(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }

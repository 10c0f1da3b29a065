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
			b = appendQuoted(b, "./"+name)
		} else {
			b = appendQuoted(b, name)
		}
		b = append(b, ' ')
	}
	return appendQuoted(b, folderURL+escaped)
}

// appendCheck appends the command that checks a file that was downloaded.
func appendCheck(b []byte, sum, name string) []byte {
	line := strings.TrimSuffix(string(appendSum(nil, sum, name)), "\n")
	if strings.ContainsRune(line, '\\') {
		b = append(b, `printf '%s\n' `...) // some shells' echo reads backslashes
	} else {
		b = append(b, "echo "...)
	}
	b = appendQuoted(b, line)
	return append(b, " | sha256sum -c"...)
}

// appendQuoted appends a word for a POSIX shell. A control character, which a
// terminal would act on when it is pasted, is spelt out (POSIX.1-2024, section
// 2.2.4).
func appendQuoted(b []byte, s string) []byte {
	if !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		b = append(b, '\'')
		for i := range len(s) {
			if s[i] == '\'' {
				b = append(b, `'\''`...)
			} else {
				b = append(b, s[i])
			}
		}
		return append(b, '\'')
	}
	b = append(b, `$'`...)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\'' || r == '\\':
			b = append(b, '\\', s[i])
		case unicode.IsControl(r) || r == utf8.RuneError:
			b = appendOctal(b, []byte(s[i:i+size]))
		default:
			b = append(b, s[i:i+size]...)
		}
		i += size
	}
	return append(b, '\'')
}

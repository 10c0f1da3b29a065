package folder

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

func (p *Page) json() (*Document, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("listing %s as JSON: %w", p.Path, err)
	}
	return newDocument(append(body, '\n'), mediaJSON), nil
}

// noValue stands for what is not known, or what folders do not have.
const noValue = "-"

// text is a line for each entry: sha256, size in bytes, time, name, separated by
// tabs. In names, which may hold anything, a backslash and control characters
// are escaped.
func (p *Page) text() []byte {
	b := make([]byte, 0, 128*len(p.Entries))
	for i := range p.Entries {
		e := &p.Entries[i]
		b = append(b, orNone(e.SHA256)...)
		b = append(b, '\t')
		if e.Folder() || e.Size < 0 {
			b = append(b, noValue...)
		} else {
			b = strconv.AppendInt(b, e.Size, 10)
		}
		b = append(b, '\t')
		if e.Modified.IsZero() {
			b = append(b, noValue...)
		} else {
			b = e.Modified.UTC().AppendFormat(b, time.RFC3339)
		}
		b = append(b, '\t')
		b = append(b, oneLine(e.Name)...)
		b = append(b, '\n')
	}
	return b
}

func orNone(s string) string {
	if s == "" {
		return noValue
	}
	return s
}

// oneLine is a name without what would break a line or a column, or what a
// terminal would act on.
func oneLine(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || unicode.IsControl(r) }) {
		return name
	}
	var b []byte
	for _, r := range name {
		switch {
		case r == '\\':
			b = append(b, `\\`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case unicode.IsControl(r):
			b = appendOctal(b, utf8.AppendRune(nil, r))
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(b)
}

// appendOctal appends bytes as escapes of three digits, which a digit that follows
// does not prolong.
func appendOctal(b, bytes []byte) []byte {
	for _, c := range bytes {
		b = append(b, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
	}
	return b
}

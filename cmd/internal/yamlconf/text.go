package yamlconf

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// expand replaces ${VAR}, ${file:PATH} and $$ in the text of a value. A $
// before anything else stands for itself. Errors name what is referred to and
// never what it holds; nor do problems that are told of it later.
func (doc *Document) expand(text string) (string, error) {
	var out strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i == len(text)-1 {
			return out.String() + text, nil
		}
		out.WriteString(text[:i])
		text = text[i+1:]
		switch text[0] {
		case '$':
			out.WriteByte('$')
			text = text[1:]
		case '{':
			ref, rest, closed := strings.Cut(text[1:], "}")
			if !closed {
				return "", errors.New("${ without a closing }; write ${VAR}, ${file:PATH}, or $$ for a plain $")
			}
			value, err := doc.opts.lookup(ref)
			if err != nil {
				return "", err
			}
			doc.hide(value, "${"+ref+"}")
			out.WriteString(value)
			text = rest
		default:
			out.WriteByte('$')
		}
	}
}

// lookup returns what a reference, the text between ${ and }, stands for.
func (o Options) lookup(ref string) (string, error) {
	if path, isFile := strings.CutPrefix(ref, "file:"); isFile {
		content, err := o.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("cannot read the file of ${file:%s}: %w", printable(path), fileReason(err))
		}
		return strings.TrimRight(string(content), "\r\n"), nil
	}
	if !regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(ref) {
		return "", fmt.Errorf("${%s} is not a reference; write ${VAR}, ${file:PATH}, or $$ for a plain $", printable(ref))
	}
	value, ok := o.Env(ref)
	if !ok {
		return "", fmt.Errorf("the environment variable %s is not set", ref)
	}
	return value, nil
}

// fileReason drops the operation and path that a message names already.
func fileReason(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// leastHidden is the length, in bytes, from which what a reference stands for is
// hidden: what is shorter is part of much else.
const leastHidden = 4

// hide has problems show a reference in place of what it stands for.
func (doc *Document) hide(value, reference string) {
	if len(value) < leastHidden {
		return
	}
	doc.hidden = append(doc.hidden, value, reference)
	if quoted := strconv.Quote(value); quoted != `"`+value+`"` {
		doc.hidden = append(doc.hidden, quoted[1:len(quoted)-1], reference)
	}
}

func unknownKey(key, path string, known []string) string {
	message := fmt.Sprintf("unknown key %s in %s", quote(key), display(path))
	if near := nearest(key, known); near != "" {
		message += fmt.Sprintf("; did you mean %q?", near)
	} else {
		message += ";"
	}
	return message + " known keys: " + strings.Join(known, ", ")
}

// nearest returns the known key that needs the fewest edits to become key, or
// "" when a third of the key or more would have to change.
func nearest(key string, known []string) string {
	best, least := "", 1+len(key)/3
	for _, k := range known {
		if d := distance(key, k, least); d < least || best == "" && d == least {
			best, least = k, d
		}
	}
	return best
}

// distance is the Levenshtein distance of a and b in bytes, or more than limit
// when their lengths alone differ by more.
func distance(a, b string, limit int) int {
	if diff := len(a) - len(b); diff > limit || -diff > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = slices.Min([]int{cost, row[j] + 1, diagonal + 1})
		}
	}
	return row[len(b)]
}

// quote shows a text of the file: in quotes, on one line, not too long, and
// without the password of a URL.
func quote(text string) string {
	text = regexp.MustCompile(`://[^/@]*@`).ReplaceAllString(text, "://…@")
	const most = 80
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return strconv.Quote(text)
}

// printable keeps a name on one line.
func printable(name string) string {
	quoted := quote(name)
	if quoted == `"`+name+`"` {
		return name
	}
	return quoted
}

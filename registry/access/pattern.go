package access

import (
	"fmt"
	"strings"
)

// maxPattern bounds a pattern, in bytes.
const maxPattern = 1024

// Pattern says which names are meant: repositories, or paths of files. Its
// elements are joined by "/".
//
//   - In an element, "*" stands for any characters, none included.
//   - An element "**" stands for any number of elements: none included in the
//     middle of a pattern, at least one at its end. So "release/**" means all
//     below release, "**/latest.txt" those of every folder, and "**" all.
//   - All else stands for itself, whatever its case.
type Pattern struct {
	text     string
	elements []string
}

// ParsePattern reads a pattern.
func ParsePattern(text string) (Pattern, error) {
	wrong := func(format string, args ...any) (Pattern, error) {
		return Pattern{}, fmt.Errorf("pattern %.200q: %s", text, fmt.Sprintf(format, args...))
	}
	if text == "" {
		return wrong(`it is empty: "**" means all`)
	}
	if len(text) > maxPattern {
		return wrong("it has %d bytes, more than the %d allowed", len(text), maxPattern)
	}
	if at := strings.IndexAny(text, `?[]{}\!`); at >= 0 {
		return wrong(`%q means nothing in a pattern: there are only "*" within an element, and "**" for any number of elements`, text[at])
	}
	if strings.ContainsFunc(text, isControl) {
		return wrong("it has a control character")
	}
	elements := strings.Split(text, "/")
	for _, element := range elements {
		switch {
		case element == "":
			return wrong("it has an empty element: names neither begin nor end with a slash, nor have two in a row")
		case element == "." || element == "..":
			return wrong("no name has an element %q", element)
		case element != "**" && strings.Contains(element, "**"):
			return wrong(`"**" has to be a whole element`)
		}
	}
	if elements[len(elements)-1] == "**" {
		elements = append(elements, "*") // the one that it stands for at least
	}
	return Pattern{text: text, elements: elements}, nil
}

// String is the pattern as it was written.
func (p Pattern) String() string { return p.text }

// Match says whether a name is meant.
func (p Pattern) Match(name string) bool {
	if name == "" {
		return false
	}
	names := strings.Split(name, "/")
	// Where an element does not match, the last "**" takes one more. Earlier
	// ones need not: what they could take, the last one can. So this takes no
	// more steps than elements of the one times elements of the other.
	at, next := 0, 0
	last, taken := -1, 0 // where the last "**" stands, and up to where it took
	for next < len(names) {
		switch {
		case at < len(p.elements) && p.elements[at] == "**":
			last, taken = at, next
			at++
		case at < len(p.elements) && matchElement(p.elements[at], names[next]):
			at, next = at+1, next+1
		case last >= 0:
			taken++
			at, next = last+1, taken
		default:
			return false
		}
	}
	return at == len(p.elements)
}

// matchElement says whether an element is meant by one of a pattern.
func matchElement(pattern, element string) bool {
	head, pattern, star := strings.Cut(pattern, "*")
	if !star {
		return element == head
	}
	element, ok := strings.CutPrefix(element, head)
	for ok {
		part, rest, more := strings.Cut(pattern, "*")
		if !more {
			return strings.HasSuffix(element, part)
		}
		// The leftmost place leaves the most for what follows.
		_, element, ok = strings.Cut(element, part)
		pattern = rest
	}
	return false
}

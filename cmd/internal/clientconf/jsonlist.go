package clientconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// span is a piece of a text, by its offsets.
type span struct{ start, end int }

// member is a key of a JSON object, with its value.
type member struct {
	key   string
	whole span // from the key's first quote
	value span
}

// object is a JSON object in a text whose form is to stay.
type object struct {
	text    []byte
	members []member
	close   int // offset of "}"
}

// utf8BOM begins files of some editors. Dockerd passes over it.
const utf8BOM = "\ufeff"

// parseObject reads a JSON text that is one object.
func parseObject(text []byte) (*object, error) {
	skip := 0
	if bytes.HasPrefix(text, []byte(utf8BOM)) {
		skip = len(utf8BOM)
	}
	decoder := json.NewDecoder(bytes.NewReader(text[skip:]))
	at := func() int { return skip + int(decoder.InputOffset()) }
	if !json.Valid(text[skip:]) {
		return nil, jsonError(text[skip:])
	}
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("it is no JSON object, so that nothing can be added")
	}
	o := &object{text: text}
	for decoder.More() {
		from := at()
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		m := member{whole: span{start: from + bytes.IndexByte(text[from:], '"')}}
		m.key, _ = key.(string) // it is one, in valid JSON
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		m.whole.end = at()
		m.value = span{m.whole.end - len(value), m.whole.end}
		o.members = append(o.members, m)
	}
	o.close = bytes.LastIndexByte(text, '}')
	return o, nil
}

// jsonError says on which line a text is no JSON.
func jsonError(text []byte) error {
	var v any
	err := json.Unmarshal(text, &v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		line := 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
		return fmt.Errorf("line %d is not valid JSON, so that nothing can be added: %w", line, err)
	}
	return fmt.Errorf("it is not valid JSON, so that nothing can be added: %w", err)
}

// find is the last member with a key: the one that counts.
func (o *object) find(key string) (member, bool) {
	for _, m := range slices.Backward(o.members) {
		if m.key == key {
			return m, true
		}
	}
	return member{}, false
}

// list is the value of a member that is a list of strings, with where each is.
func (o *object) list(m member) (values []string, at []span, err error) {
	text := o.text[m.value.start:m.value.end]
	if string(text) == "null" {
		return nil, nil, nil
	}
	if err := json.Unmarshal(text, &values); err != nil {
		return nil, nil, fmt.Errorf("%s is no list of strings, so that nothing can be added", m.key)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	if _, err := decoder.Token(); err != nil {
		return nil, nil, err
	}
	for range values {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			return nil, nil, err
		}
		end := m.value.start + int(decoder.InputOffset())
		at = append(at, span{end - len(raw), end})
	}
	return values, at, nil
}

// addToList puts a value first into the list of a key, in the form that the text
// has. A value that the list has already is not added.
func addToList(text []byte, key, value string) (_ []byte, added bool, err error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, false, err
	}
	m, ok := o.find(key)
	if !ok {
		return o.addMember(key, value), true, nil
	}
	values, at, err := o.list(m)
	if err != nil {
		return nil, false, err
	}
	same := func(v string) bool { return strings.TrimSuffix(v, "/") == strings.TrimSuffix(value, "/") }
	switch {
	case slices.ContainsFunc(values, same):
		return text, false, nil
	case len(values) == 0:
		return splice(text, m.value, "["+quote(value)+"]"), true, nil
	}
	// What is between the bracket and the first value is before the second, too.
	gap := string(text[m.value.start+1 : at[0].start])
	if gap == "" {
		gap = " "
	}
	return splice(text, span{at[0].start, at[0].start}, quote(value)+","+gap), true, nil
}

// addMember puts a key with a list of one value behind the last key.
func (o *object) addMember(key, value string) []byte {
	line := quote(key) + ": [" + quote(value) + "]"
	end := lineEnd(o.text)
	if len(o.members) == 0 {
		open := bytes.IndexByte(o.text, '{')
		return splice(o.text, span{open, o.close + 1}, "{"+end+"  "+line+end+"}")
	}
	last := o.members[len(o.members)-1].whole
	before := o.text[:last.start]
	gap := before[len(bytes.TrimRight(before, " \t\r\n")):]
	if len(gap) == 0 {
		gap = []byte(" ")
	}
	return splice(o.text, span{last.end, last.end}, ","+string(gap)+line)
}

// removeFromList takes a value out of the list of a key, and the key with it when
// nothing is left. It reports false where the value is not there.
func removeFromList(text []byte, key, value string) ([]byte, bool) {
	o, err := parseObject(text)
	if err != nil {
		return nil, false
	}
	m, ok := o.find(key)
	if !ok {
		return text, false
	}
	values, at, err := o.list(m)
	i := slices.Index(values, value)
	switch {
	case err != nil || i < 0:
		return text, false
	case len(values) == 1:
		all := make([]span, len(o.members))
		for j := range o.members {
			all[j] = o.members[j].whole
		}
		return removeSpan(text, all, slices.Index(o.members, m)), true
	}
	return removeSpan(text, at, i), true
}

// removeSpan takes one of several pieces out, with the comma that it no longer
// needs.
func removeSpan(text []byte, all []span, i int) []byte {
	switch {
	case len(all) == 1:
		return splice(text, all[i], "")
	case i+1 < len(all):
		return splice(text, span{all[i].start, all[i+1].start}, "")
	default:
		return splice(text, span{all[i-1].end, all[i].end}, "")
	}
}

func splice(text []byte, at span, with string) []byte {
	return slices.Concat(text[:at.start], []byte(with), text[at.end:])
}

package yamlconf

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// decoder walks the YAML nodes and the Go type side by side. The depth of the
// walk is that of the type, so that aliases which contain themselves end.
type decoder struct{ *Document }

func (d decoder) root(n *yaml.Node, v any) {
	rv := reflect.ValueOf(v).Elem()
	setDefaults(rv)
	if n != nil && !isNull(n) {
		d.structure(follow(n), rv, "")
	}
}

// value reads n into v.
func (d decoder) value(n *yaml.Node, v reflect.Value, path string) {
	n = follow(n)
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if _, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		d.scalar(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		setDefaults(v)
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// structure reads a mapping whose keys are the fields of v. An empty value
// ("node:") is a mapping without keys.
func (d decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	fields, known := map[string]reflect.Value{}, []string{}
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("yaml")
		fields[key] = v.Field(i)
		known = append(known, key)
	}
	d.entries(n, path, func(key string, line int, value *yaml.Node) {
		at := join(path, key)
		if reason, refused := d.opts.Refused[at]; refused {
			d.report(at, line, reason)
			return
		}
		field, ok := fields[key]
		if !ok {
			d.report(at, line, unknownKey(key, path, known))
			return
		}
		d.value(value, field, at)
	})
}

// mapping reads a mapping whose keys are names.
func (d decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	v.Set(reflect.MakeMap(v.Type()))
	d.entries(n, path, func(key string, _ int, value *yaml.Node) {
		entry := reflect.New(v.Type().Elem()).Elem()
		d.value(value, entry, join(path, key))
		v.SetMapIndex(reflect.ValueOf(key), entry)
	})
}

// entries calls visit for each key of a mapping, noting its line.
func (d decoder) entries(n *yaml.Node, path string, visit func(key string, line int, value *yaml.Node)) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.report(path, n.Line, fmt.Sprintf("%s must be keys with values (key: value), not %s", display(path), shape(n)))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := follow(n.Content[i]), n.Content[i+1]
		line := n.Content[i].Line
		if k.Kind != yaml.ScalarNode {
			d.report(path, line, fmt.Sprintf("a key of %s is %s; it must be a plain name", display(path), shape(k)))
			continue
		}
		if before, twice := first[k.Value]; twice {
			d.report(join(path, k.Value), line,
				fmt.Sprintf("%s is given twice, first on line %d; keep one", join(path, printable(k.Value)), before))
			continue
		}
		first[k.Value] = line
		d.lines[join(path, k.Value)] = line
		visit(k.Value, line, value)
	}
}

// list reads a sequence.
func (d decoder) list(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.report(path, n.Line, fmt.Sprintf("%s must be a list, such as [a, b], not %s", display(path), shape(n)))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		d.lines[at] = follow(item).Line
		d.value(item, v.Index(i), at)
	}
}

// scalar reads a single value.
func (d decoder) scalar(n *yaml.Node, v reflect.Value, path string) {
	switch {
	case isNull(n):
		d.report(path, n.Line, display(path)+" is empty; give it a value or remove the key")
		return
	case n.Kind != yaml.ScalarNode:
		d.report(path, n.Line, fmt.Sprintf("%s must be a single value, not %s", display(path), shape(n)))
		return
	}
	text, err := d.expand(n.Value)
	if err == nil {
		if err = assign(text, v); err != nil {
			// The error of assign does not repeat the text, which may be a
			// secret by now: what is quoted is the file's own.
			err = fmt.Errorf("%s %w", quote(n.Value), err)
		}
	}
	if err != nil {
		d.report(path, n.Line, fmt.Sprintf("%s: %v", display(path), err))
	}
}

// assign sets v from text. Its errors read on after the quoted text: "is not …".
func assign(text string, v reflect.Value) error {
	if tu, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return tu.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("is not true or false")
		}
		v.SetBool(text == "true")
	case reflect.Int:
		i, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("is not a whole number")
		}
		v.SetInt(int64(i))
	default:
		panic("yamlconf: no rule for a field of type " + v.Type().String())
	}
	return nil
}

func setDefaults(v reflect.Value) {
	if d, ok := reflect.TypeAssert[Defaulter](v.Addr()); ok {
		d.SetDefaults()
	}
}

func follow(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func join(path, key string) string { return strings.TrimPrefix(path+"."+key, ".") }

func display(path string) string {
	if path == "" {
		return "the file"
	}
	return printable(path)
}

func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	default:
		return "the single value " + quote(n.Value)
	}
}

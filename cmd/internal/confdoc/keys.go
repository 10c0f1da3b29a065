package confdoc

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"entrepot/cmd/internal/yamlconf"
)

// Kind is what the values of a type are.
type Kind struct {
	Name string // in words
	Zero string // what is told as a default that is the zero value; "" is none
}

// Keys returns the keys of the struct that config points to, whose defaults are
// set, in the order of its fields. Types that are single values have a kind. The
// source of the structs is in dir.
func Keys(config any, kinds map[reflect.Type]Kind, dir string) ([]Key, error) {
	found, err := comments(dir)
	if err != nil {
		return nil, err
	}
	w := walk{comments: found, kinds: kinds, used: map[string]bool{}}
	w.value("", reflect.ValueOf(config).Elem(), nil)
	return w.keys, errors.Join(w.problems...)
}

// walk goes through the values of a configuration.
type walk struct {
	comments map[string]comment
	kinds    map[reflect.Type]Kind
	keys     []Key
	problems []error
	used     map[string]bool // fields that have been told of, and their lines
}

// place is a field on the way to a key.
type place struct {
	field string // such as NodeConfig.Limits
	path  string // as far as its value, or each of its values
}

// value adds the keys at and below path. The last of the places is the field
// that v is of.
func (w *walk) value(path string, v reflect.Value, places []place) {
	if kind, ok := w.kinds[v.Type()]; ok {
		w.key(path, kind, v, places)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		w.value(path, fresh(v.Type().Elem()), places)
	case reflect.Map:
		w.value(path+".NAME", fresh(v.Type().Elem()), places)
	case reflect.Slice:
		w.value(path+"[]", fresh(v.Type().Elem()), places)
	case reflect.Struct:
		w.fields(path, v, places)
	default:
		w.problems = append(w.problems, fmt.Errorf("%s is of type %v, for which there are no words", path, v.Type()))
	}
}

// fields adds the keys of a struct.
func (w *walk) fields(path string, v reflect.Value, places []place) {
	if len(places) > 0 {
		last := &places[len(places)-1]
		last.path = path
		if c := w.comments[last.field]; c.meaning != "" {
			w.problems = append(w.problems, fmt.Errorf("the comment of %s is in no row, because it is of no single value: %q", last.field, c.meaning))
		}
	}
	for i := range v.NumField() {
		f := v.Type().Field(i)
		at := strings.TrimPrefix(path+"."+f.Tag.Get("yaml"), ".")
		field := v.Type().Name() + "." + f.Name
		w.value(at, v.Field(i), append(slices.Clone(places), place{field: field, path: at}))
		for key := range w.comments[field].below {
			if !w.used[field+" "+key] {
				w.problems = append(w.problems, fmt.Errorf("the comment of %s tells of .%s, which is nothing below %s", field, key, at))
			}
		}
	}
}

// key adds one key.
func (w *walk) key(path string, kind Kind, v reflect.Value, places []place) {
	k := Key{Path: path, Kind: kind.Name, Default: fmt.Sprint(v.Interface())}
	if v.IsZero() {
		k.Default = kind.Zero
	}
	field := places[len(places)-1].field
	meaning, standard := w.comments[field].meaning, w.comments[field].standard
	for _, p := range slices.Backward(places[:len(places)-1]) {
		if text, ok := w.below(p, path); ok {
			meaning, standard = withDefault(text)
		}
	}
	if standard != "" {
		k.Default = "(" + standard + ")"
	}
	if meaning == "" {
		w.problems = append(w.problems, fmt.Errorf("%s has no meaning: write a comment above %s", path, field))
	}
	k.Meaning = meaning
	w.keys = append(w.keys, k)
}

// below is what a field on the way to a key says of it.
func (w *walk) below(p place, path string) (string, bool) {
	texts, key := w.comments[p.field].below, strings.TrimPrefix(path, p.path+".")
	if text, ok := texts[key]; ok {
		w.used[p.field+" "+key] = true
		return text, true
	}
	text, ok := texts["*"]
	w.used[p.field+" *"] = true
	return strings.ReplaceAll(text, "*", key), ok
}

// fresh is a value of a type with its defaults.
func fresh(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if d, ok := reflect.TypeAssert[yamlconf.Defaulter](v); ok {
		d.SetDefaults()
	}
	return v.Elem()
}

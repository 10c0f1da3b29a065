package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"entrepot/cmd/internal/yamlconf"
)

// documentedKey is a row of the tables in docs/CONFIGURATION.md.
type documentedKey struct{ kind, value string }

// TestDocumentationHasEveryKeyWithItsTypeAndDefault keeps the reference from
// drifting away from the types that the file is read into.
func TestDocumentationHasEveryKeyWithItsTypeAndDefault(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "CONFIGURATION.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]documentedKey{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\| ([^|]*) \\| [^|]+ \\|$").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = documentedKey{m[2], strings.Trim(m[3], "` ")}
	}
	keys := map[string]documentedKey{}
	cfg := new(Config)
	cfg.SetDefaults()
	describe(keys, "", reflect.ValueOf(cfg).Elem())

	for _, key := range slices.Sorted(maps.Keys(keys)) {
		got, ok := documented[key]
		switch want := keys[key]; {
		case !ok:
			t.Errorf("no row for %s: | `%s` | %s | `%s` | … |", key, key, want.kind, want.value)
		case got.kind != want.kind:
			t.Errorf("%s is documented as %s; it is %s", key, got.kind, want.kind)
		case got.value != want.value && !strings.HasPrefix(got.value, "("):
			t.Errorf("the default of %s is documented as %q; it is %q", key, got.value, want.value)
		}
		delete(documented, key)
	}
	for key := range documented {
		t.Errorf("%s is documented; there is no such key", key)
	}
}

// TestExamplesInTheDocumentationAreValid reads each YAML example.
func TestExamplesInTheDocumentationAreValid(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "CONFIGURATION.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(examples) < 2 {
		t.Fatalf("%d examples", len(examples))
	}
	for _, example := range examples {
		err := exampleProblem("CONFIGURATION.md", example[1])
		if err != nil {
			t.Errorf("%v\nin\n%s", err, example[1])
		}
	}
}

// exampleProblem is what is wrong with a configuration in a page, whose files are all there.
func exampleProblem(page, example string) error {
	_, err := parseConfig(page, []byte(example),
		func(string) (string, bool) { return "value", true },
		func(path string) ([]byte, error) {
			if strings.HasSuffix(path, ".pub") {
				return []byte("origin.example.org/ledger+4093f529+AUKRegfSlMfi2+6lhSXo/r+eVGvqpuS5NSOgIy9bOsmX"), nil
			}
			return []byte("{" + strings.Repeat(" ", leastSecret) + "}"), nil
		})
	return err
}

// describe collects the keys below v, whose defaults are set.
func describe(into map[string]documentedKey, path string, v reflect.Value) {
	kinds := map[reflect.Type]string{
		reflect.TypeFor[Size](): "size", reflect.TypeFor[Rate](): "rate", reflect.TypeFor[Duration](): "duration",
		reflect.TypeFor[Percent](): "percentage", reflect.TypeFor[Address](): "address", reflect.TypeFor[[]URL](): "list of URLs",
		reflect.TypeFor[URL](): "URL", reflect.TypeFor[Secret](): "secret", reflect.TypeFor[Path](): "path",
		reflect.TypeFor[LogLevel](): "level", reflect.TypeFor[LogFormat](): "format", reflect.TypeFor[string](): "text",
		reflect.TypeFor[bool](): "true or false", reflect.TypeFor[int](): "number", reflect.TypeFor[[]string](): "list of texts", reflect.TypeFor[[]int](): "list of numbers",
		reflect.TypeFor[Decimal](): "decimal number", reflect.TypeFor[BitRate](): "bits a second", reflect.TypeFor[CloudRegion](): "cloud and region",
	}
	if kind, ok := kinds[v.Type()]; ok {
		value := fmt.Sprint(v.Interface())
		if v.IsZero() && v.Kind() != reflect.Bool {
			value = ""
			if strings.Contains("size rate duration number", kind) {
				value = "0"
			}
		}
		into[path] = documentedKey{kind, value}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		describe(into, path, fresh(v.Type().Elem()))
	case reflect.Map:
		describe(into, path+".NAME", fresh(v.Type().Elem()))
	case reflect.Slice:
		describe(into, path+"[]", fresh(v.Type().Elem()))
	case reflect.Struct:
		for i := range v.NumField() {
			describe(into, strings.TrimPrefix(path+"."+v.Type().Field(i).Tag.Get("yaml"), "."), v.Field(i))
		}
	default:
		panic("no kind for " + v.Type().String())
	}
}

// fresh is a value of a type with its defaults.
func fresh(t reflect.Type) reflect.Value {
	v := reflect.New(t)
	if d, ok := reflect.TypeAssert[yamlconf.Defaulter](v); ok {
		d.SetDefaults()
	}
	return v.Elem()
}

// render writes a configuration, one key a line, leaving out what is not set.
func render(w io.Writer, path string, v reflect.Value) {
	switch {
	case v.IsZero():
	case v.Kind() == reflect.Pointer:
		render(w, path, v.Elem())
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			render(w, strings.TrimPrefix(path+"."+v.Type().Field(i).Tag.Get("yaml"), "."), v.Field(i))
		}
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			render(w, path+"."+key.String(), v.MapIndex(key))
		}
	default:
		fmt.Fprintf(w, "%s: %v\n", path, v.Interface())
	}
}

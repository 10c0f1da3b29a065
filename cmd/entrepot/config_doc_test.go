package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"entrepot/cmd/internal/confdoc"
)

// TestTheReferenceSaysWhatTheCodeSays keeps the tables of docs/CONFIGURATION.md as
// confdoc makes them of the types that the file is read into.
func TestTheReferenceSaysWhatTheCodeSays(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "CONFIGURATION.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cfg := new(Config)
	cfg.SetDefaults()
	keys, err := confdoc.Keys(cfg, valueKinds(), ".")
	if err != nil {
		t.Fatal(err)
	}
	want, err := confdoc.Tables(string(text), keys)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("docs/CONFIGURATION.md is not what the comments in cmd/entrepot say; renew it: make config-docs\n%s", firstDifference(string(text), want))
	}
}

// valueKinds is how the reference calls the types of single values.
func valueKinds() map[reflect.Type]confdoc.Kind {
	return map[reflect.Type]confdoc.Kind{
		reflect.TypeFor[Size]():        {Name: "size", Zero: "0"},
		reflect.TypeFor[Rate]():        {Name: "rate", Zero: "0"},
		reflect.TypeFor[Duration]():    {Name: "duration", Zero: "0"},
		reflect.TypeFor[int]():         {Name: "number", Zero: "0"},
		reflect.TypeFor[bool]():        {Name: "true or false", Zero: "false"},
		reflect.TypeFor[Percent]():     {Name: "percentage"},
		reflect.TypeFor[Address]():     {Name: "address"},
		reflect.TypeFor[URL]():         {Name: "URL"},
		reflect.TypeFor[SourceURL]():   {Name: "URL"},
		reflect.TypeFor[[]URL]():       {Name: "list of URLs"},
		reflect.TypeFor[Secret]():      {Name: "secret"},
		reflect.TypeFor[Path]():        {Name: "path"},
		reflect.TypeFor[LogLevel]():    {Name: "level"},
		reflect.TypeFor[LogFormat]():   {Name: "format"},
		reflect.TypeFor[string]():      {Name: "text"},
		reflect.TypeFor[[]string]():    {Name: "list of texts"},
		reflect.TypeFor[[]int]():       {Name: "list of numbers"},
		reflect.TypeFor[Decimal]():     {Name: "decimal number"},
		reflect.TypeFor[BitRate]():     {Name: "bits a second"},
		reflect.TypeFor[CloudRegion](): {Name: "cloud and region"},
	}
}

// firstDifference shows the first line of two texts that differs.
func firstDifference(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d is\n%s\nand should be\n%s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, and should be %d", len(a), len(b))
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

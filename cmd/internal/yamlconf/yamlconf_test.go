package yamlconf

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// house is a configuration with one field of every kind.
type house struct {
	Name   string          `yaml:"name"`
	Open   bool            `yaml:"open"`
	Floors int             `yaml:"floors"`
	Rooms  map[string]room `yaml:"rooms"`
	Garage *room           `yaml:"garage"`
	Paint  colour          `yaml:"paint"`
}

type room struct {
	Windows []string `yaml:"windows"`
	Colour  colour   `yaml:"colour"`
}

func (r *room) SetDefaults() { r.Colour = "white" }

type colour string

func (c *colour) UnmarshalText(text []byte) error {
	if string(text) == "plaid" {
		return errors.New("is not a colour; write one, such as white")
	}
	*c = colour(text)
	return nil
}

var options = Options{
	Name: "house.yaml",
	Env: func(name string) (string, bool) {
		v, ok := map[string]string{"SECRET": "plaid", "EMPTY": ""}[name]
		return v, ok
	},
	ReadFile: func(path string) ([]byte, error) {
		if path == "/secret" {
			return []byte("hidden\n"), nil
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	},
	Refused: map[string]string{"pool": "pools are not built yet"},
}

func TestDecodeReportsEveryProblemWithItsLine(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"misspelt key":           {"name: a\nfloor: 3", `house.yaml:2: unknown key "floor" in the file; did you mean "floors"? known keys: name, open, floors, rooms, garage, paint`},
		"unknown key far off":    {"garage:\n  doors: 2", `house.yaml:2: unknown key "doors" in garage; known keys: windows, colour`},
		"key given twice":        {"rooms:\n  a.b: {}\n\n  a.b: {}", `house.yaml:4: rooms.a.b is given twice, first on line 2; keep one`},
		"value for keys":         {"garage: big", `house.yaml:1: garage must be keys with values (key: value), not the single value "big"`},
		"value for list":         {"garage: {windows: one}", `house.yaml:1: garage.windows must be a list, such as [a, b], not the single value "one"`},
		"list for value":         {"name:\n  - a", `house.yaml:2: name must be a single value, not a list`},
		"list for file":          {"- a", `house.yaml:1: the file must be keys with values (key: value), not a list`},
		"no value":               {"name:", `house.yaml:1: name is empty; give it a value or remove the key`},
		"not a boolean":          {"open: yes", `house.yaml:1: open: "yes" is not true or false`},
		"not a number":           {"floors: 1.5", `house.yaml:1: floors: "1.5" is not a whole number`},
		"text type's own error":  {"garage:\n  colour: plaid", `house.yaml:2: garage.colour: "plaid" is not a colour; write one, such as white`},
		"item of a list":         {"garage:\n  windows:\n  - a\n  - [b]", `house.yaml:4: garage.windows[1] must be a single value, not a list`},
		"refused key":            {"pool: {deep: true}", `house.yaml:1: pools are not built yet`},
		"unset variable":         {"name: a ${NOPE}", `house.yaml:1: name: the environment variable NOPE is not set`},
		"missing secret file":    {"name: ${file:/nope}", `house.yaml:1: name: cannot read the file of ${file:/nope}: file does not exist`},
		"open reference":         {"name: ${SECRET", `house.yaml:1: name: ${ without a closing }; write ${VAR}, ${file:PATH}, or $$ for a plain $`},
		"odd reference":          {"name: ${A-B}", `house.yaml:1: name: ${A-B} is not a reference; write ${VAR}, ${file:PATH}, or $$ for a plain $`},
		"secrets are not quoted": {"paint: ${SECRET}", `house.yaml:1: paint: "${SECRET}" is not a colour; write one, such as white`},
		"passwords in a URL":     {"open: https://user:pw@example.org", `house.yaml:1: open: "https://…@example.org" is not true or false`},
		"syntax":                 {"name: a\n\tb: c", `house.yaml:2: not valid YAML: found a tab character that violates indentation`},
		"second document":        {"name: a\n---\nname: b", `house.yaml:2: a second document begins here; keep one, without ---`},
		"key that is a list":     {"? [a]\n: b", `house.yaml:1: a key of the file is a list; it must be a plain name`},
		"all of them, by line": {
			"floors: x\nopen: 1\nname: [a]",
			"house.yaml:1: floors: \"x\" is not a whole number\nhouse.yaml:2: open: \"1\" is not true or false\nhouse.yaml:3: name must be a single value, not a list",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := Decode([]byte(c.file), &house{}, options).Err()
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestDecodeReadsEveryKindOfValue(t *testing.T) {
	var h house
	doc := Decode([]byte(`
name: "${EMPTY}$$${file:/secret} $5 $"
open: true
floors: 3
rooms:
  hall: &hall {windows: [a, b]}
  den: *hall
  attic: {colour: red}
garage:
`), &h, options)
	if err := doc.Err(); err != nil {
		t.Fatal(err)
	}
	if want := "$hidden $5 $"; h.Name != want {
		t.Errorf("name is %q, want %q", h.Name, want)
	}
	if !h.Open || h.Floors != 3 {
		t.Errorf("open %v, floors %d", h.Open, h.Floors)
	}
	if got := len(h.Rooms["hall"].Windows) + len(h.Rooms["den"].Windows); got != 4 {
		t.Errorf("%d windows, want 4", got)
	}
	if h.Rooms["attic"].Colour != "red" || h.Rooms["hall"].Colour != "white" {
		t.Errorf("colours of %+v", h.Rooms)
	}
	if h.Garage == nil || h.Garage.Colour != "white" {
		t.Errorf("an empty garage is %+v, want one with defaults", h.Garage)
	}
	if !doc.Has("rooms.attic.colour") || doc.Has("rooms.hall.colour") {
		t.Error("Has does not tell the keys of the file from others")
	}
}

func TestProblemfStaysSilentAboutConsequences(t *testing.T) {
	doc := Decode([]byte("garage:\n  windows: one\nname: a\nrooms:\n  x.y: {}"), &house{}, options)
	doc.Problemf("garage", "needs windows")
	doc.Problemf("garage.windows", "are missing")
	doc.Problemf("rooms.x.y.windows", "rooms.x.y needs windows")
	want := "house.yaml:2: garage.windows must be a list, such as [a, b], not the single value \"one\"\n" +
		"house.yaml:5: rooms.x.y needs windows"
	if err := doc.Err(); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

func FuzzDecodeNeverPanicsAndNamesALine(f *testing.F) {
	for _, seed := range []string{
		"name: a\nrooms: {x: {windows: [a, \"${SECRET}\"], colour: plaid}}", "garage: &g {windows: [*g]}",
		"a: &a [*a]", "? {}\n: x", "---\n---\n", "\t", "name: ${", "rooms: {<<: {a: b}}", "!!binary x", "name: !!null x",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Decode(data, &house{}, options).Err()
		if err == nil {
			return
		}
		var problems Problems
		if !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("an error of type %T", err)
		}
		lines := 1 // YAML breaks lines at more than \n
		for _, r := range string(data) {
			if strings.ContainsRune("\n\r\u0085\u2028\u2029", r) {
				lines++
			}
		}
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines+1 { // the parser sees an end of file on a line of its own
				t.Errorf("line %d of %d: %v", p.Line, lines, p)
			}
			if strings.Contains(p.Message, "\n") {
				t.Errorf("a message of more than one line: %q", p.Message)
			}
		}
	})
}

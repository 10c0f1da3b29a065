package confdoc

import (
	"reflect"
	"strings"
	"testing"
)

// wellCommented has a meaning for each key.
type wellCommented struct {
	// its name, which
	// may be `any | all`
	Name string `yaml:"name"`
	// .*: as `houses.*`
	// .rooms.NAME.doors: none, as far as it is
	// known
	Hall *house `yaml:"hall"`
	// .paint: gold
	// Default: what is left
	Houses []house `yaml:"houses"`
	// how long each is
	Roads map[string]int `yaml:"roads"`
	// whether anybody comes in
	Open bool `yaml:"open"`
}

type house struct {
	// its colour
	// Default: of the sky
	Paint string `yaml:"paint"`
	// .doors: of a room
	Rooms map[string]room `yaml:"rooms"`
}

type room struct {
	// of anything
	Doors int `yaml:"doors"`
}

func (r *room) SetDefaults() { r.Doors = 1 }

// keysOf are the keys of a configuration whose types are in this file.
func keysOf(t *testing.T, config any) ([]Key, error) {
	t.Helper()
	return Keys(config, map[reflect.Type]Kind{
		reflect.TypeFor[string](): {Name: "text"},
		reflect.TypeFor[int]():    {Name: "number", Zero: "0"},
		reflect.TypeFor[bool]():   {Name: "true or false", Zero: "false"},
	}, ".")
}

func TestTablesAreMadeOfCommentsTypesAndDefaults(t *testing.T) {
	keys, err := keysOf(t, &wellCommented{Name: "Bern"})
	if err != nil {
		t.Fatal(err)
	}
	const document = `# Towns

<!-- generated: name hall -->
what was there
<!-- end -->

Words between.

<!-- generated: roads open -->
<!-- end -->
<!-- generated: houses -->
<!-- end -->
<!-- generated: hall.rooms -->
<!-- end -->
The end.
`
	got, err := Tables(document, keys)
	if err != nil {
		t.Fatal(err)
	}
	const head = "\n| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
	want := "# Towns\n\n<!-- generated: name hall -->\n" + head +
		"| `name` | text | `Bern` | its name, which may be `any \\| all` |\n" +
		"| `hall.paint` | text |  | as `houses.paint` |\n" +
		"\n<!-- end -->\n\nWords between.\n\n<!-- generated: roads open -->\n" + head +
		"| `roads.NAME` | number | `0` | how long each is |\n" +
		"| `open` | true or false | `false` | whether anybody comes in |\n" +
		"\n<!-- end -->\n<!-- generated: houses -->\n" + head +
		"| `houses[].paint` | text | (what is left) | gold |\n" +
		"| `houses[].rooms.NAME.doors` | number | `1` | of a room |\n" +
		"\n<!-- end -->\n<!-- generated: hall.rooms -->\n" + head +
		"| `hall.rooms.NAME.doors` | number | `1` | none, as far as it is known |\n" +
		"\n<!-- end -->\nThe end.\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if again, err := Tables(got, keys); err != nil || again != got {
		t.Errorf("a second time it changes, %v:\n%s", err, again)
	}
}

// badlyCommented has every mistake that is told.
type badlyCommented struct {
	Silent string `yaml:"silent"`
	// nobody reads this
	Hall house `yaml:"hall"`
	// .windows: there are none
	Houses []house `yaml:"houses"`
	Price  float64 `yaml:"price"`
}

func TestCommentsThatSayNothingOrTooMuchAreErrors(t *testing.T) {
	_, err := keysOf(t, &badlyCommented{})
	want := `silent has no meaning: write a comment above badlyCommented.Silent
the comment of badlyCommented.Hall is in no row, because it is of no single value: "nobody reads this"
the comment of badlyCommented.Houses tells of .windows, which is nothing below houses
price is of type float64, for which there are no words`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestEachKeyHasOneTableAndEachTableKeys(t *testing.T) {
	keys := []Key{{Path: "node.listen"}, {Path: "nodes"}}
	for document, want := range map[string]string{
		"":                                       "node.listen belongs to no table of the document: add <!-- generated: node.listen --> and <!-- end -->",
		"<!-- generated: node -->\n<!-- end -->": "nodes belongs to no table of the document: add <!-- generated: nodes --> and <!-- end -->",
		"<!-- generated: node nodes router -->\n<!-- end -->":               "the document has a table of router: there are no such keys",
		"<!-- generated: node -->\n<!-- generated: nodes -->\n<!-- end -->": "nodes belongs to no table",
	} {
		if _, err := Tables(document, keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", document, err, want)
		}
	}
}

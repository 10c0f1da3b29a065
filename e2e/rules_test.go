package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// goPackage is a package of the module, as its files say.
type goPackage struct {
	imports    map[string]bool // by files that are no tests
	goroutines bool            // such files start some
	leakCheck  bool            // its tests end when one is left
	tests      bool
}

// goPackages reads the module's own packages, by their folders.
func goPackages(t *testing.T) map[string]*goPackage {
	t.Helper()
	packages := map[string]*goPackage{}
	err := filepath.WalkDir("..", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || isModule(name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(strings.TrimPrefix(name, "../")))
		p := packages[folder]
		if p == nil {
			p = &goPackage{imports: map[string]bool{}}
			packages[folder] = p
		}
		return p.read(name)
	})
	if err != nil {
		t.Fatal(err)
	}
	return packages
}

// isModule says whether a folder is a module of its own.
func isModule(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil && folder != ".."
}

func (p *goPackage) read(name string) error {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	test := strings.HasSuffix(name, "_test.go")
	p.tests = p.tests || test
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return err
		}
		switch {
		case !test:
			p.imports[imported] = true
		case imported == "go.uber.org/goleak":
			p.leakCheck = true
		}
	}
	if test {
		return nil
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			p.goroutines = true
		case *ast.SelectorExpr: // of a WaitGroup or an errgroup
			p.goroutines = p.goroutines || n.Sel.Name == "Go"
		}
		return true
	})
	return nil
}

// docs/ARCHITECTURE.md says which way imports run.
func TestImportsRunOneWay(t *testing.T) {
	forbidden := map[string][]string{
		"blobstore": {"registry", "proxy", "promote", "geo", "cmd", "e2e"},
		"registry":  {"proxy", "promote", "geo", "cmd", "e2e"},
		"proxy":     {"geo", "cmd", "e2e"},
		"promote":   {"proxy", "geo", "cmd", "e2e"},
		"geo":       {"proxy", "cmd", "e2e"},
		"cmd":       {"e2e"},
	}
	seen := map[string]bool{}
	for folder, p := range goPackages(t) {
		room, _, _ := strings.Cut(folder, "/")
		seen[room] = true
		for imported := range p.imports {
			rest, ours := strings.CutPrefix(imported, "entrepot/")
			if !ours {
				continue
			}
			other, _, _ := strings.Cut(rest, "/")
			if slices.Contains(forbidden[room], other) {
				t.Errorf("%s imports %s: %s is to know nothing of %s", folder, rest, room, other)
			}
			if room == "proxy" && other == "promote" && !strings.HasPrefix(rest, "promote/ledger") {
				t.Errorf("%s imports %s: of promotion a node knows the ledger only", folder, rest)
			}
		}
	}
	for room := range forbidden {
		if !seen[room] {
			t.Errorf("there is no room %s", room)
		}
	}
	for room := range seen {
		if forbidden[room] == nil && room != "deploy" && room != "e2e" {
			t.Errorf("%s is no room of the project's", room)
		}
	}
}

// A goroutine that outlives what started it shows only in a test that looks.
func TestEveryPackageThatStartsGoroutinesLooksForThoseThatAreLeft(t *testing.T) {
	checked := 0
	for folder, p := range goPackages(t) {
		if strings.HasPrefix(folder, "e2e") || !p.goroutines {
			continue // those start processes, and end with them
		}
		if path.Base(folder) == "storetest" {
			continue // a suite, which runs in the tests of others
		}
		if !p.tests || !p.leakCheck {
			t.Errorf("%s starts goroutines; its TestMain is to call goleak.VerifyTestMain", folder)
		}
		checked++
	}
	if checked < 8 {
		t.Errorf("only %d packages start goroutines", checked)
	}
}

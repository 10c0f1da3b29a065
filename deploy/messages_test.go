package deploy

import (
	"go/ast"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Each line of the log that says that something is wrong is explained, and
// nothing else is.
func TestEachMessageIsExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/MESSAGES.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (WARN|ERROR) \\| \\S.*\\|$").FindAllStringSubmatch(string(text), -1) {
		explained[m[1]] = m[2]
	}
	logged := messages(t)
	if len(logged) < 50 {
		t.Fatalf("the source has %d messages", len(logged))
	}
	for _, text := range slices.Sorted(maps.Keys(logged)) {
		m := logged[text]
		switch level, ok := explained[text]; {
		case !ok:
			t.Errorf("docs/MESSAGES.md has no row for what %s says: | `%s` | %s | … |", m.position, text, m.level)
		case level != m.level:
			t.Errorf("docs/MESSAGES.md calls %q a %s; %s logs it as %s", text, level, m.position, m.level)
		}
		delete(explained, text)
	}
	for text := range explained {
		t.Errorf("docs/MESSAGES.md explains %q, which nothing says", text)
	}
}

// message is where something is logged.
type message struct {
	level    string
	position token.Position
}

// messages are the texts that are logged at the levels WARN and ERROR. Where a
// level is chosen while it runs, it counts as WARN.
func messages(t *testing.T) map[string]message {
	t.Helper()
	// The argument that is the text, by the method of [slog.Logger].
	methods := map[string]struct {
		argument int
		level    string
	}{
		"Warn": {0, "WARN"}, "WarnContext": {1, "WARN"}, "Error": {0, "ERROR"}, "ErrorContext": {1, "ERROR"},
		"Log": {2, "WARN"}, "LogAttrs": {2, "WARN"},
	}
	all := map[string]message{}
	walkSource(t, func(file *ast.File, set *token.FileSet) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			m, ok := methods[selector.Sel.Name]
			if !ok || len(call.Args) <= m.argument {
				return true
			}
			if of, ok := selector.X.(*ast.Ident); ok && of.Name == "http" {
				return true // http.Error answers, and logs nothing
			}
			literal, ok := call.Args[m.argument].(*ast.BasicLit)
			if !ok || strings.Contains(literal.Value, "%") {
				t.Errorf("%s: what is logged is no constant text, and cannot be found in the documentation", set.Position(call.Pos()))
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			all[text] = message{m.level, set.Position(call.Pos())}
			return true
		})
	})
	return all
}

package e2e

import (
	"bufio"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The threat model is only worth something if the tests it names are there.
func TestSecurityNamesOnlyTestsThatExist(t *testing.T) {
	module, err := os.OpenRoot("..")
	if err != nil {
		t.Fatal(err)
	}
	defer module.Close()
	tests := map[string]bool{}
	declared := regexp.MustCompile(`^func ((?:Test|Fuzz)\w+)\(`)
	err = fs.WalkDir(module.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := module.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			if m := declared.FindStringSubmatch(lines.Text()); m != nil {
				tests[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := module.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Errorf("SECURITY.md names %d tests", len(named))
	}
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("SECURITY.md names %s, which is no test", m[1])
		}
	}
}

package e2e

import (
	"bufio"
	"io/fs"
	"os"
	"regexp"
	"slices"
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

// Each advisory about a comparable program is a case for this one, by a test that
// is named beside it.
func TestSecurityWalksThroughEveryAdvisoryOfComparablePrograms(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	test := regexp.MustCompile("`(?:Test|Fuzz)\\w+`|`go test ")
	for _, id := range []string{
		"CVE-2026-33540", "CVE-2026-48978", "GHSA-28r5-37g7-p6mp", "go-containerregistry #2193", // token realms
		"GHSA-vh4v-2xq2-g5cg", "CVE-2026-50151", // credentials and redirects
		"CVE-2020-15157",                                                                        // foreign layers
		"CVE-2026-32591", "GHSA-g2rq-jv54-wcpr", "CVE-2022-27907", "go-containerregistry #2440", // requests in another's place
		"CVE-2024-39897", "CVE-2026-35172", "CVE-2026-41888", "GHSA-qg67-7m6v-qg25", "GHSA-4j4m-fchf-gr9r", "CVE-2022-46463", // private content
		"Harbor #23373", "CVE-2025-24882", "CVE-2014-8178", "CVE-2014-8179", // wrong bytes
		"docker-registry-proxy",         // keys that are too small
		"rke2 #11245", "CVE-2026-42501", // old and false names
		"CVE-2022-47747", "CVE-2024-3727", "CVE-2024-4956", "GHSA-79hx-3fp8-hj66", // paths
		"CVE-2017-11468", "CVE-2023-2253", "CVE-2017-14992", // without bound
		"CVE-2021-41190",                  // types
		"CVE-2023-27584", "CVE-2026-4404", // defaults
	} {
		whole := regexp.MustCompile(regexp.QuoteMeta(id) + `(?:\D|$)`)
		if !slices.ContainsFunc(lines, func(line string) bool { return whole.MatchString(line) && test.MatchString(line) }) {
			t.Errorf("SECURITY.md names no test for %s", id)
		}
	}
}

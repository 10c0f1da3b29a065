package access_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"entrepot/registry/access"
)

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{"**", []string{"a", "a/b", "a/b/c"}, []string{""}},
		{"*", []string{"a", "abc"}, []string{"a/b", ""}},
		{"release/**", []string{"release/a", "release/a/b"}, []string{"release", "releases/a", "x/release/a"}},
		{"release/*", []string{"release/a"}, []string{"release/a/b", "release"}},
		{"**/latest.txt", []string{"latest.txt", "a/latest.txt", "a/b/latest.txt"}, []string{"latest.txt/a", "a/xlatest.txt"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/z/z", "a/b/c/z"}, []string{"a", "z", "a/z/b", "b/a/z"}},
		{"a/**/b/**/c", []string{"a/b/c", "a/b/b/c", "a/x/b/y/b/c"}, []string{"a/c/b", "a/b", "a/b/x"}},
		{"team-*/app", []string{"team-/app", "team-x/app"}, []string{"team-x/y/app", "tea/app"}},
		{"*-*.tar.gz", []string{"-.tar.gz", "a-b-c.tar.gz"}, []string{"a.tar.gz", "a-b.tar.gzip"}},
		{"a*a", []string{"aa", "aba"}, []string{"a", "ab"}},
		{"k8s.io", []string{"k8s.io"}, []string{"k8sxio", "K8S.IO"}},
		{"**/**", []string{"a", "a/b"}, []string{""}},
	} {
		p, err := access.ParsePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range c.yes {
			if !p.Match(name) {
				t.Errorf("%s does not match %q", c.pattern, name)
			}
		}
		for _, name := range c.not {
			if p.Match(name) {
				t.Errorf("%s matches %q", c.pattern, name)
			}
		}
	}
}

func TestWhatIsNoPattern(t *testing.T) {
	for pattern, want := range map[string]string{
		"":                        "it is empty",
		"/a":                      "empty element",
		"a/":                      "empty element",
		"a//b":                    "empty element",
		"../a":                    `no name has an element ".."`,
		"a/./b":                   `no name has an element "."`,
		"a**":                     `"**" has to be a whole element`,
		"***":                     `"**" has to be a whole element`,
		"v?.txt":                  `'?' means nothing`,
		"!a":                      `'!' means nothing`,
		`a\*`:                     `means nothing`,
		"a\nb":                    "control character",
		strings.Repeat("a", 1025): "more than the 1024 allowed",
	} {
		if _, err := access.ParsePattern(pattern); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %s", pattern, err, want)
		}
	}
}

// expression is what a pattern means, as a regular expression.
func expression(pattern string) *regexp.Regexp {
	elements := strings.Split(pattern, "/")
	var text strings.Builder
	for i, element := range elements {
		last := i == len(elements)-1
		switch {
		case element == "**" && last:
			text.WriteString(`[^/]*(/[^/]*)*`)
		case element == "**":
			text.WriteString(`([^/]*/)*`)
		default:
			text.WriteString(strings.ReplaceAll(regexp.QuoteMeta(element), `\*`, `[^/]*`))
			if !last {
				text.WriteByte('/')
			}
		}
	}
	return regexp.MustCompile(`(?s)\A(` + text.String() + `)\z`)
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"**", "a/b"}, {"a/**/b/**/c", "a/x/b/y/b/c"}, {"*a*a*", "aaa"}, {"a/**", "a"}, {"**/*", "x"}, {"**/a/*b/**/c*", "q/a/ab/c/cd"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := access.ParsePattern(pattern)
		if err != nil || name == "" || len(name) > 4096 {
			return
		}
		if p.String() != pattern {
			t.Fatalf("%q reads back as %q", pattern, p)
		}
		if !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return // regular expressions are about characters
		}
		if got, want := p.Match(name), expression(pattern).MatchString(name); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}

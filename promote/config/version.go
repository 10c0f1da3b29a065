package config

import (
	"cmp"
	"strings"
)

// compareVersions orders tags as people read them: runs of digits as numbers,
// so that v1.9 comes before v1.10, and a pre-release before its release.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, restA := run(a)
		y, restB := run(b)
		if c := compareRuns(x, y); c != 0 {
			return c
		}
		a, b = restA, restB
	}
	switch {
	case strings.HasPrefix(a, "-") && b == "":
		return -1
	case strings.HasPrefix(b, "-") && a == "":
		return 1
	}
	return cmp.Compare(len(a), len(b))
}

// run is the digits, or the other letters, that s begins with.
func run(s string) (head, rest string) {
	i := 1
	for i < len(s) && isDigit(s[i]) == isDigit(s[0]) {
		i++
	}
	return s[:i], s[i:]
}

func compareRuns(x, y string) int {
	if isDigit(x[0]) && isDigit(y[0]) {
		x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
		return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
	}
	return cmp.Compare(x, y)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// compareEntries orders digests by their first tag, those without any last.
func compareEntries(a, b Entry) int {
	if (len(a.Tags) == 0) != (len(b.Tags) == 0) {
		return cmp.Compare(len(b.Tags), len(a.Tags))
	}
	if len(a.Tags) > 0 {
		if c := compareVersions(a.Tags[0], b.Tags[0]); c != 0 {
			return c
		}
	}
	return cmp.Compare(a.Digest, b.Digest)
}

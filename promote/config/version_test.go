package config

import (
	"slices"
	"testing"
)

func TestTagsAreInTheOrderOfReleases(t *testing.T) {
	want := []string{"1.9", "1.10", "v0.9.0", "v1.0.0-alpha.1", "v1.0.0-rc.2", "v1.0.0-rc.10", "v1.0.0", "v1.0.1", "v20201103-v0.5.0", "v20220101"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if !slices.Equal(got, want) {
		t.Errorf("sorted %v, want %v", got, want)
	}
}

func FuzzVersionsAreOrdered(f *testing.F) {
	f.Add("v1.0", "v1.0-rc", "v01")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if checkTag(a) != nil || checkTag(b) != nil || checkTag(c) != nil {
			t.Skip("no tags")
		}
		if compareVersions(a, b) != -compareVersions(b, a) {
			t.Fatalf("%q and %q compare %d and %d", a, b, compareVersions(a, b), compareVersions(b, a))
		}
		if compareVersions(a, b) <= 0 && compareVersions(b, c) <= 0 && compareVersions(a, c) > 0 {
			t.Fatalf("%q, %q and %q are in no order", a, b, c)
		}
	})
}

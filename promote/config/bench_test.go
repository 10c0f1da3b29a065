package config_test

import (
	"testing"

	"entrepot/promote/config"
	"entrepot/promote/config/configtest"
)

// A plan of this tree must take under 3 s altogether, so that reading it must
// stay well under 1 s on two cores.
func BenchmarkReadTwiceToday(b *testing.B) {
	dir := b.TempDir()
	if err := configtest.TwiceToday().Write(dir); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		tree, err := config.Read([]string{dir}, config.Options{Strict: true})
		if err != nil {
			b.Fatal(err)
		}
		if len(tree.Projects) != 150 {
			b.Fatalf("read %d projects, want 150", len(tree.Projects))
		}
	}
}

// The real tree of 2022 must be read in under 0.5 s on two cores.
func BenchmarkReadRealTree(b *testing.B) {
	roots := realTree(b)
	for b.Loop() {
		if _, err := config.Read(roots, config.Options{Strict: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// A plan's first step beside reading, where the tree is no git checkout.
func BenchmarkRevisionOfRealTree(b *testing.B) {
	roots := realTree(b)
	for b.Loop() {
		if _, err := config.Revision(b.Context(), roots); err != nil {
			b.Fatal(err)
		}
	}
}

package folder_test

import (
	"fmt"
	"testing"
	"time"

	"entrepot/registry/folder"
)

// BenchmarkList is a page of all of a folder of 5,000 files.
func BenchmarkList(b *testing.B) {
	var s shelf
	for i := range 5000 {
		s.set(fmt.Sprintf("release/kubernetes-component-%04d-linux-amd64.tar.gz", i), fmt.Sprint(i))
	}
	entries, _, err := s.List(b.Context(), "release", "", 5000)
	if err != nil {
		b.Fatal(err)
	}
	for i := range entries {
		entries[i].Modified = entries[i].Modified.Add(time.Duration(i*7919%5000) * time.Second)
		s.Set("release/"+entries[i].Name, entries[i])
	}
	for name, ask := range map[string]struct{ query, accept string }{
		"html": {"n=5000", "text/html"}, "json": {"n=5000", "application/json"}, "text": {"n=5000", "text/plain"},
		"html/by date": {"n=5000&sort=date", "text/html"}, "html/first page": {"", "text/html"},
	} {
		b.Run(name, func(b *testing.B) {
			req := &folder.Request{Root: root, Path: "release", Query: ask.query, Accept: []string{ask.accept}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := folder.List(b.Context(), &s, req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sums", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := folder.Sums(b.Context(), &s, &folder.Request{Root: root, Path: "release"}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

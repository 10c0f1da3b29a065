package filestore_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"entrepot/registry"
	"entrepot/registry/filestore"
)

// discarding is a connection that costs nothing.
type discarding struct{ header http.Header }

func (d discarding) Header() http.Header         { return d.header }
func (d discarding) Write(p []byte) (int, error) { return len(p), nil }
func (d discarding) WriteHeader(int)             {}

func BenchmarkAFile(b *testing.B) {
	s, err := filestore.New(filestore.Config{Store: openDir(b), Authorizer: registry.Anyone{}})
	if err != nil {
		b.Fatal(err)
	}
	put := httptest.NewRequest(http.MethodPut, "/release/v1/a", strings.NewReader(letters))
	put.Header.Set("Repr-Digest", field(letters))
	s.ServeHTTP(httptest.NewRecorder(), put)
	for name, header := range map[string]http.Header{
		"whole": {}, "part": {"Range": {"bytes=1-5"}}, "unchanged": {"If-None-Match": {tag(letters)}},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/release/v1/a", nil)
			r.Header = header
			b.ReportAllocs()
			for b.Loop() {
				s.ServeHTTP(discarding{http.Header{}}, r)
			}
		})
	}
}

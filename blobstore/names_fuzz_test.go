package blobstore

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What lies in a store's directory may have been put there by anyone: no name
// leads out of it, and none stands for two things.

func FuzzPartialName(f *testing.F) {
	for _, d := range []digest.Digest{digest.FromString("x"), digest.SHA512.FromString("x")} {
		f.Add(strings.Replace(d.String(), ":", "-", 1) + partialSuffix)
	}
	f.Add("sha256-../../etc/passwd.partial")
	f.Add("tmp-123")
	s := spool{path: "/store/spool"}
	f.Fuzz(func(t *testing.T, name string) {
		raw, ok := partialDigest(name)
		if !ok {
			return
		}
		if path := s.partialFile(raw); path != "/store/spool/"+name || filepath.Clean(path) != path {
			t.Errorf("%q is read as the partial at %q", name, path)
		}
	})
}

func FuzzBlobPath(f *testing.F) {
	for _, d := range []digest.Digest{digest.FromString("x"), digest.SHA512.FromString("x")} {
		f.Add(blobPath(d))
	}
	f.Add("blobs/sha256/../../../data")
	f.Fuzz(func(t *testing.T, path string) {
		d, ok := digestOfPath(path)
		if ok && (blobPath(d) != path || filepath.Clean(path) != path || checkDigest(d) != nil) {
			t.Errorf("%q is read as %q", path, d)
		}
	})
}

func FuzzFormat(f *testing.F) {
	for _, text := range []string{"1\n", "2\nentrepot 3.0 or later reads it\n", "", "-1", "99999999999999999999", " 1 \n\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		format, err := parseFormat("version", text)
		if err == nil && (format < 1 || format > storeFormat) || err != nil && (format != 0 || !errors.Is(err, ErrFormat)) {
			t.Errorf("%q gives %d, %v", text, format, err)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("%q gives an error of several lines: %q", text, err)
		}
	})
}

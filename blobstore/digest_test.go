package blobstore

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestParseDigestAllocatesNothing(t *testing.T) {
	d := digest.FromString("x")
	if n := testing.AllocsPerRun(100, func() { _, _ = parseDigest(d) }); n != 0 {
		t.Errorf("parseDigest allocates %v times", n)
	}
}

func TestBlobPathIsTheLayoutOfDistribution(t *testing.T) {
	d := digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	want := "blobs/sha256/e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/data"
	if got := blobPath(d); got != want {
		t.Errorf("blobPath = %q, want %q", got, want)
	}
}

// FuzzParseDigest holds parseDigest against go-digest, whose Validate accepts
// the same for the two algorithms that stores keep.
func FuzzParseDigest(f *testing.F) {
	sha256, sha512 := digest.FromString("x"), digest.SHA512.FromString("x")
	for _, d := range []string{
		string(sha256), string(sha512), "", "sha256:", "sha512:" + sha256.Encoded(), "sha384:" + sha512.Encoded()[:96],
		strings.ToUpper(string(sha256)), string(sha256) + "\n", "sha256:" + strings.Repeat("../", 21) + "x",
	} {
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d := digest.Digest(text)
		valid := d.Validate() == nil && (d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512)
		s, err := parseDigest(d)
		if valid != (err == nil) {
			t.Fatalf("parseDigest(%q) = %v, go-digest finds it valid: %v", text, err, valid)
		}
		if err != nil {
			if !errors.Is(err, ErrInvalidDigest) {
				t.Fatalf("parseDigest(%q) = %v, want ErrInvalidDigest", text, err)
			}
			return
		}
		if s.digest() != d {
			t.Fatalf("parseDigest(%q) reads back as %q", text, s.digest())
		}
	})
}

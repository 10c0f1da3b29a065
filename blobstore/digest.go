package blobstore

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/opencontainers/go-digest"
)

const (
	sha256Prefix = "sha256:"
	sha512Prefix = "sha512:"
)

// sum is the raw value of a digest: 32 bytes of sha256, or 64 of sha512. Its
// length tells the algorithm.
type sum struct {
	raw [sha512.Size]byte
	n   uint8 // bytes of raw in use
}

// parseDigest is the only way from a digest to a path or an index key.
// go-digest's own Validate matches regular expressions, which costs more than
// all the rest of a hit, and accepts algorithms that no store keeps.
// Errors: ErrInvalidDigest.
func parseDigest(d digest.Digest) (sum, error) {
	var s sum
	var digits string
	switch {
	case strings.HasPrefix(string(d), sha256Prefix):
		digits, s.n = string(d)[len(sha256Prefix):], sha256.Size
	case strings.HasPrefix(string(d), sha512Prefix):
		digits, s.n = string(d)[len(sha512Prefix):], sha512.Size
	default:
		return sum{}, invalidDigest(d)
	}
	if len(digits) != 2*int(s.n) {
		return sum{}, invalidDigest(d)
	}
	for i := range int(s.n) {
		high, low := hexValue(digits[2*i]), hexValue(digits[2*i+1])
		if high|low > 0xf {
			return sum{}, invalidDigest(d)
		}
		s.raw[i] = high<<4 | low
	}
	return s, nil
}

// hexValue is the value of a lower-case hex digit, or 0xff.
func hexValue(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

func invalidDigest(d digest.Digest) error {
	const shown = 160 // bytes; a valid sha512 digest has 135
	text := string(d)
	if len(text) > shown {
		text = text[:shown] + "…"
	}
	return fmt.Errorf("%w %q: want sha256: and 64 or sha512: and 128 lower-case hex digits", ErrInvalidDigest, text)
}

// checkDigest says whether a store can keep d. Errors: ErrInvalidDigest.
func checkDigest(d digest.Digest) error {
	_, err := parseDigest(d)
	return err
}

// bytes is the raw value; it points into s.
func (s *sum) bytes() []byte { return s.raw[:s.n] }

// digest is the textual form that parseDigest reads.
func (s *sum) digest() digest.Digest { return rawDigest(s.bytes()) }

// rawDigest is the digest whose raw value is raw: 32 or 64 bytes.
func rawDigest[B ~[]byte | ~string](raw B) digest.Digest {
	prefix := sha256Prefix
	if len(raw) == sha512.Size {
		prefix = sha512Prefix
	}
	text := make([]byte, 0, len(prefix)+2*len(raw))
	text = append(text, prefix...)
	return digest.Digest(hex.AppendEncode(text, []byte(raw)))
}

// newHash is a fresh hash of the algorithm of s.
func (s *sum) newHash() hash.Hash {
	if s.n == sha512.Size {
		return sha512.New()
	}
	return sha256.New()
}

// blobPath is where the blob of a valid digest lies below a directory or a
// bucket's prefix: blobs/<algorithm>/<first two hex>/<hex>/data.
func blobPath(d digest.Digest) string {
	algorithm, digits, _ := strings.Cut(string(d), ":")
	return "blobs/" + algorithm + "/" + digits[:2] + "/" + digits + "/data"
}

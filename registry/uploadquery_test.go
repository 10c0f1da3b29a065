package registry

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"testing"
)

func TestContentRangeOfAChunk(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]byteRange{
		"0-0": {0, 1, false}, "0-1023": {0, 1024, false}, "1024-2047": {1024, 1024, false}, "bytes 5-9/10": {5, 5, false}, "bytes 5-9/*": {5, 5, false},
		"0-899999999999999999": {0, 900_000_000_000_000_000, false},
	} {
		if got, err := parseContentRange([]string{text}); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-", "0-", "-5", "5", "5-4", "a-b", "0-1-2", "0-1/2", "bytes 0-1", "bytes 0-1/", "bytes 0-1/x", "bytes=0-1", "bytes */5",
		"+0-1", "0 - 1", "0-1, 2-3", "0-9223372036854775807", "99999999999999999999-99999999999999999999",
	} {
		if got, err := parseContentRange([]string{text}); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
	if _, err := parseContentRange([]string{"0-1", "0-1"}); err == nil {
		t.Error("two headers are taken")
	}
}

func FuzzContentRange(f *testing.F) {
	for _, seed := range []string{"0-1023", "bytes 5-9/10", "bytes 0-0/*", "5-4", "0-9223372036854775807", "-", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseContentRange([]string{text})
		if err != nil {
			var told *Error
			if !errors.As(err, &told) || told.StatusCode() != 400 {
				t.Fatalf("%q: error %v is not for the client", text, err)
			}
			return
		}
		if r.start < 0 || r.length <= 0 || r.start > math.MaxInt64-r.length {
			t.Fatalf("%q: range %v", text, r)
		}
		// It says again what it was read from.
		again := strconv.FormatInt(r.start, 10) + "-" + strconv.FormatInt(r.start+r.length-1, 10)
		if second, err := parseContentRange([]string{again}); err != nil || second != r {
			t.Fatalf("%q: %v, but %q is %v, %v", text, r, again, second, err)
		}
	})
}

func FuzzUploadQuery(f *testing.F) {
	for _, seed := range []string{
		"digest=" + string(sha256), "mount=" + string(sha512) + "&from=a/b", "digest-algorithm=sha512", "from=..&mount=x", "%zz=1", "tag=a&tag=b", "&&==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := parseUploadQuery(query)
		if err == nil && (q.digest != "" && !validDigest(string(q.digest)) || q.mount != "" && !validDigest(string(q.mount)) || q.from != "" && !validName(q.from)) {
			t.Fatalf("%q: %+v", query, q)
		}
		tags, err := queryTags(query)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, tag := range tags {
			if !validTag(tag) || seen[tag] {
				t.Fatalf("%q: tags %q", query, tags)
			}
			seen[tag] = true
		}
	})
}

func TestUploadIDsAreNoPaths(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", ".", "..", "a.b", "a/b", "a%2f", "é", "a b", strings.Repeat("a", maxUploadID+1)} {
		if validUploadID(id) {
			t.Errorf("%q is taken", id)
		}
	}
	for _, id := range []string{"a", "A-1_z", strings.Repeat("a", maxUploadID)} {
		if !validUploadID(id) {
			t.Errorf("%q is refused", id)
		}
	}
}

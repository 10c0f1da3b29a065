package storetest

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

func putRecord(t *testing.T, s Store, key, value string) {
	t.Helper()
	if err := s.PutRecord(t.Context(), key, []byte(value)); err != nil {
		t.Fatalf("PutRecord(%q): %v", key, err)
	}
}

func wantRecord(t *testing.T, s Store, key, want string) {
	t.Helper()
	got, err := s.Record(t.Context(), key)
	if err != nil {
		t.Errorf("Record(%q): %v", key, err)
		return
	}
	if string(got) != want {
		t.Errorf("Record(%q) = %.60q, want %.60q", key, got, want)
	}
}

func wantNoRecord(t *testing.T, s Store, key string) {
	t.Helper()
	if _, err := s.Record(t.Context(), key); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("Record(%q) = %v, want ErrNotExist", key, err)
	}
}

func keys(t *testing.T, s Store, prefix string) []string {
	t.Helper()
	var all []string
	for key, err := range s.RecordKeys(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("RecordKeys(%q): %v", prefix, err)
		}
		all = append(all, key)
	}
	return all
}

func testRecord(t *testing.T, s Store) {
	const key = "tags/docker.io/library/nginx/1.29"
	wantNoRecord(t, s, key)
	if err := s.DeleteRecord(t.Context(), key); err != nil {
		t.Errorf("DeleteRecord of what is not there: %v", err)
	}
	for _, value := range []string{"one", "", "a longer value\x00\xff\n", "short"} {
		putRecord(t, s, key, value)
		wantRecord(t, s, key, value)
	}
	putRecord(t, s, "tags/docker.io/library/nginx/1.30", "other")
	for range 2 {
		if err := s.DeleteRecord(t.Context(), key); err != nil {
			t.Fatalf("DeleteRecord: %v", err)
		}
		wantNoRecord(t, s, key)
	}
	wantRecord(t, s, "tags/docker.io/library/nginx/1.30", "other")
	putRecord(t, s, key, "again")
	wantRecord(t, s, key, "again")
}

// oddKeys are valid keys whose bytes mean something to file systems, URLs or
// S3 servers.
func oddKeys() []string {
	var printable strings.Builder
	for c := byte(' '); c <= '~'; c++ {
		if c != '/' {
			printable.WriteByte(c)
		}
	}
	return []string{
		"a:b", "a%3Ab", "%2F", "%2f", "%", "%%", "%zz", "a b", " ", "a ", " a", "a+b", "a%20b", "a+", "a~", "a~/b", "a+/b",
		"~", "+", "...", ".a", "a.", "a/.../b", `a\b`, `..\..`, "a?b=c&d", "a#b", "*", "a|b", `"a"`, "<a>", "$a", "'a'",
		"A", "a", "localhost:5000/a/b@sha256:" + strings.Repeat("0", 64),
		printable.String(), strings.Repeat("n", 255), strings.Repeat(":", 255), "x/" + strings.Repeat(":", 254) + "/y",
		strings.Repeat("n", 254) + "/n", strings.Repeat("n", 253) + "n",
	}
}

func testRecordKeyBytes(t *testing.T, s Store) {
	all := oddKeys()
	for _, key := range all {
		putRecord(t, s, key, "value of "+key)
	}
	for _, key := range all {
		wantRecord(t, s, key, "value of "+key)
	}
	slices.Sort(all)
	if got := keys(t, s, ""); !slices.Equal(got, all) {
		t.Errorf("listed %q\nwant   %q", got, all)
	}
	for _, key := range all {
		if err := s.DeleteRecord(t.Context(), key); err != nil {
			t.Errorf("DeleteRecord(%q): %v", key, err)
		}
		wantNoRecord(t, s, key)
	}
	if got := keys(t, s, ""); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func testRecordBadKeys(t *testing.T, s Store) {
	for _, key := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/./b", "../../etc/passwd",
		"a\nb", "a\x00", "a\x7f", "é", "\xff", "a\tb", strings.Repeat("n", 256), "a/" + strings.Repeat("n", 1<<20),
	} {
		_, err := s.Record(t.Context(), key)
		for call, err := range map[string]error{
			"Record":       err,
			"PutRecord":    s.PutRecord(t.Context(), key, []byte("x")),
			"DeleteRecord": s.DeleteRecord(t.Context(), key),
		} {
			if !errors.Is(err, blobstore.ErrInvalidKey) {
				t.Errorf("%s(%.60q) = %v, want ErrInvalidKey", call, key, err)
			}
		}
		if key == "" {
			continue // as a prefix, it means all
		}
		var got error
		for _, err := range s.RecordKeys(t.Context(), key) {
			got = err
		}
		if !errors.Is(got, blobstore.ErrInvalidKey) {
			t.Errorf("RecordKeys(%.60q) yields %v, want ErrInvalidKey", key, got)
		}
	}
}

func testRecordPrefixKeys(t *testing.T, s Store) {
	all := []string{"a", "a/b", "a/b/c", "ab", "a/bc"}
	for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}} {
		for _, i := range order {
			putRecord(t, s, all[i], all[i])
		}
		for _, key := range all {
			wantRecord(t, s, key, key)
		}
		if got, want := keys(t, s, "a"), []string{"a/b", "a/b/c", "a/bc"}; !slices.Equal(got, want) {
			t.Errorf(`below "a": %q, want %q`, got, want)
		}
		if err := s.DeleteRecord(t.Context(), "a/b"); err != nil {
			t.Fatal(err)
		}
		wantNoRecord(t, s, "a/b")
		wantRecord(t, s, "a", "a")
		wantRecord(t, s, "a/b/c", "a/b/c")
		for _, key := range all {
			if err := s.DeleteRecord(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testRecordKeys(t *testing.T, s Store) {
	all := []string{
		"a", "a b", "a!b", "a-b", "a-b/c", "a.b", "a/b", "a/b-c", "a/b.c", "a/b/c", "a0", "aA", "a:b", "aa", "b/a", "Z",
	}
	for _, key := range all {
		putRecord(t, s, key, "")
	}
	slices.Sort(all)
	if got := keys(t, s, ""); !slices.Equal(got, all) {
		t.Errorf("listed %q\nwant   %q", got, all)
	}
	for prefix, want := range map[string][]string{
		"a":   {"a/b", "a/b-c", "a/b.c", "a/b/c"},
		"a/b": {"a/b/c"},
		"a-b": {"a-b/c"},
		"b":   {"b/a"},
		"b/a": nil,
		"c":   nil,
		"a:b": nil,
	} {
		if got := keys(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("below %q: %q, want %q", prefix, got, want)
		}
	}
	var first []string
	for key := range s.RecordKeys(t.Context(), "") {
		if first = append(first, key); len(first) == 2 {
			break
		}
	}
	if !slices.Equal(first, all[:2]) {
		t.Errorf("the first two are %q, want %q", first, all[:2])
	}
}

// testRecordAtomic replaces a record while others read it: each reads one
// value or the other, whole.
func testRecordAtomic(t *testing.T, s Store) {
	const key, rounds = "a/b", 20
	values := [][]byte{bytes.Repeat([]byte("x"), 100_000), bytes.Repeat([]byte("y"), 50)}
	putRecord(t, s, key, string(values[0]))
	var wg sync.WaitGroup
	for _, value := range values {
		wg.Go(func() {
			for range rounds {
				if err := s.PutRecord(t.Context(), key, value); err != nil {
					t.Errorf("PutRecord: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 2 * rounds {
				got, err := s.Record(t.Context(), key)
				if err != nil {
					t.Errorf("Record: %v", err)
				} else if !bytes.Equal(got, values[0]) && !bytes.Equal(got, values[1]) {
					t.Errorf("Record gives %d bytes that were never put", len(got))
				}
			}
		})
	}
	wg.Wait()
}

func testRecordLarge(t *testing.T, s Store) {
	value := random(blobstore.MaxRecordSize+1, 13)
	if err := s.PutRecord(t.Context(), "large", value[:blobstore.MaxRecordSize]); err != nil {
		t.Fatalf("PutRecord of MaxRecordSize: %v", err)
	}
	if err := s.PutRecord(t.Context(), "large", value); err == nil {
		t.Error("PutRecord of MaxRecordSize and a byte succeeds")
	}
	got, err := s.Record(t.Context(), "large")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, value[:blobstore.MaxRecordSize]) {
		t.Errorf("Record gives %d other bytes", len(got))
	}
}

// testRecordsApart uses the names of blobs as keys of records.
func testRecordsApart(t *testing.T, s Store) {
	b := []byte("a blob")
	d := put(t, s, b)
	key := "blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data"
	putRecord(t, s, key, "a record")
	if got := read(t, s, d, int64(len(b)), 0, -1); !bytes.Equal(got, b) {
		t.Errorf("the blob reads %q", got)
	}
	if err := s.DeleteRecord(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s); !slices.Equal(got, []digest.Digest{d}) {
		t.Errorf("blobs %v, want %s", got, d)
	}
	putRecord(t, s, key, "a record")
	if err := s.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, s, key, "a record")
}

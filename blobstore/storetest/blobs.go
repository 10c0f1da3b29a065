package storetest

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	_ "crypto/sha512" // for digest.SHA512

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

func testPutThenOpen(t *testing.T, s Store) {
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		for _, size := range []int{0, 1, 4095, 1 << 20} {
			for i, announced := range []int64{int64(size), -1} {
				b := random(size, byte(20+i))
				d := algorithm.FromBytes(b)
				if err := s.Put(t.Context(), d, announced, bytes.NewReader(b)); err != nil {
					t.Fatalf("Put(%s), size %d: %v", d, announced, err)
				}
				info, err := s.Stat(t.Context(), d)
				if err != nil {
					t.Fatalf("Stat(%s): %v", d, err)
				}
				if info.Digest != d || info.Size != int64(size) || info.ModTime.IsZero() {
					t.Errorf("Stat(%s) = %+v, want %d bytes and a time", d, info, size)
				}
				if got := read(t, s, d, int64(size), 0, -1); !bytes.Equal(got, b) {
					t.Errorf("%s reads as %d other bytes, want %d", d, len(got), size)
				}
			}
		}
	}
}

func testAbsent(t *testing.T, s Store) {
	d := digest.FromString("never stored")
	wantAbsent(t, s, d)
	if err := s.Delete(t.Context(), d); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("Delete = %v, want ErrNotExist", err)
	}
}

func testRanges(t *testing.T, s Store) {
	const size = 100_000
	b := random(size, 1)
	d := put(t, s, b)
	for _, r := range []struct{ offset, length, from, to int64 }{
		{0, -1, 0, size},
		{0, size, 0, size},
		{0, size + 1, 0, size},
		{0, 1, 0, 1},
		{0, 0, 0, 0},
		{5, 0, 5, 5},
		{5, 10, 5, 15},
		{5, -1, 5, size},
		{5, -7, 5, size},
		{size - 1, -1, size - 1, size},
		{size - 1, 100, size - 1, size},
		{size, -1, size, size},
		{size, 10, size, size},
		{1, 1<<63 - 1, 1, size},
	} {
		if got := read(t, s, d, size, r.offset, r.length); !bytes.Equal(got, b[r.from:r.to]) {
			t.Errorf("Open(%d, %d) gives %d bytes, want bytes %d to %d", r.offset, r.length, len(got), r.from, r.to)
		}
	}
	empty := put(t, s, nil)
	if got := read(t, s, empty, 0, 0, -1); len(got) != 0 {
		t.Errorf("the empty blob has %d bytes", len(got))
	}
	for _, r := range []struct {
		d              digest.Digest
		offset, length int64
	}{{d, size + 1, -1}, {d, size + 1, 0}, {d, -1, -1}, {d, -1, 5}, {d, -1 << 63, 1}, {d, 1<<63 - 1, 1}, {empty, 1, -1}} {
		rc, _, err := s.Open(t.Context(), r.d, r.offset, r.length)
		if err == nil {
			_ = rc.Close()
		}
		if !errors.Is(err, blobstore.ErrInvalidRange) {
			t.Errorf("Open(%d, %d) = %v, want ErrInvalidRange", r.offset, r.length, err)
		}
	}
}

func testPutTwice(t *testing.T, s Store) {
	b := random(1000, 5)
	d := put(t, s, b)
	for _, size := range []int64{int64(len(b)), -1} {
		if err := s.Put(t.Context(), d, size, iotest.ErrReader(errors.New("read again"))); err != nil {
			t.Errorf("Put of what is stored: %v", err)
		}
	}
	if got := read(t, s, d, int64(len(b)), 0, -1); !bytes.Equal(got, b) {
		t.Error("the blob changed")
	}
}

func testConcurrentPuts(t *testing.T, s Store) {
	b := random(1<<20, 6)
	d := digest.FromBytes(b)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Put(t.Context(), d, int64(len(b)), bytes.NewReader(b)); err != nil {
				t.Errorf("Put: %v", err)
			}
		})
	}
	wg.Wait()
	if got := read(t, s, d, int64(len(b)), 0, -1); !bytes.Equal(got, b) {
		t.Error("the blob has other bytes")
	}
	if all := list(t, s); !slices.Equal(all, []digest.Digest{d}) {
		t.Errorf("stored %v, want %s once", all, d)
	}
}

func testReadWhileDeleted(t *testing.T, s Store) {
	b := random(4<<20, 8)
	d := put(t, s, b)
	r, _, err := s.Open(t.Context(), d, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), d); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	wantAbsent(t, s, d)
	rest, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading on after Delete: %v", err)
	}
	if !bytes.Equal(append(head, rest...), b) {
		t.Error("the bytes changed after Delete")
	}
}

func testDeleteThenPut(t *testing.T, s Store) {
	b := random(1000, 9)
	other := put(t, s, random(1000, 10))
	d := put(t, s, b)
	for range 3 {
		if err := s.Delete(t.Context(), d); err != nil {
			t.Fatalf("Delete: %v", err)
		}
		wantAbsent(t, s, d)
		if err := s.Delete(t.Context(), d); !errors.Is(err, blobstore.ErrNotExist) {
			t.Errorf("second Delete = %v, want ErrNotExist", err)
		}
		put(t, s, b)
		if got := read(t, s, d, int64(len(b)), 0, -1); !bytes.Equal(got, b) {
			t.Error("the blob stored again has other bytes")
		}
	}
	if _, err := s.Stat(t.Context(), other); err != nil {
		t.Errorf("another blob: %v", err)
	}
}

func testMalformedDigests(t *testing.T, s Store) {
	hex := digest.FromString("x").Encoded()
	hex512 := digest.SHA512.FromString("x").Encoded()
	for _, d := range []digest.Digest{
		"", ":", "sha256", "sha256:", "sha512:",
		digest.Digest(hex), digest.Digest("sha256" + hex), digest.Digest(":" + hex),
		digest.Digest("sha256:" + hex[1:]), digest.Digest("sha256:" + hex + "0"),
		digest.Digest("sha256:" + strings.ToUpper(hex)), digest.Digest("SHA256:" + hex),
		digest.Digest("sha256:" + hex[:63] + "g"), digest.Digest("sha256:" + hex[:63] + "\n"),
		digest.Digest("sha256:" + hex[:63] + "\x00"), digest.Digest("sha256:" + hex[:62] + "é"),
		digest.Digest("sha256:" + hex + "/.."), digest.Digest("../sha256:" + hex), digest.Digest(" sha256:" + hex),
		digest.Digest("sha256:" + strings.Repeat("../", 21) + "x"), digest.Digest("sha256:" + strings.Repeat("%2e", 21) + "x"),
		"sha256:..", digest.Digest("sha512:" + hex), digest.Digest("sha256:" + hex512),
		digest.Digest("sha384:" + hex512[:96]), digest.Digest("md5:" + hex[:32]), digest.Digest("sha256+b64:" + hex),
		digest.Digest("sha256:" + strings.Repeat("a", 1<<20)),
	} {
		_, statErr := s.Stat(t.Context(), d)
		rc, _, openErr := s.Open(t.Context(), d, 0, -1)
		if openErr == nil {
			_ = rc.Close()
		}
		for call, err := range map[string]error{
			"Stat": statErr, "Open": openErr,
			"Put":    s.Put(t.Context(), d, 1, iotest.ErrReader(errors.New("was read"))),
			"Delete": s.Delete(t.Context(), d),
		} {
			if !errors.Is(err, blobstore.ErrInvalidDigest) {
				t.Errorf("%s(%.90q) = %v, want ErrInvalidDigest", call, d, err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Errorf("%s(%.90q): an error of %d bytes", call, d, len(err.Error()))
			}
		}
	}
}

func testBlobs(t *testing.T, s Store) {
	want := map[digest.Digest]int64{}
	for i := range 20 {
		b := random(i*100, byte(i))
		want[put(t, s, b)] = int64(len(b))
	}
	wide := digest.SHA512.FromString("wide")
	if err := s.Put(t.Context(), wide, 4, strings.NewReader("wide")); err != nil {
		t.Fatal(err)
	}
	want[wide] = 4
	if err := s.PutRecord(t.Context(), "blobs/sha256", []byte("a record is no blob")); err != nil {
		t.Fatal(err)
	}
	got := map[digest.Digest]int64{}
	for info, err := range s.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := got[info.Digest]; twice {
			t.Errorf("%s is listed twice", info.Digest)
		}
		if info.ModTime.IsZero() {
			t.Errorf("%s has no time", info.Digest)
		}
		got[info.Digest] = info.Size
	}
	if !maps.Equal(got, want) {
		t.Errorf("listed %v\nwant   %v", got, want)
	}
	seen := 0
	for range s.Blobs(t.Context()) {
		if seen++; seen == 3 {
			break
		}
	}
	if seen != 3 {
		t.Errorf("stopped after %d, want 3", seen)
	}
}

// testLargeBlob is larger than a part of a multipart upload, by a bit.
func testLargeBlob(t *testing.T, s Store) {
	b := random(21<<20+7, 12)
	for _, size := range []int64{int64(len(b)), -1} {
		d := digest.FromBytes(b)
		bad := io.MultiReader(bytes.NewReader(b[:len(b)-1]), bytes.NewReader([]byte{b[len(b)-1] ^ 1}))
		if err := s.Put(t.Context(), d, size, bad); !errors.Is(err, blobstore.ErrDigestMismatch) {
			t.Errorf("Put of wrong bytes, size %d: %v, want ErrDigestMismatch", size, err)
		}
		wantAbsent(t, s, d)
		if err := s.Put(t.Context(), d, size, bytes.NewReader(b)); err != nil {
			t.Fatalf("Put, size %d: %v", size, err)
		}
		if got := read(t, s, d, int64(len(b)), 0, -1); !bytes.Equal(got, b) {
			t.Errorf("size %d: the blob has other bytes", size)
		}
		from := int64(16<<20 - 5)
		if got := read(t, s, d, int64(len(b)), from, 10); !bytes.Equal(got, b[from:from+10]) {
			t.Errorf("size %d: a range over 16 MiB has other bytes", size)
		}
		if err := s.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
}

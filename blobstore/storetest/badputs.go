package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

func testWrongDigest(t *testing.T, s Store) {
	b := random(70_000, 2)
	for name, got := range map[string][]byte{
		"last byte differs": append(slices.Clone(b[:len(b)-1]), b[len(b)-1]^1),
		"first bit differs": append([]byte{b[0] ^ 0x80}, b[1:]...),
	} {
		for _, d := range []digest.Digest{digest.FromBytes(b), digest.SHA512.FromBytes(b)} {
			for _, size := range []int64{int64(len(b)), -1} {
				err := s.Put(t.Context(), d, size, bytes.NewReader(got))
				if !errors.Is(err, blobstore.ErrDigestMismatch) {
					t.Errorf("Put of bytes whose %s, size %d: %v, want ErrDigestMismatch", name, size, err)
				}
				wantAbsent(t, s, d)
			}
		}
	}
	// The right bytes can be stored afterwards.
	put(t, s, b)
}

func testWrongSize(t *testing.T, s Store) {
	b := random(70_000, 3)
	d := digest.FromBytes(b)
	for _, c := range []struct {
		name string
		size int64
		body []byte
	}{
		{"one byte more than announced", int64(len(b)) - 1, b},
		{"one byte less than announced", int64(len(b)) + 1, b},
		{"cut short", int64(len(b)), b[:len(b)/2]},
		{"no bytes at all", int64(len(b)), nil},
		{"some bytes where none were announced", 0, b},
	} {
		if err := s.Put(t.Context(), d, c.size, bytes.NewReader(c.body)); !errors.Is(err, blobstore.ErrSizeMismatch) {
			t.Errorf("%s: %v, want ErrSizeMismatch", c.name, err)
		}
		wantAbsent(t, s, d)
	}
	put(t, s, b)
}

func testEndlessReader(t *testing.T, s Store) {
	const announced, patience = 1000, 64 << 20
	endless := &zeros{stopAfter: patience}
	err := s.Put(t.Context(), digest.FromBytes(make([]byte, announced)), announced, endless)
	if !errors.Is(err, blobstore.ErrSizeMismatch) {
		t.Errorf("Put = %v, want ErrSizeMismatch", err)
	}
	if endless.given >= patience {
		t.Errorf("Put read on for %d bytes though %d were announced", endless.given, announced)
	}
}

// zeros gives zero bytes, and an error after many.
type zeros struct{ given, stopAfter int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.given >= z.stopAfter {
		return 0, errors.New("read far too much")
	}
	clear(p)
	z.given += len(p)
	return len(p), nil
}

func testFailingReader(t *testing.T, s Store) {
	b := random(300_000, 4)
	d := digest.FromBytes(b)
	broken := errors.New("upstream broke")
	for _, size := range []int64{int64(len(b)), -1} {
		r := io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(broken))
		if err := s.Put(t.Context(), d, size, r); !errors.Is(err, broken) {
			t.Errorf("Put with size %d = %v, want the reader's error in it", size, err)
		}
		wantAbsent(t, s, d)
	}
	if all := list(t, s); len(all) != 0 {
		t.Errorf("stored: %v", all)
	}
	put(t, s, b)
}

func testBadContentNeverShows(t *testing.T, s Store) {
	good := random(200_000, 7)
	bad := append(slices.Clone(good[:len(good)-1]), good[len(good)-1]^1)
	d := digest.FromBytes(good)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				if err := s.Put(t.Context(), d, -1, bytes.NewReader(good)); err != nil {
					t.Errorf("Put of the right bytes: %v", err)
				}
				return
			}
			// It succeeds, unread, when the right bytes are there already.
			err := s.Put(t.Context(), d, -1, bytes.NewReader(bad))
			if err != nil && !errors.Is(err, blobstore.ErrDigestMismatch) {
				t.Errorf("Put of wrong bytes: %v", err)
			}
		})
	}
	wg.Wait()
	if got := read(t, s, d, int64(len(good)), 0, -1); !bytes.Equal(got, good) {
		t.Error("the blob has wrong bytes")
	}
}

func testCancelled(t *testing.T, s Store) {
	b := random(1<<20, 11)
	d := digest.FromBytes(b)
	if err := s.Put(cancelled(t), d, int64(len(b)), bytes.NewReader(b)); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v, want context.Canceled", err)
	}
	wantAbsent(t, s, d)

	// Cancelled by the reader, when half of the bytes are through.
	ctx, cancel := context.WithCancel(t.Context())
	half := readFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF })
	r := io.MultiReader(bytes.NewReader(b[:len(b)/2]), half, bytes.NewReader(b[len(b)/2:]))
	if err := s.Put(ctx, d, int64(len(b)), r); !errors.Is(err, context.Canceled) {
		t.Errorf("Put cancelled halfway = %v, want context.Canceled", err)
	}
	wantAbsent(t, s, d)

	if err := s.PutRecord(cancelled(t), "a", []byte("b")); !errors.Is(err, context.Canceled) {
		t.Errorf("PutRecord = %v, want context.Canceled", err)
	}
	if _, err := s.Record(t.Context(), "a"); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("Record = %v, want ErrNotExist", err)
	}
	put(t, s, b)
	for _, err := range s.Blobs(cancelled(t)) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Blobs yields %v, want context.Canceled", err)
		}
	}
	for _, err := range s.RecordKeys(cancelled(t), "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("RecordKeys yields %v, want context.Canceled", err)
		}
	}
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

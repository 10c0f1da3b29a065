// Package storetest is the suite that every store of package blobstore passes.
//
// It asks only for what the interfaces promise, so that it holds for a
// directory and a bucket alike; what one store promises beyond that is tested
// beside that store.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// Store is what the suite tests.
type Store interface {
	blobstore.Store
	blobstore.Records
}

// Run runs the suite. open gives an empty store, which it closes by t.Cleanup;
// it is called once for each test.
func Run(t *testing.T, open func(t *testing.T) Store) {
	t.Helper()
	tests := []struct {
		name string
		test func(t *testing.T, s Store)
	}{
		{"PutThenOpenGivesTheSameBytes", testPutThenOpen},
		{"AbsentBlobDoesNotExist", testAbsent},
		{"RangesAreCutAtTheEnd", testRanges},
		{"WrongDigestIsNotStored", testWrongDigest},
		{"WrongSizeIsNotStored", testWrongSize},
		{"EndlessReaderIsCutAtItsSize", testEndlessReader},
		{"FailingReaderLeavesNothing", testFailingReader},
		{"PutOfWhatIsThereReadsNothing", testPutTwice},
		{"ConcurrentPutsOfOneDigestAllSucceed", testConcurrentPuts},
		{"PutsOfBadContentNeverShow", testBadContentNeverShows},
		{"DeletedBlobIsReadToItsEnd", testReadWhileDeleted},
		{"DeletedBlobCanBeStoredAgain", testDeleteThenPut},
		{"MalformedDigestsAreRefused", testMalformedDigests},
		{"BlobsListsWhatIsStored", testBlobs},
		{"CancelledContextStoresNothing", testCancelled},
		{"LargeBlob", testLargeBlob},
		{"RecordIsReplacedAndDeleted", testRecord},
		{"RecordKeysKeepTheirBytes", testRecordKeyBytes},
		{"RecordBadKeysAreRefused", testRecordBadKeys},
		{"RecordKeyMayBePrefixOfAnother", testRecordPrefixKeys},
		{"RecordKeysAreListedInByteOrder", testRecordKeys},
		{"RecordIsReplacedAtOnce", testRecordAtomic},
		{"RecordOfMaxRecordSize", testRecordLarge},
		{"RecordsAndBlobsAreApart", testRecordsApart},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, open(t)) })
	}
}

// random is n bytes that are the same for the same n and seed.
func random(n int, seed byte) []byte {
	b := make([]byte, n)
	source := rand.NewChaCha8([32]byte{seed})
	_, _ = source.Read(b) // documented to return no error
	return b
}

func put(t *testing.T, s Store, b []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(b)
	if err := s.Put(t.Context(), d, int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatalf("Put(%s) of %d bytes: %v", d, len(b), err)
	}
	return d
}

// read opens and reads a range, and checks the Info that comes with it.
func read(t *testing.T, s Store, d digest.Digest, size, offset, length int64) []byte {
	t.Helper()
	r, info, err := s.Open(t.Context(), d, offset, length)
	if err != nil {
		t.Fatalf("Open(%s, %d, %d): %v", d, offset, length, err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("reading %s from %d: %v", d, offset, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("closing %s: %v", d, err)
	}
	if info.Digest != d || info.Size != size {
		t.Fatalf("Open(%s) says %s, %d bytes; want %d bytes", d, info.Digest, info.Size, size)
	}
	return b
}

func wantAbsent(t *testing.T, s Store, d digest.Digest) {
	t.Helper()
	if _, err := s.Stat(t.Context(), d); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("Stat(%s) = %v, want ErrNotExist", d, err)
	}
	r, _, err := s.Open(t.Context(), d, 0, -1)
	if err == nil {
		_ = r.Close()
	}
	if !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("Open(%s) = %v, want ErrNotExist", d, err)
	}
	if slices.Contains(list(t, s), d) {
		t.Errorf("%s is listed", d)
	}
}

// list is the digests of all blobs, sorted.
func list(t *testing.T, s Store) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for info, err := range s.Blobs(t.Context()) {
		if err != nil {
			t.Fatalf("listing blobs: %v", err)
		}
		all = append(all, info.Digest)
	}
	slices.Sort(all)
	return all
}

// cancelled is a context that is over.
func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

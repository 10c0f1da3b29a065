package blobstore

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/opencontainers/go-digest"
)

func newMemory(tb testing.TB, maxBytes int64) *Memory {
	tb.Helper()
	m, err := NewMemory(maxBytes)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.Close)
	return m
}

// add adds a blob and waits until the cache has decided on it.
func add(m *Memory, b []byte) digest.Digest {
	d := digest.FromBytes(b)
	m.Add(d, b)
	m.cache.Wait()
	return d
}

func TestMemoryGivesWhatWasAddedUntilRemoved(t *testing.T) {
	m := newMemory(t, 1<<20)
	for _, b := range [][]byte{[]byte("a manifest"), {}} {
		d := add(m, b)
		if got, ok := m.Get(d); !ok || !bytes.Equal(got, b) {
			t.Errorf("Get = %q, %v; want %q", got, ok, b)
		}
		m.Remove(d)
		if _, ok := m.Get(d); ok {
			t.Error("Get after Remove gives it")
		}
	}
	wide := digest.SHA512.FromString("wide")
	m.Add(wide, []byte("wide"))
	m.cache.Wait()
	if got, ok := m.Get(wide); !ok || string(got) != "wide" {
		t.Errorf("Get of sha512 = %q, %v", got, ok)
	}
}

func TestMemoryRefusesLargeBlobsAndMalformedDigests(t *testing.T) {
	m := newMemory(t, 64<<20)
	large := make([]byte, MaxMemoryBlob+1)
	if _, ok := m.Get(add(m, large)); ok {
		t.Error("it keeps more than MaxMemoryBlob")
	}
	if _, ok := m.Get(add(m, large[:MaxMemoryBlob])); !ok {
		t.Error("it does not keep MaxMemoryBlob")
	}
	for _, d := range []digest.Digest{"", "sha256:", "sha256:..", "md5:0"} {
		m.Add(d, []byte("x"))
		m.cache.Wait()
		if _, ok := m.Get(d); ok {
			t.Errorf("it keeps a blob under %q", d)
		}
		m.Remove(d)
	}
}

// Two digests that share the 128 bits by which the cache knows them.
func TestMemoryTellsDigestsOfOneHashApart(t *testing.T) {
	m := newMemory(t, 1<<20)
	d := add(m, []byte("a"))
	twin := []byte(d)
	twin[len(twin)-1] ^= 1
	if checkDigest(digest.Digest(twin)) != nil {
		t.Fatalf("%s is malformed", twin)
	}
	if got, ok := m.Get(digest.Digest(twin)); ok {
		t.Errorf("Get of another digest gives %q", got)
	}
	if _, ok := m.Get(d); !ok {
		t.Error("Get of the digest itself gives nothing")
	}
}

func TestMemoryStaysWithinItsBytes(t *testing.T) {
	const limit, size, count = 1 << 20, 4 << 10, 2000
	m := newMemory(t, limit)
	var digests []digest.Digest
	for i := range count {
		b := make([]byte, size)
		binary.BigEndian.PutUint64(b, uint64(i))
		digests = append(digests, add(m, b))
	}
	kept := 0
	for _, d := range digests {
		if b, ok := m.Get(d); ok {
			kept += len(b)
		}
	}
	if kept > limit || kept < limit/2 {
		t.Errorf("it keeps %d of %d bytes, want most of %d and no more", kept, count*size, limit)
	}
}

func TestMemoryNeedsBytes(t *testing.T) {
	for _, n := range []int64{0, -1} {
		if m, err := NewMemory(n); err == nil {
			m.Close()
			t.Errorf("NewMemory(%d) succeeds", n)
		}
	}
}

func TestMemoryHitAllocatesNothing(t *testing.T) {
	m := newMemory(t, 1<<20)
	d := add(m, []byte("a manifest"))
	miss := digest.FromString("absent")
	// Ristretto hands on every 64th hit in a buffer of its own: below one
	// allocation a hit, which AllocsPerRun rounds down.
	for name, d := range map[string]digest.Digest{"hit": d, "miss": miss} {
		if n := testing.AllocsPerRun(1000, func() { m.Get(d) }); n != 0 {
			t.Errorf("a %s allocates %v times", name, n)
		}
	}
}

func BenchmarkMemoryGet(b *testing.B) {
	m := newMemory(b, 1<<20)
	d := add(m, []byte("a manifest"))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, ok := m.Get(d); !ok {
				b.Error("miss")
				return
			}
		}
	})
}

package blobstore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// makeTree lays out n blobs of one byte, as a store would have. Their content
// does not have their digests, which nothing reads at open.
func makeTree(b *testing.B, path string, n int) {
	b.Helper()
	for i := range n {
		var seed [8]byte
		binary.BigEndian.PutUint64(seed[:], uint64(i))
		sum := sha256.Sum256(seed[:])
		file := dataFile(path, digest.NewDigestFromBytes(digest.SHA256, sum[:]))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(file, []byte{1}, 0o600); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpenDir opens a store of 200,000 blobs, and tells what its index
// keeps in memory.
func BenchmarkOpenDir(b *testing.B) {
	const blobs = 200_000
	path := b.TempDir()
	makeTree(b, path, blobs)
	var perBlob float64
	for b.Loop() {
		before := heap()
		d, err := blobstore.OpenDir(path, blobstore.DirConfig{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		perBlob = (heap() - before) / blobs
		if got := d.Usage().Blobs; got != blobs {
			b.Fatalf("%d blobs, want %d", got, blobs)
		}
		if err := d.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(perBlob, "heap-B/blob")
}

// heap is the bytes in use after a collection.
func heap() float64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

func benchDir(b *testing.B) *blobstore.Dir {
	b.Helper()
	d, err := blobstore.OpenDir(b.TempDir(), blobstore.DirConfig{MaxSize: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	return d
}

// BenchmarkPartialWrite is a cold download of 256 MiB, as far as the store has
// a part in it: 256 KiB at a time, and verified at the end. chunk-ms is the
// median time of a Write, which says more than MB/s on a machine that does
// other things too.
func BenchmarkPartialWrite(b *testing.B) {
	const size, chunk = 256 << 20, 256 << 10
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		b.Run(string(algorithm), func(b *testing.B) {
			d := benchDir(b)
			data := content("chunk", chunk)
			p, err := d.Partial(context.Background(), algorithm.FromBytes(bytes.Repeat(data, size/chunk)))
			if err != nil {
				b.Fatal(err)
			}
			var writes []time.Duration
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				for p.Size() < size {
					start := time.Now()
					if _, err := p.Write(data); err != nil {
						b.Fatal(err)
					}
					writes = append(writes, time.Since(start))
				}
				if err := p.Verify(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := p.Reset(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			slices.Sort(writes)
			b.ReportMetric(writes[len(writes)/2].Seconds()*1000, "chunk-ms")
			if err := p.Discard(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkOpenFile is what the store adds to sending a file.
func BenchmarkOpenFile(b *testing.B) {
	d := benchDir(b)
	var digests []digest.Digest
	for i := range 100 {
		text := fmt.Sprint("blob ", i)
		digests = append(digests, digest.FromString(text))
		if err := putString(d, text); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		f, err := d.OpenFile(digests[i%len(digests)])
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStat must not allocate nor ask the disk.
func BenchmarkStat(b *testing.B) {
	d := benchDir(b)
	if err := putString(d, "blob"); err != nil {
		b.Fatal(err)
	}
	dgst := digest.FromString("blob")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Stat(context.Background(), dgst); err != nil {
			b.Fatal(err)
		}
	}
}

func putString(d *blobstore.Dir, text string) error {
	return d.Put(context.Background(), digest.FromString(text), int64(len(text)), strings.NewReader(text))
}

// BenchmarkPutRecord writes records, 16 at a time, as the pushes of a release
// make an origin do. Each is on the disk when it returns.
func BenchmarkPutRecord(b *testing.B) {
	d, err := blobstore.OpenDir(b.TempDir(), blobstore.DirConfig{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = d.Close() })
	var written atomic.Int64
	b.SetParallelism(max(1, 16/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(next *testing.PB) {
		for next.Next() {
			n := written.Add(1)
			if err := d.PutRecord(b.Context(), fmt.Sprintf("tags/image%03d/_/%d", n%100, n), []byte("v")); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

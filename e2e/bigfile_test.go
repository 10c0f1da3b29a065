package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bigBlock is the MiB of which big files are made as they are read: each begins
// with its number.
const bigBlock = 1 << 20

// bigFile serves a big file, and counts what it sends.
type bigFile struct {
	size     int64 // bytes: whole blocks
	requests atomic.Int64
	sent     atomic.Int64
	before   func(at int64) // called, if set, before each block
}

func (b *bigFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", `"big"`)
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.FormatInt(b.size, 10))
		return
	}
	b.requests.Add(1)
	var start int64
	if spec := r.Header.Get("Range"); spec != "" {
		if _, err := fmt.Sscanf(spec, "bytes=%d-", &start); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, b.size-1, b.size))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(b.size-start, 10))
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	block := newBlock()
	for at := start; at < b.size; {
		if b.before != nil {
			b.before(at)
		}
		binary.BigEndian.PutUint64(block, uint64(at/bigBlock))
		n, err := w.Write(block[at%bigBlock:])
		b.sent.Add(int64(n))
		if at += int64(n); err != nil {
			return
		}
	}
}

// newBlock is a block without its number.
func newBlock() []byte { return bytes.Repeat([]byte("the same again. "), bigBlock/16) }

// checkBig reads a big file and checks it byte by byte.
func checkBig(body io.Reader, size int64) error {
	block, want := make([]byte, bigBlock), newBlock()
	for i := range uint64(size / bigBlock) {
		if _, err := io.ReadFull(body, block); err != nil {
			return fmt.Errorf("reading MiB %d: %w", i, err)
		}
		binary.BigEndian.PutUint64(want, i)
		if !bytes.Equal(block, want) {
			return fmt.Errorf("MiB %d is not what it should be, but %.8x…", i, block)
		}
	}
	switch n, err := io.Copy(io.Discard, body); {
	case err != nil:
		return fmt.Errorf("reading to the end: %w", err)
	case n > 0:
		return fmt.Errorf("%d bytes too many", n)
	}
	return nil
}

func TestBigFileForFiftyClientsIsFetchedOnceInLittleMemory(t *testing.T) {
	const bigSize, clients, most = 2 << 30, 50, 120 << 20
	big := &bigFile{size: bigSize}
	upstream := httptest.NewServer(big)
	defer upstream.Close()
	node := startFilesNode(t, upstream.URL, false, nil)
	began := time.Now()
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			response, err := http.Get(node.URL() + "/files/big")
			if err != nil {
				t.Error(err)
				return
			}
			defer response.Body.Close()
			if err := checkBig(response.Body, bigSize); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if requests, sent := big.requests.Load(), big.sent.Load(); requests != 1 || sent != bigSize {
		t.Errorf("upstream was asked %d times and sent %d bytes; want once and %d", requests, sent, int64(bigSize))
	}
	if peak := node.Process().PeakRSS(); peak > most {
		t.Errorf("the node used %d MiB of memory; want at most %d", peak>>20, most>>20)
	}
	t.Logf("%d clients had %d GiB in %v; the node used %d MiB", clients, clients*bigSize>>30, time.Since(began).Round(time.Second), node.Process().PeakRSS()>>20)
}

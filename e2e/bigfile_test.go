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

// The big file is 2 GiB that are made as they are read: each MiB begins with its
// number.
const (
	bigSize  = 2 << 30
	bigBlock = 1 << 20
)

// bigFile serves the big file, and counts what it sends.
type bigFile struct {
	requests atomic.Int64
	sent     atomic.Int64
}

func (b *bigFile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", `"big"`)
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(bigSize))
		return
	}
	b.requests.Add(1)
	var start int64
	if spec := r.Header.Get("Range"); spec != "" {
		if _, err := fmt.Sscanf(spec, "bytes=%d-", &start); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, bigSize-1, bigSize))
	}
	w.Header().Set("Content-Length", strconv.FormatInt(bigSize-start, 10))
	if start > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	block := bytes.Repeat([]byte("the same again. "), bigBlock/16)
	for at := start; at < bigSize; {
		binary.BigEndian.PutUint64(block, uint64(at/bigBlock))
		n, err := w.Write(block[at%bigBlock:])
		b.sent.Add(int64(n))
		if at += int64(n); err != nil {
			return
		}
	}
}

// checkBig reads the big file and checks the number of each MiB.
func checkBig(body io.Reader) error {
	block := make([]byte, bigBlock)
	for i := range uint64(bigSize / bigBlock) {
		if _, err := io.ReadFull(body, block); err != nil {
			return fmt.Errorf("reading MiB %d: %w", i, err)
		}
		if got := binary.BigEndian.Uint64(block); got != i {
			return fmt.Errorf("MiB %d is MiB %d", i, got)
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
	const clients, most = 50, 120 << 20
	big := new(bigFile)
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
			if err := checkBig(response.Body); err != nil {
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

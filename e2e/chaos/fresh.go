package main

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// freshName is the upstream of what nobody has asked for yet.
const freshName = "fresh.test"

const (
	freshAsked  = 6        // latest blobs that clients ask for: some together, few again
	freshLeast  = 64 << 10 // bytes of the smallest
	freshSpread = 1 << 20  // bytes by which others are larger, at most
)

// fresh is a registry that has ever new blobs, so that nodes always have to get
// some: what is stored is not hurt by what happens upstream. It has all that it ever
// had, for clients that are slow, and makes it anew when it is asked for.
type fresh struct {
	*httptest.Server

	mu     sync.Mutex
	random *rand.Rand
	latest []item
	made   map[string]freshBlob // by path below the upstream
}

// freshBlob is how content is made.
type freshBlob struct {
	seed uint64
	size int
}

func (b freshBlob) body() []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], b.seed)
	body := make([]byte, b.size)
	_, _ = rand.NewChaCha8(key).Read(body) // it never fails
	return body
}

func startFresh(t testing.TB, seed uint64) *fresh {
	t.Helper()
	f := &fresh{random: rand.New(rand.NewPCG(seed, 3000)), made: map[string]freshBlob{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// pick is one of the latest blobs, or one that was never asked for.
func (f *fresh) pick(random *rand.Rand) item {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.latest); n > 0 && random.IntN(3) > 0 {
		return f.latest[random.IntN(n)]
	}
	blob := freshBlob{f.random.Uint64(), freshLeast + f.random.IntN(freshSpread)}
	i := item{body: blob.body()}
	path := "/fresh/app/blobs/sha256:" + i.hex()
	i.path = "/v2/" + freshName + path
	f.made["/v2"+path] = blob
	f.latest = append(f.latest, i)
	f.latest = f.latest[max(0, len(f.latest)-freshAsked):]
	return i
}

// ServeHTTP serves the blobs, with ranges.
func (f *fresh) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	blob, ok := f.made[r.URL.Path]
	f.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob.body()))
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"entrepot/blobstore/pause"

	"github.com/opencontainers/go-digest"
)

// stuckAfter is for how long a transfer may bring no byte. A node looks 30 s for
// a source that goes on, and gives up.
const stuckAfter = 60 * time.Second

// reader is a scripted client: it asks over and over, in all the ways that
// clients do, and compares every byte of what is said to be complete.
type reader struct {
	t       failer
	tally   *tally
	http    *http.Client
	random  *rand.Rand
	servers func(item) []string // base URLs with the path
	items   func(*rand.Rand) item
	liar    *liar // who may send what its digest tells to be wrong; nil is nobody
}

// failer takes what must not be.
type failer interface {
	Errorf(format string, args ...any)
}

func newReader(t failer, tally *tally, seed, n uint64) *reader {
	return &reader{
		t: t, tally: tally,
		http: &http.Client{Transport: &http.Transport{
			DisableCompression: true, DisableKeepAlives: n%2 == 1, MaxIdleConnsPerHost: 2, IdleConnTimeout: 2 * time.Second,
		}},
		random: rand.New(rand.NewPCG(seed, n+1)),
	}
}

func (r *reader) run(ctx context.Context) {
	defer r.http.CloseIdleConnections()
	for ctx.Err() == nil {
		i := r.items(r.random)
		urls := r.servers(i)
		r.once(ctx, urls[r.random.IntN(len(urls))], i)
		_ = pause.For(ctx, 20*time.Millisecond) // what is refused is refused at once
	}
}

// once asks for an item in one of the ways.
func (r *reader) once(ctx context.Context, url string, i item) {
	size := int64(len(i.body))
	switch way := r.random.IntN(10); {
	case way < 4:
		r.get(ctx, ask{url: url, item: i, end: -1})
	case way == 4:
		r.get(ctx, ask{url: url, item: i, end: -1, slow: true})
	case way < 7:
		r.resume(ctx, url, i)
	case way == 7:
		r.pieces(ctx, url, i)
	case way == 8:
		r.get(ctx, ask{url: url, item: i, end: -1, leave: 1 + r.random.Int64N(size)})
	default:
		r.head(ctx, url, i)
	}
}

// ask is one request.
type ask struct {
	url   string
	item  item
	start int64 // first byte, of a range where it is not 0 or end is not negative
	end   int64 // last byte and one; negative is all there is
	leave int64 // go after so many bytes; 0 is never
	slow  bool
}

// want is what a complete answer to the request has.
func (a ask) want(status int) []byte {
	switch {
	case status == http.StatusOK:
		return a.item.body
	case a.end < 0:
		return a.item.body[a.start:]
	default:
		return a.item.body[a.start:a.end]
	}
}

// get sends a request, reads the answer, and judges it. What came of the body is
// returned also when the answer is not complete.
func (r *reader) get(ctx context.Context, a ask) (got []byte) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var isStuck atomic.Bool
	watch := time.AfterFunc(stuckAfter, func() { isStuck.Store(true); cancel() })
	defer watch.Stop()
	isOut := r.liar != nil && r.liar.isOut.Load()
	answer, err := r.transfer(ctx, a, watch)
	status, got := answer.status, answer.body
	switch {
	case isOut && r.liar.is(answer.from):
		r.tally.add(uncaught, 1)
		r.t.Errorf("%s: the router sends clients to a mirror that is quarantined", a.url)
	case isStuck.Load():
		r.tally.add(stuck, 1)
		r.t.Errorf("%s: no byte for %v after %d (%d)", a.url, stuckAfter, len(got), status)
	case ctx.Err() != nil: // the end of the run
	case errors.Is(err, errLeft):
		r.tally.add(earlyEnds, 1)
	case status == http.StatusNotFound:
		r.tally.add(absences, 1)
		r.t.Errorf("%s: 404, and it is there", a.url)
	case status >= 400:
		r.tally.add(refused, 1)
	case err != nil:
		r.tally.add(broken, 1)
	default:
		r.judge(a, answer)
	}
	return got
}

// answer is what came of a request.
type answer struct {
	status int
	from   string // host:port that the client was sent to in the end
	body   []byte
}

// judge compares a complete answer.
func (r *reader) judge(a ask, answer answer) {
	status, got := answer.status, answer.body
	r.tally.add(complete, 1)
	r.tally.add(completeBytes, int64(len(got)))
	switch {
	case bytes.Equal(got, a.want(status)):
	case status == http.StatusPartialContent && a.end >= 0 && a.end < int64(len(a.item.body)) && len(got) == len(a.want(status)):
		// A range that does not reach the end may be sent before the blob is
		// verified. Who asks in pieces compares the digest of the whole.
		r.tally.add(unverified, 1)
	case r.liar != nil && r.liar.is(answer.from) && !a.item.name:
		r.tally.add(lied, 1) // it is asked for nothing but what has a digest
	default:
		r.tally.add(wrongBytes, 1)
		r.t.Errorf("%s: a complete answer (%d, from %d, to %d) has %d wrong bytes, %s", a.url, status, a.start, a.end, len(got), digest.FromBytes(got))
	}
}

// errLeft says that the client went as planned.
var errLeft = errors.New("left")

func (r *reader) transfer(ctx context.Context, a ask, watch *time.Timer) (got answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, http.NoBody)
	if err != nil {
		return got, err
	}
	req.Header.Set("Accept", acceptAll)
	switch {
	case a.end >= 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", a.start, a.end-1))
	case a.start > 0:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", a.start))
	}
	response, err := r.http.Do(req)
	if err != nil {
		return got, err
	}
	defer response.Body.Close()
	got.status, got.from = response.StatusCode, response.Request.URL.Host
	piece := max(10<<10, int64(len(a.item.body)/20))
	for {
		watch.Reset(stuckAfter)
		buffer := make([]byte, 32<<10)
		if a.slow {
			buffer = buffer[:min(int64(len(buffer)), piece)]
		}
		n, err := response.Body.Read(buffer)
		got.body = append(got.body, buffer[:n]...)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err == nil && a.leave > 0 && int64(len(got.body)) >= a.leave {
			err = errLeft
		}
		if err == nil && a.slow {
			err = pause.For(ctx, 10*time.Millisecond)
		}
		if err != nil {
			return got, err
		}
	}
}

// resume downloads as clients do that were cut off: each time from where it was.
func (r *reader) resume(ctx context.Context, url string, i item) {
	size := int64(len(i.body))
	have := r.get(ctx, ask{url: url, item: i, end: -1, leave: 1 + r.random.Int64N(size)})
	for range 5 {
		if at := int64(len(have)); at >= size || ctx.Err() != nil {
			break
		} else if more := r.get(ctx, ask{url: url, item: i, start: at, end: -1}); int64(len(more)) == size && at > 0 {
			have = more // the server sent it whole
		} else {
			have = append(have, more...)
		}
	}
	if int64(len(have)) == size && !bytes.Equal(have, i.body) {
		// What came before an end that was not its end is not verified.
		r.tally.add(mended, 1)
	}
}

// pieces downloads as those do that ask for many ranges.
func (r *reader) pieces(ctx context.Context, url string, i item) {
	size, n := int64(len(i.body)), int64(3)
	step := size/n + 1
	var have []byte
	for at := int64(0); at < size && ctx.Err() == nil; at += step {
		piece := r.get(ctx, ask{url: url, item: i, start: at, end: min(at+step, size)})
		have = append(have, piece...)
	}
	if int64(len(have)) == size && !bytes.Equal(have, i.body) {
		r.tally.add(mended, 1)
	}
}

func (r *reader) head(ctx context.Context, url string, i item) {
	ctx, cancel := context.WithTimeout(ctx, stuckAfter)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, http.NoBody)
	if err != nil {
		return
	}
	req.Header.Set("Accept", acceptAll)
	response, err := r.http.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			r.tally.add(broken, 1)
		}
		return
	}
	response.Body.Close()
	r.tally.add(heads, 1)
	d := response.Header.Get("Docker-Content-Digest")
	switch {
	case response.StatusCode == http.StatusNotFound:
		r.tally.add(absences, 1)
		r.t.Errorf("HEAD %s: 404, and it is there", url)
	case response.StatusCode >= 400:
		r.tally.add(refused, 1)
	case response.ContentLength >= 0 && response.ContentLength != int64(len(i.body)), d != "" && d != digest.FromBytes(i.body).String():
		r.tally.add(wrongBytes, 1)
		r.t.Errorf("HEAD %s: says %d bytes of %s", url, response.ContentLength, d)
	}
}

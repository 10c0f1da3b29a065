package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"entrepot/proxy/loop"

	"github.com/opencontainers/go-digest"
)

// patience is for how long a peer is waited for that answers greetings and gives
// nothing: longer than its own upstream may take to be given up.
const patience = 30 * time.Second

// Request is for content that a peer has, or is to bring.
type Request struct {
	// URI is the path and the query, percent-encoded.
	URI string
	// Digest is the content, about which the peer is asked when it is silent.
	Digest digest.Digest
	// Offset is the first byte wanted; Length, when positive, how many.
	Offset, Length int64
	// OnlyIfCached has the peer not bring it from upstream.
	OnlyIfCached bool
	// Check, when set, judges an answer before its body is read.
	Check func(*http.Response) error
}

// RefusedError is the answer of a peer that is well, and does not give the content.
type RefusedError struct {
	Peer   *Peer
	Status int
	Err    error
}

func (e *RefusedError) Error() string { return fmt.Sprintf("peer %s: %v", e.Peer, e.Err) }
func (e *RefusedError) Unwrap() error { return e.Err }

// Open asks a peer for content. The body begins at the request's Offset; total is
// the size of the whole, negative when the peer does not know it yet.
//
// Errors, also of the body: *RefusedError; others say that the peer cannot be
// asked now, which the group has noted. While the peer is silent it is asked, when
// half of the deadline has passed, whether it lives and how far it is. One that
// waits itself is waited for.
func (g *Group) Open(ctx context.Context, p *Peer, req *Request) (body io.ReadCloser, total int64, header http.Header, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	t := &transfer{group: g, peer: p, digest: req.Digest, ctx: ctx, cancel: cancel}
	t.next.Store(req.Offset)
	t.wait()
	watched := make(chan struct{})
	go func() { //nolint:contextcheck // the watch has the transfer's, which is made of it
		defer close(watched)
		t.watch()
	}()
	t.end = func() {
		cancel(nil)
		<-watched
	}
	resp, err := g.request(ctx, p, req)
	t.waiting.Store(nil)
	if err == nil {
		total, err = req.judge(resp)
		if err != nil {
			resp.Body.Close()
			err = &RefusedError{p, resp.StatusCode, err}
		}
	} else {
		err = t.failed(err)
	}
	var refused *RefusedError
	switch {
	case err == nil:
		t.src = resp.Body
		return t, total, resp.Header, nil
	case errors.As(err, &refused):
		g.metrics.answers.WithLabelValues(resultRefused).Inc()
	}
	t.end()
	return nil, -1, nil, err
}

// request sends the request.
func (g *Group) request(ctx context.Context, p *Peer, req *Request) (*http.Response, error) {
	r, err := g.newRequest(ctx, p, req.URI)
	if err != nil {
		return nil, err
	}
	r.Header.Set(loop.Header, loop.Value(ctx, g.cfg.ID))
	r.Header.Set("Accept-Encoding", "identity")
	if req.OnlyIfCached {
		r.Header.Set("Cache-Control", "only-if-cached")
	}
	g.signer.sign(r, time.Now())
	switch {
	case req.Length > 0:
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", req.Offset, req.Offset+req.Length-1))
	case req.Offset > 0:
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", req.Offset))
	}
	return p.transport.RoundTrip(r)
}

// judge says whether an answer has the bytes wanted, and how large the whole is.
// Peers send exactly what they are asked for, or an error.
func (req *Request) judge(resp *http.Response) (total int64, err error) {
	if resp.StatusCode >= http.StatusBadRequest {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return -1, fmt.Errorf("answered %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	want := http.StatusOK
	if req.Offset > 0 || req.Length > 0 {
		want = http.StatusPartialContent
	}
	if resp.StatusCode != want {
		return -1, fmt.Errorf("answered %s where %d is right", resp.Status, want)
	}
	total = resp.ContentLength
	if want == http.StatusPartialContent {
		value := resp.Header.Get("Content-Range")
		rest, ok := strings.CutPrefix(value, fmt.Sprintf("bytes %d-", req.Offset))
		_, whole, cut := strings.Cut(rest, "/")
		total, err = strconv.ParseInt(whole, 10, 64)
		if !ok || !cut || err != nil {
			return -1, fmt.Errorf("sent Content-Range %.80q for bytes from %d", value, req.Offset)
		}
	}
	if req.Check != nil {
		return total, req.Check(resp)
	}
	return total, nil
}

// transfer is a request to a peer, and the body of its answer, with an eye on
// whether the peer lives. It is used by one goroutine.
type transfer struct {
	group  *Group
	peer   *Peer
	digest digest.Digest
	ctx    context.Context
	cancel context.CancelCauseFunc
	end    func() // of the eye
	src    io.ReadCloser
	gave   bool

	next    atomic.Int64              // offset of the next byte
	waiting atomic.Pointer[time.Time] // since when the peer is waited for; nil when it is not
}

func (t *transfer) wait() {
	now := time.Now()
	t.waiting.Store(&now)
}

// Read implements [io.Reader].
func (t *transfer) Read(b []byte) (int, error) {
	t.wait()
	n, err := t.src.Read(b)
	t.waiting.Store(nil)
	t.next.Add(int64(n))
	if n > 0 && !t.gave {
		t.gave = true
		t.peer.gave()
		t.group.metrics.answers.WithLabelValues(resultGave).Inc()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		// A cut connection is not held against the peer: its own source may
		// have failed. Whether it lives, the next request to it tells.
		err = fmt.Errorf("peer %s: %w", t.peer, t.cause(err))
	}
	return n, err
}

// Close implements [io.Closer].
func (t *transfer) Close() error {
	t.end()
	return t.src.Close()
}

// cause is why a transfer ended, where the watch ended it.
func (t *transfer) cause(err error) error {
	if cause := context.Cause(t.ctx); cause != nil {
		return cause
	}
	return err
}

// failed takes in that there was no answer.
func (t *transfer) failed(err error) error {
	err = t.cause(err)
	if silent, ok := errors.AsType[*silentError](err); !ok && t.ctx.Err() == nil {
		t.group.lost(t.peer, err)
	} else if ok {
		err = silent
	}
	return fmt.Errorf("peer %s: %w", t.peer, err)
}

// lost takes in that a peer failed while it was asked for content.
func (g *Group) lost(p *Peer, why error) {
	g.metrics.answers.WithLabelValues(resultFailed).Inc()
	g.failed(p, why)
}

// silentError is why a peer was given up that had not closed the connection.
type silentError struct{ text string }

func (e *silentError) Error() string { return e.text }

// watch gives the peer up when it is silent and does not live, when it does not
// send what it has, or when it took all patience. It ends with the transfer.
func (t *transfer) watch() {
	deadline := t.group.cfg.Deadline
	tick := time.NewTicker(max(deadline/8, time.Millisecond))
	defer tick.Stop()
	var asked *time.Time // the wait in which the peer was last asked about
	var ahead bool       // it said then that it has more than it sent
	var again time.Time  // when it is to be asked again in the same wait
	for {
		select {
		case <-t.ctx.Done():
			return
		case now := <-tick.C:
			since := t.waiting.Load()
			if since == nil || now.Sub(*since) < deadline/2 {
				continue
			}
			silent := now.Sub(*since).Round(time.Millisecond)
			switch {
			case silent > patience:
				t.giveUp(fmt.Sprintf("it sent nothing for %v", silent))
				return
			case since != asked || !ahead && now.After(again):
				asked, again, ahead = since, now.Add(deadline/2), false
				have, err := t.have(deadline / 2)
				if t.waiting.Load() != since { // it has sent something
					continue
				}
				if err != nil {
					t.giveUp(fmt.Sprintf("it sent nothing for %v, and does not answer: %v", time.Since(*since).Round(time.Millisecond), err))
					return
				}
				ahead = have > t.next.Load()
			case ahead && silent >= deadline:
				t.giveUp(fmt.Sprintf("it sent nothing for %v, though it has more", silent))
				return
			}
		}
	}
}

// have asks the peer how many bytes of the content it could send.
func (t *transfer) have(timeout time.Duration) (int64, error) {
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	a, err := t.group.ask(ctx, t.peer, t.digest)
	return a.Have, err
}

func (t *transfer) giveUp(text string) {
	if t.ctx.Err() != nil {
		return
	}
	err := &silentError{text}
	t.group.lost(t.peer, err)
	t.cancel(err)
}

// Disbelieve takes in that a peer sent wrong bytes: it is left alone for a while.
func (g *Group) Disbelieve(p *Peer, why error) { g.failed(p, why) }

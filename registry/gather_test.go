package registry

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// countingConn gathers, and counts what it sends. It is used by one goroutine at a
// time, but for the count.
type countingConn struct {
	net.Conn
	gathering bool
	body      int64
	held      bytes.Buffer
	sent      *atomic.Int64
}

func (c *countingConn) Write(p []byte) (int, error) {
	if !c.gathering {
		c.sent.Add(1)
		return c.Conn.Write(p)
	}
	_, _ = c.held.Write(p)
	if _, body, ok := bytes.Cut(c.held.Bytes(), []byte("\r\n\r\n")); ok && int64(len(body)) >= c.body {
		return len(p), c.Send()
	}
	return len(p), nil
}

func (c *countingConn) Gather(body int64) { c.gathering, c.body = true, body }

func (c *countingConn) Send() error {
	c.gathering = false
	if c.held.Len() == 0 {
		return nil
	}
	_, err := c.Write(c.held.Bytes())
	c.held.Reset()
	return err
}

type countingListener struct {
	net.Listener
	sent *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countingConn{Conn: c, sent: l.sent}, nil
}

func TestAResponseOfAFewKilobytesIsSentAsOne(t *testing.T) {
	for name, test := range map[string]struct {
		size     int
		broken   bool
		notReady bool
		writes   int64 // at most; 0 is any number
	}{
		"fits net/http's buffer":    {size: 100, writes: 1},
		"does not":                  {size: 4 << 10, writes: 1},
		"nor this":                  {size: 60 << 10, writes: 1},
		"too large to be copied":    {size: 1 << 20},
		"not all there":             {size: 4 << 10, notReady: true},
		"fails before it begins":    {size: 4 << 10, broken: true, writes: 1},
		"of a size that is twofold": {size: 8 << 10, writes: 1},
	} {
		t.Run(name, func(t *testing.T) {
			content := bytes.Repeat([]byte("x"), test.size)
			d := digest.FromBytes(content)
			b := &fakeBackend{blob: func(*Request) Blob {
				m := &memory{bytes: content, notReady: test.notReady}
				if test.broken {
					m.failAt = -1
				}
				return Blob{Digest: d, Size: int64(len(content)), Content: m}
			}}
			var sent atomic.Int64
			s := httptest.NewUnstartedServer(NewHandler(Config{Backend: b}))
			s.Listener = countingListener{s.Listener, &sent}
			s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return WithGatherer(ctx, c.(*countingConn)) }
			s.Start()
			defer s.Close()
			for round := range 3 { // on one connection
				sent.Store(0)
				resp, err := s.Client().Get(s.URL + "/v2/app/blobs/" + string(d))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				switch {
				case err != nil:
					t.Fatal(err)
				case test.broken && resp.StatusCode != http.StatusInternalServerError:
					t.Errorf("round %d: status %d", round, resp.StatusCode)
				case !test.broken && !bytes.Equal(got, content):
					t.Errorf("round %d: %d bytes, not the right %d", round, len(got), len(content))
				}
				if n := sent.Load(); test.writes > 0 && n > test.writes {
					t.Errorf("round %d: sent by %d writes, want %d", round, n, test.writes)
				}
			}
		})
	}
}

func TestATransferThatBreaksIsSentAsFarAsItWentAndCut(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 8<<10)
	d := digest.FromBytes(content)
	b := &fakeBackend{blob: func(*Request) Blob {
		return Blob{Digest: d, Size: int64(len(content)), Content: &memory{bytes: content, failAt: 5 << 10}}
	}}
	var sent atomic.Int64
	s := httptest.NewUnstartedServer(NewHandler(Config{Backend: b}))
	s.Listener = countingListener{s.Listener, &sent}
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return WithGatherer(ctx, c.(*countingConn)) }
	s.Start()
	defer s.Close()
	resp, err := s.Client().Get(s.URL + "/v2/app/blobs/" + string(d))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err == nil || len(got) != 5<<10 {
		t.Errorf("%d bytes and %v; want 5 KiB and a cut", len(got), err)
	}
}

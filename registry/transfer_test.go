package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// tapConn is a TCP connection that notes what is done to it.
type tapConn struct {
	*net.TCPConn
	tap *tap
}

type tap struct {
	net.Listener
	mu        sync.Mutex
	files     []int64 // bytes sent straight from a file, by call
	writes    int
	deadlines int // set in the future
}

func (t *tap) Accept() (net.Conn, error) {
	c, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tapConn{c.(*net.TCPConn), t}, nil
}

func (c *tapConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if part, ok := r.(*io.LimitedReader); ok {
		if _, ok := part.R.(*os.File); ok {
			c.tap.mu.Lock()
			c.tap.files = append(c.tap.files, n)
			c.tap.mu.Unlock()
		}
	}
	return n, err
}

func (c *tapConn) Write(p []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.writes++
	c.tap.mu.Unlock()
	return c.TCPConn.Write(p)
}

func (c *tapConn) SetWriteDeadline(d time.Time) error {
	if d.After(time.Now()) {
		c.tap.mu.Lock()
		c.tap.deadlines++
		c.tap.mu.Unlock()
	}
	return c.TCPConn.SetWriteDeadline(d)
}

// start serves a handler on loopback, through a tap.
func start(t *testing.T, cfg Config, alter func(*httptest.Server)) (*httptest.Server, *tap) {
	t.Helper()
	s := httptest.NewUnstartedServer(NewHandler(cfg))
	// What the server says of the connections that are cut is no news here.
	s.Config.ErrorLog = nil
	wire := &tap{Listener: s.Listener}
	s.Listener = wire
	if alter != nil {
		alter(s)
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, wire
}

// http2 starts a server with TLS and HTTP/2.
func http2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

// file is content in a file, sent as stores send it.
type file struct {
	*os.File
}

func (f file) WriteRange(_ context.Context, w io.Writer, offset, length int64) (int64, error) {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	return io.CopyN(w, f.File, length)
}

func (f file) Ready(int64, int64) bool { return true }

// fileOf answers blob requests from a file with size bytes, which it returns too.
func fileOf(t *testing.T, size int) (func(*Request) Blob, []byte) {
	t.Helper()
	content := make([]byte, size)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(content)
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return func(req *Request) Blob {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
		}
		return Blob{Digest: req.Digest, Size: int64(size), Content: file{f}}
	}, content
}

// get asks a server for the blob.
func get(t *testing.T, s *httptest.Server, header http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+blobTarget, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestFileIsSentByTheKernelInPiecesThatEachHaveADeadline(t *testing.T) {
	t.Parallel()
	const size = 9 << 20
	blob, content := fileOf(t, size)
	var sent int64
	observed := make(chan struct{}, 2)
	s, wire := start(t, Config{Backend: &fakeBackend{blob: blob}, Done: func(o *Observation) {
		sent = o.Bytes
		observed <- struct{}{}
	}}, nil)

	if got := bodyOf(t, get(t, s, nil)); got != string(content) {
		t.Fatal("the body differs from the file")
	}
	<-observed
	wire.mu.Lock()
	var bySendfile int64
	for _, n := range wire.files {
		bySendfile += n
	}
	// net/http reads the first 512 bytes itself, to send them with the headers.
	if bySendfile < size-512 || len(wire.files) != 3 {
		t.Errorf("%d of %d bytes were sent from the file, in pieces %v", bySendfile, size, wire.files)
	}
	if wire.deadlines < 3 {
		t.Errorf("%d deadlines for 9 MiB", wire.deadlines)
	}
	if sent != size {
		t.Errorf("%d bytes observed", sent)
	}
	wire.files = nil
	wire.mu.Unlock()

	resp := get(t, s, http.Header{"Range": {"bytes=1000-2000999"}})
	if got := bodyOf(t, resp); resp.StatusCode != http.StatusPartialContent || got != string(content[1000:2001000]) {
		t.Errorf("range: %d, %d bytes", resp.StatusCode, len(got))
	}
	<-observed
	wire.mu.Lock()
	defer wire.mu.Unlock()
	if len(wire.files) != 1 || wire.files[0] < 2000000-512 {
		t.Errorf("range: sent from the file in pieces %v", wire.files)
	}
}

func TestFileIsSentWholeWhereTheKernelCannot(t *testing.T) {
	t.Parallel()
	blob, content := fileOf(t, 3<<20)
	for name, alter := range map[string]func(*httptest.Server){"HTTP/2": http2, "TLS": (*httptest.Server).StartTLS} {
		s, wire := start(t, Config{Backend: &fakeBackend{blob: blob}}, alter)
		resp := get(t, s, nil)
		if name == "HTTP/2" && resp.ProtoMajor != 2 {
			t.Errorf("%s: spoke %s", name, resp.Proto)
		}
		if got := bodyOf(t, resp); got != string(content) {
			t.Errorf("%s: the body differs from the file", name)
		}
		part := get(t, s, http.Header{"Range": {"bytes=5-9,-5"}})
		if got := bodyOf(t, part); part.StatusCode != http.StatusPartialContent || !strings.Contains(got, string(content[5:10])) {
			t.Errorf("%s: ranges: %d", name, part.StatusCode)
		}
		wire.mu.Lock()
		if name == "TLS" && wire.deadlines == 0 { // HTTP/2 has them by stream, not by connection
			t.Errorf("%s: no deadline", name)
		}
		wire.mu.Unlock()
	}
}

func TestSmallBodyLeavesWithItsHeadersInOneSegmentAndWithoutDeadlines(t *testing.T) {
	t.Parallel()
	observed := make(chan struct{}, 1)
	s, wire := start(t, Config{
		Backend: &fakeBackend{blob: blobOf(26, &memory{bytes: []byte(alphabet)})},
		Done:    func(*Observation) { observed <- struct{}{} },
	}, nil)
	bodyOf(t, get(t, s, nil))
	<-observed
	wire.mu.Lock()
	defer wire.mu.Unlock()
	if wire.writes != 1 || wire.deadlines != 0 {
		t.Errorf("%d writes, %d deadlines", wire.writes, wire.deadlines)
	}
}

func TestHeadersDoNotWaitForContent(t *testing.T) {
	t.Parallel()
	for name, alter := range map[string]func(*httptest.Server){"HTTP/1.1": nil, "HTTP/2": http2} {
		for _, size := range []int64{26, -1} {
			gate := make(chan struct{})
			s, _ := start(t, Config{Backend: &fakeBackend{
				blob: blobOf(size, &memory{bytes: []byte(alphabet), notReady: true, gate: gate}),
			}}, alter)
			resp := get(t, s, nil) // returns with the headers, while the gate is shut
			if resp.StatusCode != http.StatusOK || resp.ContentLength != size {
				t.Errorf("%s: %d, Content-Length %d", name, resp.StatusCode, resp.ContentLength)
			}
			close(gate)
			if got := bodyOf(t, resp); got != alphabet {
				t.Errorf("%s: body %q", name, got)
			}
		}
	}
}

// surplus writes more than it is asked for, by each way there is.
type surplus struct {
	memory
	from bool
}

func (s *surplus) WriteRange(_ context.Context, w io.Writer, _, _ int64) (int64, error) {
	all := strings.NewReader(strings.Repeat(alphabet, 2))
	if s.from {
		return w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: all, N: 52})
	}
	if n, err := io.CopyN(w, all, 20); err != nil {
		return n, err
	}
	n, err := w.Write([]byte(alphabet))
	return int64(n) + 20, err
}

func TestTransferThatFailsIsCutAndGetsNothingThatIsNotContent(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte(alphabet), 100_000)
	for name, tc := range map[string]struct {
		size    int64
		content Content
		header  http.Header
	}{
		"content breaks":              {26, &memory{bytes: []byte(alphabet), failAt: 10}, nil},
		"content breaks late":         {int64(len(long)), &memory{bytes: long, failAt: 2_000_000}, nil},
		"content breaks in a range":   {26, &memory{bytes: []byte(alphabet), failAt: 10}, http.Header{"Range": {"bytes=5-20"}}},
		"content breaks in a part":    {26, &memory{bytes: []byte(alphabet), failAt: 10}, http.Header{"Range": {"bytes=0-4,8-12"}}},
		"content of unknown size":     {-1, &memory{bytes: []byte(alphabet), failAt: 10}, nil},
		"content is short":            {30, &memory{bytes: []byte(alphabet)}, nil},
		"headers are out":             {26, &memory{bytes: []byte(alphabet), failAt: -1, notReady: true}, nil},
		"content is long":             {26, &surplus{}, nil},
		"content of unknown, headers": {-1, &memory{bytes: []byte(alphabet), failAt: -1}, nil},
	} {
		for proto, alter := range map[string]func(*httptest.Server){"HTTP/1.1": nil, "HTTP/2": http2} {
			t.Run(name+" over "+proto, func(t *testing.T) {
				t.Parallel()
				failure := make(chan error, 1)
				s, _ := start(t, Config{
					Backend: &fakeBackend{blob: blobOf(tc.size, tc.content)},
					Done:    func(o *Observation) { failure <- o.Err },
				}, alter)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+blobTarget, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header = tc.header.Clone()
				// One connection for one request: a retry would hide the cut.
				resp, err := s.Client().Do(req)
				if err == nil {
					defer resp.Body.Close()
					var got []byte
					if got, err = io.ReadAll(resp.Body); err == nil {
						t.Errorf("the transfer was completed: %d, %d bytes", resp.StatusCode, len(got))
					}
					if bytes.Contains(got, []byte("errors")) || bytes.Contains(got, []byte("fire")) {
						t.Errorf("the body has an error in it: %.100q", got)
					}
				}
				if err := <-failure; err == nil {
					t.Error("the observation has no error")
				}
			})
		}
	}
}

func TestContentThatFailsBeforeItsFirstByteIsAnError(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]Content{
		"broken":            &memory{failAt: -1},
		"longer than given": &surplus{from: true},
	} {
		h := NewHandler(Config{Backend: &fakeBackend{blob: blobOf(26, content)}})
		for _, header := range []http.Header{nil, {"Range": {"bytes=0-4"}}} {
			resp := ask(t, h, http.MethodGet, blobTarget, header)
			if code, message := told(t, resp); resp.StatusCode != http.StatusInternalServerError || code != "UNKNOWN" || strings.Contains(message, "fire") {
				t.Errorf("%s: %d %s %q", name, resp.StatusCode, code, message)
			}
			wantHeader(t, resp, map[string]string{
				"ETag": "", "Docker-Content-Digest": "", "Content-Range": "", "Accept-Ranges": "", "Cache-Control": "no-store",
			})
		}
	}
}

func TestClientThatStallsIsCutOff(t *testing.T) {
	t.Parallel()
	blob, _ := fileOf(t, 32<<20)
	for name, alter := range map[string]func(*httptest.Server){"HTTP/1.1": nil, "TLS": (*httptest.Server).StartTLS, "HTTP/2": http2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failure := make(chan error, 1)
			s, _ := start(t, Config{
				Backend:      &fakeBackend{blob: blob},
				WriteTimeout: 100 * time.Millisecond,
				Done:         func(o *Observation) { failure <- o.Err },
			}, alter)
			get(t, s, nil) // and its body is never read
			select {
			case err := <-failure:
				if err == nil {
					t.Error("the transfer was completed")
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the client still holds the transfer")
			}
		})
	}
}

func TestClientThatWaitsForContentIsNotCutOff(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second // enough to send little on a busy machine
	long := bytes.Repeat([]byte(alphabet), 10_000)
	for name, alter := range map[string]func(*httptest.Server){"HTTP/1.1": nil, "HTTP/2": http2} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			s, _ := start(t, Config{
				Backend:      &fakeBackend{blob: blobOf(int64(len(long)), &memory{bytes: long, notReady: true, gate: gate})},
				WriteTimeout: timeout,
			}, alter)
			resp := get(t, s, nil)
			// Content comes when a deadline set with the headers has passed.
			time.AfterFunc(timeout+timeout/4, func() { close(gate) })
			if got := bodyOf(t, resp); got != string(long) {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

func TestClientThatLeavesEndsTheTransfer(t *testing.T) {
	t.Parallel()
	failure := make(chan error, 1)
	s, _ := start(t, Config{
		Backend: &fakeBackend{blob: blobOf(26, &memory{bytes: []byte(alphabet), notReady: true, gate: make(chan struct{})})},
		Done:    func(o *Observation) { failure <- o.Err },
	}, nil)
	get(t, s, nil).Body.Close()
	if err := <-failure; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const content = "0123456789"

// ranges answers ranges of content as a registry should.
func ranges(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
}

func TestPartsOfContent(t *testing.T) {
	whole := say(content)
	chunked := func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, content)
	}
	for name, c := range map[string]struct {
		server               http.HandlerFunc
		offset, size, length int64
		header, want         string
		total                int64
	}{
		"all":                                {ranges, 0, 0, 0, "", content, 10},
		"all, chunked":                       {chunked, 0, 0, 0, "", content, -1},
		"end, size known":                    {ranges, 4, 10, 0, "bytes=4-9", "456789", 10},
		"end, size unknown":                  {ranges, 4, 0, 0, "bytes=4-", "456789", 10},
		"middle":                             {ranges, 4, 10, 3, "bytes=4-6", "456", 10},
		"middle, size unknown":               {ranges, 4, 0, 3, "bytes=4-6", "456", 10},
		"beginning":                          {ranges, 0, 10, 3, "bytes=0-2", "012", 10},
		"more than there is":                 {ranges, 8, 10, 9, "bytes=8-9", "89", 10},
		"ranges ignored":                     {whole, 4, 10, 0, "bytes=4-9", "456789", 10},
		"ranges ignored, size unknown":       {whole, 4, 0, 0, "bytes=4-", "456789", 10},
		"ranges ignored, middle":             {whole, 4, 10, 3, "bytes=4-6", "456", 10},
		"ranges ignored, chunked":            {chunked, 4, 0, 3, "bytes=4-6", "456", -1},
		"ranges ignored, chunked, known":     {chunked, 4, 10, 0, "bytes=4-9", "456789", 10},
		"shorter range than asked for":       {part("bytes 4-5/10", "45"), 4, 10, 0, "bytes=4-9", "45", 10},
		"range of a total that is not told":  {part("bytes 4-9/*", "456789"), 4, 10, 0, "bytes=4-9", "456789", 10},
		"range of a total that nobody knows": {part("bytes 4-9/*", "456789"), 4, 0, 0, "bytes=4-", "456789", -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, c.server)
			u := newUpstream(t, Config{URLs: []string{s.URL}})
			req := blob()
			req.Offset, req.Size, req.Length = c.offset, c.size, c.length
			if resp := wantBody(t, u, req, c.want); resp.TotalSize != c.total {
				t.Errorf("size %d, want %d", resp.TotalSize, c.total)
			}
			if got := s.requests()[0].Header.Get("Range"); got != c.header {
				t.Errorf("asked for Range %q, want %q", got, c.header)
			}
		})
	}
}

func part(contentRange, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", contentRange)
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, body)
	}
}

func TestWrongPartsAreInvalid(t *testing.T) {
	for name, c := range map[string]struct {
		server       http.HandlerFunc
		offset, size int64
	}{
		"part where all was asked for": {part("bytes 0-9/10", content), 0, 0},
		"other start":                  {part("bytes 3-9/10", "3456789"), 4, 10},
		"other total":                  {part("bytes 4-10/11", "456789a"), 4, 10},
		"past the end":                 {part("bytes 4-10/*", "456789a"), 4, 10},
		"other length":                 {part("bytes 4-9/10", "45678"), 4, 10},
		"no Content-Range":             {part("", "456789"), 4, 10},
		"end before start":             {part("bytes 4-3/10", ""), 4, 10},
		"end past total":               {part("bytes 4-10/10", "456789a"), 4, 0},
		"sign":                         {part("bytes +4-9/10", "456789"), 4, 10},
		"416":                          {status(http.StatusRequestedRangeNotSatisfiable), 4, 10},
		"whole of another size":        {say(content + "a"), 4, 10},
		"whole that ends before":       {say(content[:4]), 4, 0},
		"offset outside":               {ranges, 10, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, c.server)
			u := newUpstream(t, Config{URLs: []string{s.URL}})
			req := blob()
			req.Offset, req.Size = c.offset, c.size
			wantError(t, u, req, Invalid)
		})
	}
}

func TestBodyThatEndsTooEarlyIsAnError(t *testing.T) {
	chunkedPart := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 4-9/10")
		w.WriteHeader(http.StatusPartialContent)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, "456")
	}
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, content[:7])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	for name, h := range map[string]http.HandlerFunc{"chunked part": chunkedPart, "cut": cut} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, h)
			u := newUpstream(t, Config{URLs: []string{s.URL}})
			req := blob()
			req.Offset, req.Size = 4, 10
			resp, err := u.Do(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if string(b) != "456" || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), s.URL) {
				t.Errorf("read %q with error %v", b, err)
			}
			if _, again := resp.Body.Read(make([]byte, 1)); !errors.Is(again, io.ErrUnexpectedEOF) {
				t.Errorf("reading again gives %v", again)
			}
		})
	}
}

func TestContentEncodingIsRefused(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", strings.TrimPrefix(r.URL.Path, "/v2/"))
		_, _ = io.WriteString(w, "x")
	})
	u := newUpstream(t, Config{URLs: []string{s.URL}})
	wantError(t, u, &Request{Method: http.MethodGet, Path: "gzip"}, Invalid)
	wantBody(t, u, &Request{Method: http.MethodGet, Path: "identity"}, "x")
}

// pipe is a network whose bodies are what the test writes.
type pipe struct {
	header http.Header
	length int64
	body   func() io.ReadCloser
	delay  time.Duration // before the headers; forever when negative
}

func (p *pipe) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.delay != 0 {
		var after <-chan time.Time
		if p.delay > 0 {
			after = time.After(p.delay)
		}
		select {
		case <-after:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return &http.Response{StatusCode: http.StatusOK, Request: r, Header: p.header, ContentLength: p.length, Body: ended{p.body(), r.Context()}}, nil
}

// ended breaks a body off when its request ends, as net/http does.
type ended struct {
	io.ReadCloser
	ctx context.Context
}

func (e ended) Read(p []byte) (int, error) {
	if err := e.ctx.Err(); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(e.ctx, func() { _ = e.ReadCloser.Close() })
	defer stop()
	return e.ReadCloser.Read(p)
}

func TestStallBreaksABodyOffAndADripDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		u := newUpstream(t, Config{
			URLs:           []string{"https://r.example.org"},
			Transport:      &pipe{length: -1, body: func() io.ReadCloser { return reader }},
			ConnectTimeout: time.Second, ResponseTimeout: time.Second, StallTimeout: 10 * time.Second,
		})
		go func() {
			for range 20 {
				time.Sleep(9 * time.Second)
				_, _ = writer.Write([]byte("x"))
			}
		}()
		resp, err := u.Do(t.Context(), blob())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		start := time.Now()
		b, err := io.ReadAll(resp.Body)
		if len(b) != 20 || !errors.Is(err, errStalled) {
			t.Errorf("read %d bytes with error %v", len(b), err)
		}
		if took := time.Since(start); took != 20*9*time.Second+10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestSlowReaderIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		go func() {
			_, _ = io.WriteString(writer, content)
			writer.Close()
		}()
		u := newUpstream(t, Config{
			URLs:      []string{"https://r.example.org"},
			Transport: &pipe{length: 10, body: func() io.ReadCloser { return reader }},
		})
		resp, err := u.Do(t.Context(), blob())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var first [1]byte
		if _, err := io.ReadFull(resp.Body, first[:]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != content[1:] {
			t.Errorf("after an hour: %q, %v", rest, err)
		}
	})
}

func TestHeadersHaveADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUpstream(t, Config{
			URLs:           []string{"https://r.example.org"},
			Transport:      &pipe{delay: -1},
			ConnectTimeout: 2 * time.Second, ResponseTimeout: 6 * time.Second, StallTimeout: time.Hour,
		})
		start := time.Now()
		err := wantError(t, u, blob(), Unavailable)
		if took := time.Since(start); !err.Timeout || took != 10*time.Second {
			t.Errorf("after %v: %v, timeout %v", took, err, err.Timeout)
		}
	})
}

func TestBlackHoledDialHasADeadline(t *testing.T) {
	// TEST-NET-1 (RFC 5737) is routed nowhere; where the machine refuses it at
	// once there is nothing to wait for.
	u := newUpstream(t, Config{
		URLs:           []string{"http://192.0.2.1:81"},
		ConnectTimeout: 100 * time.Millisecond, ResponseTimeout: time.Minute, StallTimeout: time.Minute,
	})
	start := time.Now()
	wantError(t, u, blob(), Unavailable)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestEndOfContextEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		defer writer.Close()
		u := newUpstream(t, Config{
			URLs:          []string{"https://r.example.org"},
			MaxConcurrent: 1,
			Transport:     &pipe{length: -1, body: func() io.ReadCloser { return reader }},
			StallTimeout:  time.Hour, ResponseTimeout: time.Hour,
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		resp, err := u.Do(ctx, blob())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		// The only slot is taken.
		waiting, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if _, err := u.Do(waiting, blob()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for a slot ended with %v", err)
		}
		if _, err := resp.Body.Read(make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reading ended with %v", err)
		}
		if refusal := u.Endpoints()[0].admit(time.Now()); refusal != nil || u.Endpoints()[0].failures != 0 {
			t.Errorf("the client's leaving was held against upstream: %v", refusal)
		}
	})
}

func TestNamesDoNotWaitBehindBlobs(t *testing.T) {
	s := newServer(t, say(content))
	u := newUpstream(t, Config{URLs: []string{s.URL}, MaxConcurrent: 2})
	for range 2 {
		resp, err := u.Do(t.Context(), blob())
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	wantBody(t, u, manifest(), content)
	head := blob()
	head.Method = http.MethodHead
	wantBody(t, u, head, "")

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := u.Do(ctx, blob()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a third blob was not kept waiting: %v", err)
	}
}

func TestSlotComesBackWhenABodyIsClosed(t *testing.T) {
	s := newServer(t, say(content))
	u := newUpstream(t, Config{URLs: []string{s.URL}, MaxConcurrent: 1})
	for range 5 {
		resp, err := u.Do(t.Context(), blob())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		resp.Body.Close() // twice does no harm
	}
	bad := newUpstream(t, Config{URLs: []string{newServer(t, status(404)).URL}, MaxConcurrent: 1})
	for range 5 {
		wantError(t, bad, blob(), NotFound)
	}
}

func TestBandwidthIsKeptWithinTwoPercent(t *testing.T) {
	for _, limit := range []int64{100 << 10, 10_000_000, 60_000_000} {
		for _, readSize := range []int{16 << 10, 256 << 10} {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(t, Config{
					URLs: []string{"https://r.example.org"}, BandwidthLimit: limit,
					Transport: &pipe{length: -1, body: func() io.ReadCloser { return io.NopCloser(zeros{}) }},
				})
				// Two bodies share it.
				start := time.Now()
				var sum [2]int64
				done := make(chan struct{})
				for i := range sum {
					go func() {
						resp, err := u.Do(t.Context(), blob())
						if err != nil {
							t.Error(err)
						} else {
							for buf := make([]byte, readSize); time.Since(start) < 4*time.Second; {
								n, _ := resp.Body.Read(buf)
								sum[i] += int64(n)
							}
							resp.Body.Close()
						}
						done <- struct{}{}
					}()
				}
				<-done
				<-done
				rate := float64(sum[0]+sum[1]) / time.Since(start).Seconds()
				// Below a megabyte a second, the smallest read is what counts.
				slack := 0.02 + 2*minBurst/(4*float64(limit))
				if math.Abs(rate/float64(limit)-1) > slack {
					t.Errorf("limit %d, reads of %d: %.0f bytes/s", limit, readSize, rate)
				}
			})
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestDiscardedBytesAreReadInFull(t *testing.T) {
	big := bytes.Repeat([]byte(content), 100_000)
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(big) })
	u := newUpstream(t, Config{URLs: []string{s.URL}})
	req := blob()
	req.Offset, req.Size = 999_995, int64(len(big))
	wantBody(t, u, req, "56789")
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 4-9/*", "bytes */10", "bytes 9223372036854775807-9223372036854775807/*", "bytes 5-4/10", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		start, end, total, ok := parseContentRange(value)
		if ok && (start < 0 || end < start || total < -1 || total >= 0 && end >= total) {
			t.Errorf("%q: %d-%d/%d", value, start, end, total)
		}
	})
}

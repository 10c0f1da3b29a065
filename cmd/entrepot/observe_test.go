package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"entrepot/registry"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

var hit = registry.Observation{
	Request: &registry.Request{Kind: registry.KindManifest, Repository: "library/alpine", Tag: "3.22"},
	Method:  "GET", Path: "/v2/library/alpine/manifests/3.22", Client: "192.0.2.1:5555", Status: 200, Bytes: 1024,
	Cache:    registry.CacheStatus{Outcome: registry.OutcomeHit, Upstream: "docker.io"},
	Duration: 1500 * time.Microsecond, ID: "0123456789abcdef",
}

func TestARequestIsCountedAndLogged(t *testing.T) {
	var log bytes.Buffer
	plain := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	reg := prometheus.NewRegistry()
	done := observe(newRequestMetrics(reg, []string{"docker.io"}), plain)

	done(&hit)
	cut := hit
	cut.Cache.Upstream, cut.Cache.Detail, cut.Err = "evil.example", "upstream-down", &registry.Error{Message: "it broke", Err: errors.New("connection reset")}
	done(&cut)
	done(&registry.Observation{Request: &registry.Request{}, Method: "PUT", Path: "/v2/", Status: 405})

	want := `level=INFO msg=request id=0123456789abcdef client=192.0.2.1:5555 method=GET path=/v2/library/alpine/manifests/3.22 upstream=docker.io name=library/alpine reference=3.22 status=200 cache=hit bytes=1024 duration=0.0015
level=INFO msg=request id=0123456789abcdef client=192.0.2.1:5555 method=GET path=/v2/library/alpine/manifests/3.22 upstream=evil.example name=library/alpine reference=3.22 status=200 cache=hit bytes=1024 duration=0.0015 detail=upstream-down error="connection reset"
level=INFO msg=request id="" client="" method=PUT path=/v2/ upstream="" name="" reference="" status=405 cache=error bytes=0 duration=0
`
	if log.String() != want {
		t.Errorf("the log is\n%s\nwant\n%s", &log, want)
	}
	scrape := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := scrape.Body.String()
	if n := strings.Count(text, "\nentrepot_requests_total{"); n != 2*kinds*outcomes {
		t.Errorf("%d series: a name that is not configured must make none", n)
	}
	for _, want := range []string{
		`{kind="manifest",outcome="hit",upstream="docker.io"} 1`,
		`{kind="manifest",outcome="hit",upstream="none"} 1`,
		`{kind="base",outcome="error",upstream="none"} 1`,
	} {
		if !strings.Contains(text, "entrepot_requests_total"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// What is the client's own doing is no failure: an alert is made of these.
func TestFailuresAreThoseThatAreNotTheClients(t *testing.T) {
	reg := prometheus.NewRegistry()
	done := observe(newRequestMetrics(reg, nil), nil)
	for _, c := range []struct {
		status int
		err    error
	}{
		{200, nil},
		{404, nil},
		{429, nil},
		{200, registry.ErrClientGone},
		{404, errors.New("unknown")},
		{500, nil},
		{507, nil},
		{502, errors.New("upstream is down")},
		{503, nil},
		{504, nil},
		{504, nil},
		{206, errors.New("wrong bytes")},
	} {
		o := hit
		o.Status, o.Err = c.status, c.err
		done(&o)
	}
	scrape := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for reason, want := range map[string]int{"500": 2, "502": 1, "503": 1, "504": 2, "cut": 1} {
		if line := fmt.Sprintf("entrepot_request_failures_total{reason=%q} %d\n", reason, want); !strings.Contains(scrape.Body.String(), line) {
			t.Errorf("no %s in\n%s", line, scrape.Body)
		}
	}
}

// lockedBuffer is a log that two goroutines share.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
	writes int
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes++
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) state() (string, int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.String(), b.writes
}

func TestLineBufferKeepsLinesWholeAndWritesThemSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		b := newLineBuffer(&out)
		write := func(line string) {
			if _, err := io.WriteString(b, line); err != nil {
				t.Fatal(err)
			}
		}
		write("one\n")
		write("two\n")
		if text, _ := out.state(); text != "" {
			t.Errorf("written at once: %q", text)
		}
		time.Sleep(lineBufferDelay + 1)
		synctest.Wait()
		if text, writes := out.state(); text != "one\ntwo\n" || writes != 1 {
			t.Errorf("%q in %d writes after the delay", text, writes)
		}
		long := strings.Repeat("x", lineBufferSize-2) + "\n"
		write(long)
		write("three\n") // does not fit: what is there goes out, this line waits
		if text, _ := out.state(); text != "one\ntwo\n"+long {
			t.Errorf("a full buffer wrote %d bytes", len(text))
		}
		b.close()
		write("four\n")
		if text, _ := out.state(); !strings.HasSuffix(text, "three\nfour\n") {
			t.Errorf("after close: …%q", text[len(text)-20:])
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	for name, access := range map[string]slog.Handler{
		"metrics":    nil,
		"access log": slog.NewJSONHandler(newLineBuffer(io.Discard), nil),
	} {
		b.Run(name, func(b *testing.B) {
			done := observe(newRequestMetrics(prometheus.NewRegistry(), []string{"docker.io"}), access)
			b.ReportAllocs()
			for b.Loop() {
				done(&hit)
			}
		})
	}
}

func TestEveryKindOfRequestIsCounted(t *testing.T) {
	metrics := newRequestMetrics(prometheus.NewRegistry(), []string{"u"})
	for kind := range registry.KindUpload + 1 { // the last one
		for outcome := range registry.OutcomeError + 1 {
			metrics.count(kind, "u", outcome, 1, time.Second)
			if kindLabel(kind) == "" || outcomeLabel(outcome) == "" {
				t.Errorf("kind %d with outcome %d has no label", kind, outcome)
			}
		}
	}
}

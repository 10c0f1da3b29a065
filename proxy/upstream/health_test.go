package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// network answers for several hosts, without a network, so that time can be
// made to pass.
type network struct {
	hosts map[string]func() (*http.Response, error)
	asked map[string]int
}

func newNetwork() *network {
	return &network{hosts: make(map[string]func() (*http.Response, error)), asked: make(map[string]int)}
}

func (n *network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.asked[r.URL.Host]++
	resp, err := n.hosts[r.URL.Host]()
	if resp != nil {
		resp.Request = r
	}
	return resp, err
}

func (n *network) upstream(t *testing.T, hosts ...string) *Upstream {
	t.Helper()
	cfg := Config{Transport: n}
	for _, h := range hosts {
		cfg.URLs = append(cfg.URLs, "https://"+h)
	}
	u := newUpstream(t, cfg)
	for _, e := range u.endpoints {
		e.jitter = func() float64 { return 0 }
	}
	return u
}

func (n *network) wantAsked(t *testing.T, host string, want int) {
	t.Helper()
	if got := n.asked[host]; got != want {
		t.Errorf("%s was asked %d times, want %d", host, got, want)
	}
	n.asked[host] = 0
}

func answer(code int, header ...string) func() (*http.Response, error) {
	return func() (*http.Response, error) {
		resp := &http.Response{StatusCode: code, Header: make(http.Header), Body: io.NopCloser(strings.NewReader("x")), ContentLength: 1}
		for i := 0; i < len(header); i += 2 {
			resp.Header.Set(header[i], header[i+1])
		}
		return resp, nil
	}
}

func noAnswer() (*http.Response, error) { return nil, errors.New("connection reset") }

func TestFailingEndpointIsLeftAloneForTimesThatDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"] = noAnswer
		u := n.upstream(t, "a")
		wantError(t, u, blob(), Unavailable) // asked twice
		n.wantAsked(t, "a", 2)
		wantError(t, u, blob(), Unavailable)
		n.wantAsked(t, "a", 1)
		for _, seconds := range []float64{1, 2, 4, 8, 16, 32, 60, 60} {
			err := wantError(t, u, blob(), Unavailable)
			if err.RetryAfter.Seconds() != seconds {
				t.Errorf("retry after %v, want %v s", err.RetryAfter, seconds)
			}
			n.wantAsked(t, "a", 0)
			time.Sleep(err.RetryAfter - time.Nanosecond)
			wantError(t, u, blob(), Unavailable)
			n.wantAsked(t, "a", 0)
			time.Sleep(time.Nanosecond)
			wantError(t, u, blob(), Unavailable) // the probe
			n.wantAsked(t, "a", 1)
		}
		n.hosts["a"] = answer(200)
		time.Sleep(time.Minute)
		wantBody(t, u, blob(), "x")
		n.wantAsked(t, "a", 1)
		n.hosts["a"] = noAnswer
		wantError(t, u, blob(), Unavailable) // closed: all is as at first
		n.wantAsked(t, "a", 2)
	})
}

func TestEndpointThatIsLeftAloneIsNotAskedWhileAnotherAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"], n.hosts["b"] = answer(500), answer(200)
		u := n.upstream(t, "a", "b")
		for range 10 {
			wantBody(t, u, blob(), "x")
		}
		n.wantAsked(t, "a", failuresToOpen)
		n.wantAsked(t, "b", 10)
		n.hosts["a"] = answer(200)
		time.Sleep(firstPause)
		if resp := wantBody(t, u, blob(), "x"); resp.Endpoint != u.Endpoints()[0] {
			t.Errorf("the first URL is well again, but %s answered", resp.Endpoint)
		}
	})
}

func TestOneRequestProbesAnEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"] = noAnswer
		u := n.upstream(t, "a")
		wantError(t, u, blob(), Unavailable)
		wantError(t, u, blob(), Unavailable)
		n.wantAsked(t, "a", 3)
		time.Sleep(firstPause)
		release := make(chan struct{})
		n.hosts["a"] = func() (*http.Response, error) { <-release; return answer(200)() }
		done := make(chan error)
		go func() {
			resp, err := u.Do(t.Context(), blob())
			if err == nil {
				resp.Body.Close()
			}
			done <- err
		}()
		synctest.Wait()
		if err := wantError(t, u, blob(), Unavailable); err.RetryAfter != probePause {
			t.Errorf("retry after %v", err.RetryAfter)
		}
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.wantAsked(t, "a", 1)
		wantBody(t, u, blob(), "x")
	})
}

func TestProbeThatIsGivenUpLeavesTheNextRequestToProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"] = answer(429, "Retry-After", "5")
		u := n.upstream(t, "a")
		wantError(t, u, blob(), RateLimited)
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		n.hosts["a"] = func() (*http.Response, error) { cancel(); return nil, ctx.Err() }
		if _, err := u.Do(ctx, blob()); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		n.hosts["a"] = answer(200)
		wantBody(t, u, blob(), "x")
	})
}

func TestAnswerOfAnyMeaningEndsARowOfFailures(t *testing.T) {
	for _, status := range []int{404, 401, 200} {
		synctest.Test(t, func(t *testing.T) {
			n := newNetwork()
			u := n.upstream(t, "a")
			for _, h := range []func() (*http.Response, error){noAnswer, answer(status), noAnswer} {
				n.hosts["a"] = h
				resp, err := u.Do(t.Context(), blob()) // without an answer it is asked twice
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
			if refusal := u.Endpoints()[0].admit(time.Now()); refusal != nil {
				t.Errorf("%d between failures: %v", status, refusal)
			}
		})
	}
}

func TestRetryAfterIsHonouredExactly(t *testing.T) {
	for name, c := range map[string]struct {
		answer func() (*http.Response, error)
		kind   Kind
		want   time.Duration
	}{
		"429":             {answer(429, "Retry-After", "7"), RateLimited, 7 * time.Second},
		"429, silent":     {answer(429), RateLimited, rateLimitPause},
		"503":             {answer(503, "Retry-After", "90"), Unavailable, 90 * time.Second},
		"429 with a date": {answer(429, "Date", "Mon, 23 Nov 2026 10:00:00 GMT", "Retry-After", "Mon, 23 Nov 2026 10:02:00 GMT"), RateLimited, 2 * time.Minute},
		"429 for a year":  {answer(429, "Retry-After", "31536000"), RateLimited, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				n.hosts["a"] = c.answer
				u := n.upstream(t, "a")
				wantError(t, u, blob(), c.kind)
				n.wantAsked(t, "a", 1)
				time.Sleep(c.want / 4)
				if err := wantError(t, u, blob(), c.kind); err.RetryAfter != c.want-c.want/4 {
					t.Errorf("retry after %v", err.RetryAfter)
				}
				time.Sleep(c.want - c.want/4 - time.Nanosecond)
				wantError(t, u, blob(), c.kind)
				n.wantAsked(t, "a", 0)
				n.hosts["a"] = answer(200)
				time.Sleep(time.Nanosecond)
				wantBody(t, u, blob(), "x")
			})
		})
	}
}

func TestLastEndpointIsAskedOnceMoreAfterAMoment(t *testing.T) {
	for name, c := range map[string]struct {
		first func() (*http.Response, error)
		asked int
	}{
		"broken connection":   {noAnswer, 2},
		"500":                 {answer(500), 2},
		"503 with a time":     {answer(503, "Retry-After", "5"), 1},
		"404":                 {answer(404), 1},
		"429":                 {answer(429), 1},
		"no answer in time":   {func() (*http.Response, error) { return nil, errNoAnswer }, 1},
		"answer out of order": {answer(299), 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork()
				n.hosts["a"] = func() (*http.Response, error) {
					if n.asked["a"] == 1 {
						return c.first()
					}
					return answer(200)()
				}
				u := n.upstream(t, "a")
				start := time.Now()
				resp, err := u.Do(t.Context(), blob())
				if (err == nil) != (c.asked == 2) {
					t.Errorf("got error %v", err)
				}
				if err == nil {
					resp.Body.Close()
				}
				n.wantAsked(t, "a", c.asked)
				if took := time.Since(start); c.asked == 2 && (took < 100*time.Millisecond || took > 300*time.Millisecond) {
					t.Errorf("it was asked again after %v", took)
				}
			})
		})
	}
}

func TestAbsenceIsNotBelievedWhileAnEndpointIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"], n.hosts["b"] = answer(429, "Retry-After", "30"), answer(404)
		u := n.upstream(t, "a", "b")
		for range 2 {
			if err := wantError(t, u, blob(), RateLimited); err.RetryAfter != 30*time.Second {
				t.Errorf("retry after %v", err.RetryAfter)
			}
		}
		n.wantAsked(t, "a", 1)
		n.wantAsked(t, "b", 2)
	})
}

func TestAllLeftAloneTellsWhenTheFirstCanBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"], n.hosts["b"] = answer(429, "Retry-After", "30"), answer(503, "Retry-After", "20")
		u := n.upstream(t, "a", "b")
		wantError(t, u, blob(), Unavailable)
		time.Sleep(5 * time.Second)
		if err := wantError(t, u, blob(), Unavailable); err.RetryAfter != 15*time.Second {
			t.Errorf("retry after %v", err.RetryAfter)
		}
	})
}

func TestWrongContentOpensTheCircuit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"] = answer(200)
		u := n.upstream(t, "a")
		for range failuresToOpen {
			u.Endpoints()[0].Penalize(errors.New("wrong digest"))
		}
		if err := wantError(t, u, blob(), Unavailable); !strings.Contains(err.Error(), "wrong digest") {
			t.Errorf("got error %v", err)
		}
		n.wantAsked(t, "a", 0)
	})
}

func TestFailuresOfOneMomentCountOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork()
		n.hosts["a"] = answer(200)
		u := n.upstream(t, "a")
		for range 50 { // requests in flight when the connection broke
			u.Endpoints()[0].Penalize(errors.New("broken"))
		}
		if err := wantError(t, u, blob(), Unavailable); err.RetryAfter != firstPause {
			t.Errorf("retry after %v", err.RetryAfter)
		}
	})
}

func TestBodiesThatStallOpenTheCircuitAndCutOnesAreGoneOnWith(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		opened bool
	}{
		"stall": {nil, true},
		"cut":   {io.ErrUnexpectedEOF, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUpstream(t, Config{
					URLs: []string{"https://a"}, StallTimeout: time.Second, ResponseTimeout: time.Second,
					Transport: &pipe{length: -1, body: func() io.ReadCloser {
						r, w := io.Pipe()
						go func() {
							_, _ = w.Write([]byte("x"))
							if c.err != nil {
								w.CloseWithError(c.err)
							}
						}()
						return r
					}},
				})
				for range failuresToOpen {
					resp, err := u.Do(t.Context(), blob())
					if err != nil {
						t.Fatal(err)
					}
					if b, err := io.ReadAll(resp.Body); string(b) != "x" || err == nil {
						t.Errorf("read %q, %v", b, err)
					}
					resp.Body.Close()
				}
				if refusal := u.Endpoints()[0].admit(time.Now()); (refusal != nil) != c.opened {
					t.Errorf("circuit: %v", refusal)
				}
			})
		})
	}
}

func TestPausesAreSpread(t *testing.T) {
	n := newNetwork()
	u := n.upstream(t, "a")
	e := u.endpoints[0]
	e.jitter = func() float64 { return 0.5 }
	var pause time.Duration
	for range failuresToOpen {
		pause = e.failed(&Error{Kind: Unavailable}, time.Now())
	}
	if pause != 900*time.Millisecond {
		t.Errorf("paused for %v", pause)
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"5":                              5 * time.Second,
		" 5 ":                            5 * time.Second,
		"3601":                           time.Hour,
		"-5":                             0,
		"+5":                             0,
		"5.5":                            0,
		"soon":                           0,
		"99999999999999999999":           time.Hour,
		"Mon, 23 Nov 2026 10:00:30 GMT":  30 * time.Second,
		"Monday, 23-Nov-26 10:00:30 GMT": 30 * time.Second,
		"Mon, 23 Nov 2026 09:00:00 GMT":  0,
		"Tue, 24 Nov 2026 10:00:00 GMT":  time.Hour,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"5", "Mon, 23 Nov 2026 10:00:30 GMT", "-1", strconv.Itoa(1 << 62), "9999999999999999999999"} {
		f.Add(s, "Mon, 23 Nov 2026 10:00:00 GMT")
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		h := http.Header{"Retry-After": {value}, "Date": {date}}
		if d := retryAfter(h, time.Now()); d < 0 || d > maxRetryAfter {
			t.Errorf("%q after %q: %v", value, date, d)
		}
	})
}

func TestErrorTextsHaveNoSecrets(t *testing.T) {
	for text, want := range map[string]string{
		`Get "https://u:p@h:1/a?X-Amz-Signature=s3cret": EOF`: `Get "https://h:1/a": EOF`,
		"https://h/a#s3cret, then http://b@c":                 "https://h/a then http://c",
		"dial tcp 10.0.0.1:443: connection refused":           "dial tcp 10.0.0.1:443: connection refused",
		"://":            "://",
		"x://s3@cret@h/": "x://h/",
	} {
		if got := withoutSecrets(text); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	cause := errors.New("Get https://h/?s3cret")
	if err := clean(cause); !errors.Is(err, cause) || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}

package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"entrepot/geo/choice"
	"entrepot/geo/locate"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is the blob that mirrors should have.
func content() []byte {
	data := make([]byte, 300<<10)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

const nameDigest = digest.Digest("sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")

// goodMirror serves the blob and the name.
func goodMirror(blob []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.Contains(r.URL.Path, "/blobs/"):
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Docker-Content-Digest", string(nameDigest))
		default:
			w.WriteHeader(http.StatusOK)
		}
	}
}

func samples(blob []byte) Samples {
	d := digest.FromBytes(blob)
	return Samples{
		Content: func(*choice.Mirror) (Sample, bool) {
			return Sample{
				What: choice.Blob, Size: int64(len(blob)),
				Target: choice.Target{Namespace: "up", Repository: "app", Route: "blobs/" + string(d), Digest: d},
				Read: func(_ context.Context, offset, length int64) ([]byte, error) {
					return blob[offset : offset+length], nil
				},
			}, true
		},
		Name: func(*choice.Mirror) (Name, bool) {
			return Name{Target: choice.Target{Namespace: "up", Repository: "app", Route: "manifests/v1"}, Digest: nameDigest}, true
		},
	}
}

func listOf(t *testing.T, urls ...string) *choice.List {
	t.Helper()
	mirrors := make([]choice.Mirror, len(urls))
	for i, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		mirrors[i] = choice.Mirror{Name: fmt.Sprintf("m%d", i), URLs: []*url.URL{u}, Continent: locate.EU}
	}
	list, err := choice.NewList(mirrors, choice.Constants{})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func newProber(t *testing.T, cfg Config) *Prober {
	t.Helper()
	if cfg.Client == nil {
		transport := &http.Transport{}
		t.Cleanup(transport.CloseIdleConnections)
		cfg.Client = &http.Client{Transport: transport}
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAProbeTellsGoodMirrorsFromOthers(t *testing.T) {
	blob := content()
	rotten := bytes.Clone(blob)
	for i := range rotten {
		rotten[i] ^= 1
	}
	elsewhere := httptest.NewServer(goodMirror(blob))
	t.Cleanup(elsewhere.Close)
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		want    string
		atOnce  bool
		wrong   bool
	}{
		"good":            {goodMirror(blob), "", false, false},
		"without ranges":  {func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Range"); goodMirror(blob)(w, r) }, "", false, false},
		"wrong bytes":     {goodMirror(rotten), "are not those of", false, true},
		"cut short":       {goodMirror(blob[:1]), "416", false, false}, // hardly any range begins within
		"without content": {http.NotFound, "404", false, false},
		"another name": {func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Docker-Content-Digest", "sha256:other")
				return
			}
			goodMirror(blob)(w, r)
		}, "and should be", false, false},
		"redirect elsewhere": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", elsewhere.URL+"/v2/")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, "which is not on the list", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(row.handler)
			t.Cleanup(server.Close)
			p := newProber(t, Config{List: listOf(t, server.URL), Samples: samples(blob)})
			err := p.probe(t.Context(), p.list.Mirror(0))
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %q", err, row.want)
			}
			if _, fatal := errors.AsType[fatalError](err); fatal != row.atOnce {
				t.Errorf("down at once is %v: %v", fatal, err)
			}
			if _, wrong := errors.AsType[wrongError](err); wrong != row.wrong {
				t.Errorf("wrong bytes is %v: %v", wrong, err)
			}
		})
	}
}

func TestAFaultOfTLSTakesAMirrorDownAtOnce(t *testing.T) {
	server := httptest.NewTLSServer(goodMirror(nil))
	server.Config.ErrorLog = nil
	t.Cleanup(server.Close)
	p := newProber(t, Config{List: listOf(t, server.URL)}) // which does not trust its certificate
	if _, fatal := errors.AsType[fatalError](p.probe(t.Context(), p.list.Mirror(0))); !fatal {
		t.Error("a certificate that is not trusted is a failure like others")
	}
}

func TestADishonestMirrorIsQuarantinedUntilAPersonLiftsIt(t *testing.T) {
	blob := content()
	server := httptest.NewServer(goodMirror(bytes.Repeat([]byte{7}, len(blob))))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "quarantine.json")
	cfg := Config{List: listOf(t, server.URL), Samples: samples(blob), QuarantineFile: file}
	p := newProber(t, cfg)
	for range 2 {
		p.ProbeNow(t.Context(), p.list.Mirror(0))
	}
	for _, p := range []*Prober{p, newProber(t, cfg)} { // after a restart as well
		if _, states := p.States(); !states[0].Quarantined || p.Status()[0].Quarantined == "" {
			t.Errorf("%+v", states[0])
		}
	}
	if err := Lift(file, "other"); !errors.Is(err, ErrNotQuarantined) {
		t.Errorf("lifting another: %v", err)
	}
	if err := Lift(file, "m0"); err != nil {
		t.Fatal(err)
	}
	if err := p.readQuarantine(); err != nil {
		t.Fatal(err)
	}
	if _, states := p.States(); states[0].Quarantined {
		t.Error("the running prober did not see that it was lifted")
	}
}

func TestALiftLeavesTheFileToItsOwner(t *testing.T) {
	file := filepath.Join(t.TempDir(), "quarantine.json")
	if err := os.WriteFile(file, []byte(`{"m0": {}, "m1": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	owner := os.Geteuid()
	if owner == 0 { // root lifts what a router wrote
		owner = 65534
		if err := os.Chown(file, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	if err := Lift(file, "m0"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{file, file + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; int(got) != owner || info.Mode() != 0o600 {
			t.Errorf("%s is of %d with mode %v, want %d and 0600", name, got, info.Mode(), owner)
		}
	}
}

// Routers that share a file, and people who lift, write it at the same moment.
func TestQuarantinesAndLiftsAtOnceLoseNothing(t *testing.T) {
	const many = 12
	file := filepath.Join(t.TempDir(), "quarantine.json")
	urls := make([]string, 3*many)
	for i := range urls {
		urls[i] = fmt.Sprintf("https://m%d.example.org", i)
	}
	cfg := Config{List: listOf(t, urls...), QuarantineFile: file}
	isolate := func(p *Prober, i int) {
		for range 2 {
			p.WrongBytes(fmt.Sprintf("m%d", i), "wrong bytes")
		}
	}
	first := newProber(t, cfg)
	for i := range many {
		isolate(first, i)
	}
	routers := []*Prober{newProber(t, cfg), newProber(t, cfg)} // as of two processes
	var all sync.WaitGroup
	for i := range many {
		all.Go(func() {
			if err := Lift(file, fmt.Sprintf("m%d", i)); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() { isolate(routers[0], many+i) })
		all.Go(func() { isolate(routers[1], 2*many+i) })
	}
	all.Wait()
	got, err := ReadQuarantine(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * many {
		if _, isolated := got[fmt.Sprintf("m%d", i)]; isolated != (i >= many) {
			t.Errorf("m%d is quarantined: %v", i, isolated)
		}
	}
}

// A node sends ranges of a blob that is on its way to it, which it cannot verify yet;
// asked for the whole, it breaks off or sends what is right.
func TestARangeThatWasNotVerifiedYetIsNoReasonForAQuarantine(t *testing.T) {
	blob := content()
	wrong := bytes.Clone(blob)
	for i := range wrong {
		wrong[i] ^= 1
	}
	for name, row := range map[string]struct {
		range1, whole, range2 []byte // that it sends; nil is a transfer that breaks
		quarantined           bool
	}{
		"the whole is right":                {wrong, blob, blob, false},
		"the whole breaks off":              {wrong, nil, blob, false},
		"all is wrong":                      {wrong, wrong, wrong, true},
		"ranges are wrong, the whole never": {wrong, blob, wrong, true},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0 // in ranges
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body := row.whole
				if r.Header.Get("Range") != "" {
					body = [][]byte{row.range1, row.range2}[asked%2]
					asked++
				}
				if !strings.Contains(r.URL.Path, "/blobs/") {
					goodMirror(blob)(w, r)
					return
				}
				if body == nil {
					asked = 0
					w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
					_, _ = w.Write(wrong[:len(wrong)/2])
					return
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
			}))
			defer srv.Close()
			list := listOf(t, srv.URL)
			p := newProber(t, Config{List: list, Samples: samples(blob)})
			for range 2 {
				p.ProbeNow(t.Context(), list.Mirror(0))
			}
			s := p.Status()[0]
			if (s.Quarantined != "") != row.quarantined || s.Failures != 2 {
				t.Errorf("quarantined %q after %d failures: %s", s.Quarantined, s.Failures, s.Reason)
			}
		})
	}
}

func TestAQuarantineThatCannotBeWrittenHoldsAllTheSame(t *testing.T) {
	file := filepath.Join(t.TempDir(), "missing", "quarantine.json")
	p := newProber(t, Config{List: listOf(t, "https://a.example.org"), QuarantineFile: file})
	for range 2 {
		p.WrongBytes("m0", "bytes 0 to 9")
	}
	if err := p.readQuarantine(); err != nil {
		t.Fatal(err)
	}
	if _, states := p.States(); !states[0].Quarantined {
		t.Error("lifted by nobody")
	}
}

func TestBothSchemesOfAMirrorAreProbed(t *testing.T) {
	var failing atomic.Value
	client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.URL.Scheme == failing.Load() {
			return nil, errors.New("connection refused")
		}
		return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
	})}
	m := choice.Mirror{Name: "m0", URLs: []*url.URL{{Scheme: "http", Host: "a.example"}, {Scheme: "https", Host: "a.example"}}}
	list, err := choice.NewList([]choice.Mirror{m}, choice.Constants{})
	if err != nil {
		t.Fatal(err)
	}
	p := newProber(t, Config{List: list, Client: client})
	for _, scheme := range []string{"", "http", "https"} {
		failing.Store(scheme)
		if err := p.probe(t.Context(), list.Mirror(0)); (err == nil) != (scheme == "") {
			t.Errorf("%q fails: %v", scheme, err)
		}
	}
}

func TestAChangedListIsProbedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "gone.example" {
				return nil, errors.New("connection refused")
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
		})}
		p := newProber(t, Config{List: listOf(t, "https://a.example"), Client: client})
		ctx, end := context.WithCancel(t.Context())
		go p.Run(ctx)
		time.Sleep(time.Second)
		p.SetList(listOf(t, "https://gone.example", "https://b.example"))
		synctest.Wait()
		if _, states := p.States(); !states[0].Up || !states[1].Up {
			t.Errorf("at once: %+v", states)
		}
		time.Sleep(3 * time.Second)
		if _, states := p.States(); states[0].Up {
			t.Error("after 3 s, that of which the URL changed to one where nobody is counts as up")
		}
		end()
		synctest.Wait()
	})
}

func TestAFileOfQuarantinesThatCannotBeReadIsNotForgotten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "quarantine.json")
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{List: listOf(t, "https://a.example.org"), QuarantineFile: file}); err == nil || !strings.Contains(err.Error(), "mend the file") {
		t.Errorf("%v", err)
	}
}

func TestAContinentIsFrozenWhenMoreThanHalfOfItFallsWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProber(t, Config{List: listOf(t, "https://a.example", "https://b.example", "https://c.example", "https://d.example")})
		for _, m := range p.machines {
			m.success(time.Now())
		}
		fall := func(names ...string) {
			for _, name := range names {
				p.machines[name].failure(time.Now(), "gone", true)
			}
		}
		frozen := func() bool {
			_, states := p.States()
			return states[0].Frozen
		}
		if fall("m0", "m1"); frozen() {
			t.Error("frozen by half of it")
		}
		time.Sleep(2 * time.Minute)
		if fall("m2"); frozen() {
			t.Error("frozen by falls that are two minutes apart")
		}
		p.machines["m0"].up, p.machines["m1"].up = true, true
		if fall("m0", "m1"); !frozen() {
			t.Error("three of four fell within a minute, and it is not frozen")
		}
		p.machines["m1"].up = true
		if frozen() {
			t.Error("frozen with half of it up")
		}
	})
}

func TestEveryMirrorIsProbedAgainAndAgainAndAChangedListKeepsStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		client := &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
		})}
		p := newProber(t, Config{List: listOf(t, "https://a.example", "https://b.example"), Client: client})
		ctx, end := context.WithCancel(t.Context())
		go p.Run(ctx)
		time.Sleep(100 * time.Second)
		synctest.Wait()
		if n := asked.Load(); n < 2*8 || n > 2*13 {
			t.Errorf("%d probes of two mirrors in 100 s", n)
		}
		p.SetList(listOf(t, "https://a.example"))
		if list, states := p.States(); list.Len() != 1 || !states[0].Up {
			t.Errorf("after the change: %+v", states)
		}
		end()
		synctest.Wait()
	})
}

// Who asks by continent, or for a mirror that is gone, gets what the list says now.
func TestMetricsTellWhatTheMirrorsOfTheListAre(t *testing.T) {
	list := func(name, country, continent string) *choice.List {
		u, err := url.Parse("https://" + name + ".example")
		if err != nil {
			t.Fatal(err)
		}
		m := choice.Mirror{Name: name, URLs: []*url.URL{u}, Tier: choice.Origin}
		if m.Country, err = locate.ParseCountry(country); err != nil {
			t.Fatal(err)
		}
		if m.Continent, err = locate.ParseContinent(continent); err != nil {
			t.Fatal(err)
		}
		l, err := choice.NewList([]choice.Mirror{m}, choice.Constants{})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	reg := prometheus.NewRegistry()
	p := newProber(t, Config{List: list("a", "DE", "EU"), Registerer: reg})
	p.SetList(list("b", "KE", "AF"))
	scrape := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(scrape, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	const want = `entrepot_mirror_info{continent="AF",country="KE",mirror="b",tier="origin"} 1`
	if text := scrape.Body.String(); !strings.Contains(text, want+"\n") || strings.Count(text, "entrepot_mirror_info{") != 1 {
		t.Errorf("not only %s in\n%s", want, text)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAMirrorIsAskedOnceForContentAndTheAnswerHoldsForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		status := http.StatusOK
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			select {
			case <-time.After(100 * time.Millisecond):
				return &http.Response{StatusCode: status, Body: http.NoBody}, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})}
		p := NewPresence(PresenceConfig{Client: client})
		defer p.Close()
		m := listOf(t, "https://a.example").Mirror(0)
		target := &choice.Target{Namespace: "up", Repository: "app", Route: "blobs/x"}
		has := func() (bool, error) { return p.Has(t.Context(), m, true, target) }
		for range 20 {
			go func() { _, _ = has() }()
		}
		time.Sleep(time.Second)
		if ok, err := has(); !ok || err != nil || asked.Load() != 1 {
			t.Errorf("found %v, %v, asked %d times", ok, err, asked.Load())
		}
		status = http.StatusNotFound
		time.Sleep(25 * time.Hour)
		if ok, err := has(); ok || err != nil || asked.Load() != 2 {
			t.Errorf("a day later: found %v, %v, asked %d times", ok, err, asked.Load())
		}
		status = http.StatusOK
		time.Sleep(31 * time.Second)
		if ok, err := has(); !ok || err != nil {
			t.Errorf("31 s later: found %v, %v", ok, err)
		}
		target.Route, status = "blobs/y", http.StatusBadGateway
		if _, err := has(); err == nil {
			t.Error("an error was taken for an answer")
		}
		status = http.StatusOK
		if ok, err := has(); !ok || err != nil {
			t.Errorf("after the error: %v, %v", ok, err)
		}
	})
}

func TestASlowMirrorIsNotWaitedForAndItsAnswerIsThereForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			if r.Header.Get("Accept") != acceptAll {
				t.Errorf("asked for %q", r.Header.Get("Accept"))
			}
			select {
			case <-time.After(time.Second):
				return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, ContentLength: 7}, nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		})}
		p := NewPresence(PresenceConfig{Client: client})
		defer p.Close()
		m, target := listOf(t, "https://a.example").Mirror(0), &choice.Target{Namespace: "up", Repository: "app", Route: "blobs/x"}
		var told atomic.Int64
		p.Tell(m, target, func(size int64) { told.Add(size) })
		start := time.Now()
		_, err := p.Has(t.Context(), m, true, target)
		if took := time.Since(start); err == nil || took != DefaultAskWithin {
			t.Errorf("%v after %v", err, took)
		}
		time.Sleep(time.Second)
		start = time.Now()
		if size, err := p.Size(t.Context(), m, target); size != 7 || err != nil || time.Since(start) > 0 || asked.Load() != 1 {
			t.Errorf("then: %d bytes, %v, after %v, asked %d times", size, err, time.Since(start), asked.Load())
		}
		p.Tell(m, target, func(size int64) { told.Add(size) })
		if told.Load() != 14 {
			t.Errorf("told of %d bytes, want 7 twice", told.Load())
		}
	})
}

func TestNoMoreThanSoManyQuestionsAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}
		p := NewPresence(PresenceConfig{Client: client})
		m := listOf(t, "https://a.example").Mirror(0)
		for i := range 2 * maxQuestions {
			p.Tell(m, &choice.Target{Repository: "app", Route: fmt.Sprintf("blobs/%d", i)}, func(int64) { t.Error("told") })
		}
		synctest.Wait()
		start := time.Now()
		if _, err := p.Has(t.Context(), m, true, &choice.Target{Repository: "app", Route: "blobs/x"}); err == nil || time.Since(start) > 0 {
			t.Errorf("one more: %v after %v", err, time.Since(start))
		}
		if p.Close(); asked.Load() != maxQuestions {
			t.Errorf("asked %d times", asked.Load())
		}
	})
}

func TestAMirrorThatLeadsElsewhereIsNotFollowed(t *testing.T) {
	var inside atomic.Int64
	neighbour := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { inside.Add(1) }))
	t.Cleanup(neighbour.Close)
	server := httptest.NewServer(http.RedirectHandler(neighbour.URL+"/latest/meta-data", http.StatusFound))
	t.Cleanup(server.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	p := NewPresence(PresenceConfig{Client: &http.Client{Transport: transport}})
	defer p.Close()
	has, err := p.Has(t.Context(), listOf(t, server.URL).Mirror(0), false, &choice.Target{Repository: "app", Route: "blobs/x"})
	if has || err == nil || inside.Load() != 0 {
		t.Errorf("has it: %v, %v, asked the neighbour %d times", has, err, inside.Load())
	}
}

func TestWhatAPresenceRemembersIsBounded(t *testing.T) {
	p := NewPresence(PresenceConfig{Remember: 100})
	for i := range 1000 {
		p.remember(fmt.Sprint(i), &answer{has: true})
	}
	if n := len(p.young) + len(p.old); n > 100 {
		t.Errorf("%d answers are kept", n)
	}
	if _, ok := p.recall("999"); !ok {
		t.Error("the newest is forgotten")
	}
}

func TestASuspectIsProbedAtOnceUntilItIsKnownToBeDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failing atomic.Bool
		var asked atomic.Int32
		client := &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			if failing.Load() {
				return nil, errors.New("connection refused")
			}
			return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
		})}
		p, err := New(Config{List: listOf(t, "https://a.example"), Client: client})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.Run(ctx)
		}()
		defer func() {
			cancel()
			<-ended
		}()
		time.Sleep(2 * time.Second)
		for range 100 { // clients come back, and the mirror is well
			p.Suspect("m0")
			time.Sleep(10 * time.Millisecond)
		}
		if n := asked.Load(); n > 4 {
			t.Errorf("it was probed %d times in 3 s", n)
		}
		failing.Store(true)
		p.Suspect("m0")
		p.Suspect("nobody")
		time.Sleep(3500 * time.Millisecond)
		if _, states := p.States(); states[0].Up {
			t.Error("it is up after 3.5 s")
		}
	})
}

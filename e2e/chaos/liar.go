package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// liarName is the mirror's in the router's list.
const liarName = "liar"

// caughtWithin is after how long at most a mirror that sends wrong bytes has to be
// out of use.
const caughtWithin = 10 * time.Second

// liar is a mirror that anybody could run: it is of tier community, and as near to
// clients in eu as the node there. It has all that is promoted, and sends it right or,
// for a while, wrong: to the router's probes and to clients, whole and in ranges.
type liar struct {
	relay      *testenv.Relay // at which it is asked
	quarantine string         // the router's file
	mu         sync.Mutex
	bodies     map[string][]byte // of files, and what was asked for of images
	staging    string            // base URL of who has the images
	lies       atomic.Bool
	lied       atomic.Int64 // answers
	compared   atomic.Bool  // the router asked for content since it was last started by us
	isOut      atomic.Bool  // it was quarantined so long ago that no client should come
}

func (w *world) startLiar() *liar {
	l := &liar{quarantine: filepath.Join(w.t.TempDir(), "quarantine.json"), bodies: map[string][]byte{}}
	server := httptest.NewServer(l)
	w.t.Cleanup(server.Close)
	l.relay = testenv.StartRelayFor(w.t, w.place("router"), server.Listener.Addr().String())
	return l
}

// entry is the mirror's in the router's list.
func (l *liar) entry() map[string]any {
	return map[string]any{
		"name": liarName, "urls": []string{l.relay.URL()}, "tier": "community",
		"country": "DE", "lat": "50.1", "lon": "8.7",
	}
}

// stock gives it what is promoted, now or later.
func (l *liar) stock(staging string, items []item) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.staging = staging
	for _, i := range items {
		if i.routed != "" {
			l.bodies[i.path], l.bodies[i.routed] = i.body, i.body
		}
	}
}

// body is what is at a path; nil where there is nothing. Of images there is more than
// clients ask for: other platforms.
func (l *liar) body(path string) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if body, ok := l.bodies[path]; ok {
		return body
	}
	below, ok := strings.CutPrefix(path, "/v2/"+testenv.WorldImages+"/")
	if !ok {
		return nil
	}
	response, err := http.Get(l.staging + "/v2/" + below)
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil
	}
	l.bodies[path] = body
	return body
}

// is says whether a host is the mirror.
func (l *liar) is(host string) bool { return host == l.relay.Address() }

// ServeHTTP serves what it has.
func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := l.body(r.URL.Path)
	if body == nil {
		http.NotFound(w, r)
		return
	}
	if r.Header.Get("Range") != "" && strings.Contains(r.Header.Get("Accept"), "docker.distribution.manifest.list") {
		l.compared.Store(true) // as no client here asks for a blob
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
	if l.lies.Load() {
		l.lied.Add(1)
		body = bytes.Clone(body)
		for i := range body {
			body[i] ^= 1
		}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// isQuarantined says whether the router has put the mirror in quarantine, and written
// that down.
func (w *world) isQuarantined() bool {
	text, err := read(w.Router.AdminURL() + "/metrics")
	file, _ := os.ReadFile(w.liar.quarantine) // it is not there before there is one
	return err == nil && strings.Contains(string(file), `"`+liarName+`"`) &&
		strings.Contains(text, "entrepot_mirror_quarantined{mirror=\""+liarName+"\",role=\"router\"} 1")
}

// lie has the mirror send wrong bytes until the router has found that out. The router
// is then killed, and has to remember it.
func (w *world) lie(event) (func(), bool) {
	const cable = "cable of router" // without it, or the router, nobody would find out
	if w.isDown["router"] || w.isDown[cable] || !w.liar.compared.Load() || w.isQuarantined() {
		return nil, false
	}
	w.isDown["router"], w.isDown[cable] = true, true
	before := w.liar.lied.Load()
	w.liar.lies.Store(true)
	caught := make(chan bool, 1)
	go func() {
		for start := time.Now(); time.Since(start) < caughtWithin; {
			if w.isQuarantined() {
				w.tally.most(caughtAfter, time.Since(start).Milliseconds())
				caught <- true
				return
			}
			if pause.For(w.t.Context(), 100*time.Millisecond) != nil {
				break
			}
		}
		caught <- false
	}()
	return func() {
		w.endLies(<-caught)
		w.bit("dishonest mirror", w.liar.lied.Load()-before)
		w.isDown["router"], w.isDown[cable] = false, false
	}, true
}

// endLies kills the router of which the mirror was caught, and then lifts the mirror's
// quarantine.
func (w *world) endLies(caught bool) {
	if !caught {
		w.tally.add(uncaught, 1)
		text, _ := read(w.Router.AdminURL() + "/metrics")
		w.t.Errorf("a mirror sent wrong bytes for %v and was not quarantined\n%s", caughtWithin, regexp.MustCompile(`(?m)^.*liar.*$`).FindAllString(text, -1))
	}
	_ = pause.For(w.t.Context(), time.Second) // for who was sent there before
	w.liar.isOut.Store(true)
	w.liar.compared.Store(false)
	w.processes["router"].Kill()
	w.processes["router"].Restart()
	_ = pause.For(w.t.Context(), time.Second) // clients ask it
	if caught && !w.isQuarantined() {
		w.tally.add(uncaught, 1)
		w.t.Errorf("the router was killed, and forgot that a mirror is quarantined")
	}
	w.liar.lies.Store(false)
	w.liar.isOut.Store(false)
	said, err := w.command("geo", "lift", "--config", w.Router.ConfigFile(), liarName).CombinedOutput()
	if err != nil && caught {
		w.t.Errorf("lifting the quarantine: %v\n%s", err, said)
	}
}

// honestAreTrusted checks that no mirror is in quarantine that never lied.
func (w *world) honestAreTrusted() {
	text, err := os.ReadFile(w.liar.quarantine)
	if err != nil && !os.IsNotExist(err) {
		w.t.Errorf("reading who is quarantined: %v", err)
	}
	for _, r := range w.Regions {
		if strings.Contains(string(text), `"`+r.Name+`"`) {
			w.tally.add(slandered, 1)
			w.t.Errorf("%s is quarantined, and never sent a wrong artifact:\n%s", r.Name, text)
		}
	}
}

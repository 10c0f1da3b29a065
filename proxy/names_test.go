package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/proxy/upstream"
)

func TestFreshnessIsDecidedByAge(t *testing.T) {
	p := Policy{TTL: 5 * time.Minute, StaleWhileRevalidate: time.Hour}
	bounded := p
	bounded.MaxStale = 2 * time.Hour
	for _, c := range []struct {
		name   string
		policy Policy
		age    time.Duration
		want   action
	}{
		{"just checked", p, 0, serve},
		{"within TTL", p, 5*time.Minute - 1, serve},
		{"at TTL", p, 5 * time.Minute, serveAndCheck},
		{"before the window ends", p, 65*time.Minute - 1, serveAndCheck},
		{"after the window", p, 65 * time.Minute, checkThenServe},
		{"a year later", p, 365 * 24 * time.Hour, checkThenServe},
		{"bounded, within", bounded, 2 * time.Hour, checkThenServe},
		{"bounded, past", bounded, 2*time.Hour + 5*time.Minute, checkOnly},
		{"no TTL, no window", Policy{}, 0, checkThenServe},
	} {
		if got := c.policy.decide(c.age); got != c.want {
			t.Errorf("%s: action %d; want %d", c.name, got, c.want)
		}
	}
}

// fakeUpstream is what a names' check asks in these tests.
type fakeUpstream struct {
	value  string
	err    error
	delay  time.Duration
	checks atomic.Int32
}

// fakeNames is names over a fake upstream and a map for records.
func fakeNames(t *testing.T, up *fakeUpstream) (*names[string], map[string]string) {
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	records := map[string]string{}
	n := newNames[string](16)
	n.load = func(key nameKey) (string, time.Time, bool, error) {
		v, ok := records[key.ref]
		return v, time.Time{}, ok, nil
	}
	n.save = func(key nameKey, v string, _ time.Time, _ bool) { records[key.ref] = v }
	n.drop = func(key nameKey) { delete(records, key.ref) }
	n.touch = func(nameKey) {}
	n.equal = func(a, b string) bool { return a == b }
	n.spawn = func(f func(context.Context)) bool { go f(ctx); return true }
	n.check = func(ctx context.Context, _ nameKey, _ string, _, _ bool) (string, error) {
		up.checks.Add(1)
		if err := pause.For(ctx, up.delay); err != nil {
			return "", err
		}
		return up.value, up.err
	}
	return n, records
}

var fakePolicy = Policy{TTL: time.Minute, StaleWhileRevalidate: time.Hour, NegativeTTL: 10 * time.Second}

func TestStaleNameIsAnsweredAtOnceAndCheckedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{value: "one"}
		n, _ := fakeNames(t, up)
		key := nameKey{ref: "v1"}
		if a, err := n.get(t.Context(), key, &fakePolicy, false); err != nil || a.value != "one" || !a.fresh || !a.asked {
			t.Fatalf("cold: %+v, %v", a, err)
		}
		time.Sleep(30 * time.Second)
		if a, _ := n.get(t.Context(), key, &fakePolicy, false); a.asked || !a.fresh || a.age != 30*time.Second {
			t.Fatalf("fresh: %+v", a)
		}
		time.Sleep(time.Minute)
		up.value, up.delay = "two", 3*time.Second
		for range 10 {
			start := time.Now()
			a, err := n.get(t.Context(), key, &fakePolicy, false)
			if err != nil || a.value != "one" || a.fresh || a.failure != "revalidating" || time.Since(start) != 0 {
				t.Fatalf("stale while revalidating: %+v, %v after %v", a, err, time.Since(start))
			}
		}
		time.Sleep(4 * time.Second)
		if a, _ := n.get(t.Context(), key, &fakePolicy, false); a.value != "two" || !a.fresh {
			t.Fatalf("after the check: %+v", a)
		}
		if got := up.checks.Load(); got != 2 {
			t.Errorf("upstream was asked %d times; want 2", got)
		}
	})
}

func TestNameIsServedStaleWithoutLimitWhileUpstreamIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{value: "one"}
		n, _ := fakeNames(t, up)
		key := nameKey{ref: "v1"}
		if _, err := n.get(t.Context(), key, &fakePolicy, false); err != nil {
			t.Fatal(err)
		}
		up.err = &upstream.Error{Kind: upstream.Unavailable, Err: errors.New("refused")}
		time.Sleep(30 * 24 * time.Hour)
		a, err := n.get(t.Context(), key, &fakePolicy, false)
		if err != nil || a.value != "one" || a.failure != "upstream-down" {
			t.Fatalf("%+v, %v", a, err)
		}
		checks := up.checks.Load()
		for range 100 {
			if _, err := n.get(t.Context(), key, &fakePolicy, false); err != nil {
				t.Fatal(err)
			}
		}
		if up.checks.Load() != checks {
			t.Error("upstream is asked again at once though it is down")
		}
	})
}

func TestUpstreamThatHangsCostsARequestFiveSecondsAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{value: "one"}
		n, _ := fakeNames(t, up)
		key := nameKey{ref: "v1"}
		if _, err := n.get(t.Context(), key, &fakePolicy, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(48 * time.Hour)
		up.delay = time.Hour
		start := time.Now()
		a, err := n.get(t.Context(), key, &fakePolicy, false)
		if err != nil || a.value != "one" || a.failure != "upstream-slow" || time.Since(start) != foregroundTimeout {
			t.Fatalf("%+v, %v after %v", a, err, time.Since(start))
		}
		time.Sleep(checkTimeout)
	})
}

func TestRefusalOfUpstreamEndsAStaleName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{value: "one"}
		n, records := fakeNames(t, up)
		key := nameKey{ref: "v1"}
		if _, err := n.get(t.Context(), key, &fakePolicy, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		up.err = &upstream.Error{Kind: upstream.NotFound, Status: http.StatusNotFound}
		if a, err := n.get(t.Context(), key, &fakePolicy, false); err != nil || a.value != "one" {
			t.Fatalf("%+v, %v", a, err)
		}
		synctest.Wait()
		for range 5 {
			if _, err := n.get(t.Context(), key, &fakePolicy, false); !isRefusal(err) {
				t.Fatalf("a deleted name is answered: %v", err)
			}
		}
		if len(records) != 0 {
			t.Error("the record was kept")
		}
		if got := up.checks.Load(); got != 2 {
			t.Errorf("upstream was asked %d times; want 2: absence is remembered", got)
		}
		time.Sleep(11 * time.Second)
		up.err = nil
		if a, err := n.get(t.Context(), key, &fakePolicy, false); err != nil || a.value != "one" {
			t.Fatalf("the name is back, but: %+v, %v", a, err)
		}
	})
}

func TestRateLimitIsHonouredBetweenChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := &fakeUpstream{value: "one"}
		n, _ := fakeNames(t, up)
		key := nameKey{ref: "v1"}
		if _, err := n.get(t.Context(), key, &fakePolicy, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		up.err = &upstream.Error{Kind: upstream.RateLimited, Status: 429, RetryAfter: 10 * time.Minute}
		for range 9 {
			if _, err := n.get(t.Context(), key, &fakePolicy, false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if got := up.checks.Load(); got != 2 {
			t.Errorf("upstream was asked %d times in the time it asked for", got)
		}
	})
}

func TestTagIsAnsweredWithoutUpstreamAndSurvivesARestart(t *testing.T) {
	up := newScript(t)
	body := `{"schemaVersion":2,"a":1}`
	d := up.manifest("app", "v1", body)
	dir := t.TempDir()
	n := startNode(t, dir, []string{up.URL})
	g := n.get(t, "/v2/app/manifests/v1")
	g.wantBytes(t, 200, []byte(body))
	if g.header.Get("Docker-Content-Digest") != string(d) || g.header.Get("Content-Type") != "application/vnd.oci.image.manifest.v1+json" {
		t.Errorf("headers: %v", g.header)
	}
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(body))
	n.get(t, "/v2/app/manifests/"+string(d)).wantBytes(t, 200, []byte(body))
	if len(up.log()) != 1 {
		t.Errorf("upstream was asked %q", up.log())
	}
	n.close()
	up.Close()
	n = startNode(t, dir, []string{up.URL})
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(body))
	n.get(t, "/v2/app/manifests/"+string(d)).wantBytes(t, 200, []byte(body))
}

func TestStaleTagSaysSoWhenUpstreamIsDown(t *testing.T) {
	up := newScript(t)
	up.manifest("app", "v1", `{"schemaVersion":2}`)
	n := startNode(t, t.TempDir(), []string{up.URL}, withPolicy(Policy{}))
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	up.Close()
	g := n.get(t, "/v2/app/manifests/v1")
	g.wantBytes(t, 200, []byte(`{"schemaVersion":2}`))
	if cs := g.header.Get("Cache-Status"); !strings.Contains(cs, "hit") || !strings.Contains(cs, "ttl=") || !strings.Contains(cs, "upstream-down") {
		t.Errorf("Cache-Status is %q", cs)
	}
	if g.header.Get("Age") == "" {
		t.Error("Age is missing")
	}
}

func TestMovedTagIsCheckedWithOneHeadAndThenServed(t *testing.T) {
	up := newScript(t)
	up.manifest("app", "v1", `{"a":1}`)
	n := startNode(t, t.TempDir(), []string{up.URL}, withPolicy(Policy{}))
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"a":1}`))
	up.do(nil)
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"a":1}`))
	if log := up.log(); len(log) != 1 || !strings.HasPrefix(log[0], "HEAD ") {
		t.Errorf("an unchanged tag was checked with %q; want one HEAD", log)
	}
	up.manifest("app", "v1", `{"a":2}`)
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"a":2}`))
}

func TestColdHeadOfATagDoesNotFetchTheManifest(t *testing.T) {
	up := newScript(t)
	d := up.manifest("app", "v1", `{"a":1}`)
	n := startNode(t, t.TempDir(), []string{up.URL})
	g := n.head(t, "/v2/app/manifests/v1")
	if g.status != 200 || g.header.Get("Docker-Content-Digest") != string(d) || g.header.Get("Content-Length") != "7" {
		t.Fatal(g)
	}
	if up.gets() != 0 {
		t.Errorf("upstream was asked %q", up.log())
	}
	n.get(t, "/v2/app/manifests/"+string(d)).wantBytes(t, 200, []byte(`{"a":1}`))
}

func TestColdHeadOfABlobIsAnsweredFromTheManifestThatNamedIt(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(1000, 1)
	up.manifest("app", "v1", `{"layers":[{"digest":"`+string(d)+`","size":1000}]}`)
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, "/v2/app/manifests/v1")
	up.do(nil)
	g := n.head(t, blobPath(d))
	if g.status != 200 || g.header.Get("Content-Length") != "1000" {
		t.Fatal(g)
	}
	if len(up.log()) != 0 {
		t.Errorf("upstream was asked %q", up.log())
	}
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
}

func TestManifestOfFiveMebibytesIsRefusedAndNotStored(t *testing.T) {
	up := newScript(t)
	d := up.manifest("app", "v1", strings.Repeat("x", 5<<20))
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, "/v2/app/manifests/v1").wantError(t, 502, "MANIFEST_INVALID")
	n.get(t, "/v2/app/manifests/"+string(d)).wantError(t, 502, "MANIFEST_INVALID")
	if n.stored(t, d) {
		t.Error("it was stored")
	}
}

func TestManifestIsKeptForTheRepositoryThatHoldsIt(t *testing.T) {
	up := newScript(t)
	d := up.manifest("app", "v1", `{"a":1}`)
	n := startNode(t, t.TempDir(), []string{up.URL})
	n.get(t, "/v2/app/manifests/v1").wantBytes(t, 200, []byte(`{"a":1}`))
	n.get(t, "/v2/other/manifests/"+string(d)).wantError(t, 404, "MANIFEST_UNKNOWN")
}

func TestTagListIsKeptWholeAndPagedHere(t *testing.T) {
	up := newScript(t)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Query().Get("next_page") == "" {
			w.Header().Set("Link", `</v2/app/tags/list?next_page=opaque>; rel="next"`)
			_, _ = w.Write([]byte(`{"name":"app","tags":["a","b"]}`))
		} else {
			_, _ = w.Write([]byte(`{"name":"app","tags":["c","d"]}`))
		}
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL})
	for _, c := range []struct{ query, want, link string }{
		{"", `["a","b","c","d"]`, ""},
		{"?n=3", `["a","b","c"]`, "last=c"},
		{"?n=3&last=c", `["d"]`, ""},
		{"?last=bb", `["c","d"]`, ""},
		{"?n=0", `[]`, ""},
	} {
		g := n.get(t, "/v2/app/tags/list"+c.query)
		if g.status != 200 || !strings.Contains(strings.ReplaceAll(string(g.body), " ", ""), `"tags":`+c.want) {
			t.Errorf("%s: %v; want %s", c.query, g, c.want)
		}
		if link := g.header.Get("Link"); (c.link == "") != (link == "") || !strings.Contains(link, c.link) {
			t.Errorf("%s: Link is %q; want %q in it", c.query, link, c.link)
		}
	}
	up.Close()
	if g := n.get(t, "/v2/app/tags/list?n=1"); g.status != 200 {
		t.Errorf("with upstream gone: %v", g)
	}
	if len(up.log()) != 2 {
		t.Errorf("upstream was asked %q", up.log())
	}
}

func TestReferrersFallBackToTheTagWhereUpstreamHasNoAPI(t *testing.T) {
	up := newScript(t)
	d := up.manifest("app", "v1", `{"a":1}`)
	index := `{"schemaVersion":2,"manifests":[` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d) + `","size":7,"artifactType":"a/b"},` +
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d) + `","size":7,"artifactType":"c/d"}]}`
	up.manifest("app", strings.Replace(string(d), ":", "-", 1), index)
	n := startNode(t, t.TempDir(), []string{up.URL})
	if g := n.get(t, "/v2/app/referrers/"+string(d)); g.status != 200 || strings.Count(string(g.body), "artifactType") != 2 {
		t.Error(g)
	}
	g := n.get(t, "/v2/app/referrers/"+string(d)+"?artifactType=a%2Fb")
	if g.status != 200 || strings.Count(string(g.body), "artifactType") != 1 || g.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Error(g)
	}
	g = n.get(t, "/v2/app/referrers/sha256:"+strings.Repeat("0", 64))
	if g.status != 200 || !strings.Contains(string(g.body), `"manifests":[]`) {
		t.Errorf("no referrers: %v", g)
	}
}

func TestUpstreamIsChosenByNamespaceThenPathThenHostThenDefault(t *testing.T) {
	hub, other := newScript(t), newScript(t)
	hub.manifest("app", "v1", `{"at":"hub"}`)
	hub.manifest("other.example.org/app", "v1", `{"at":"hub, odd"}`)
	other.manifest("app", "v1", `{"at":"other"}`)
	n := startNode(t, t.TempDir(), []string{hub.URL}, func(c *Config) {
		second := c.Upstreams[0]
		second.Name, second.URLs = "other.example.org", []string{other.URL}
		c.Upstreams = append(c.Upstreams, second)
	})
	for _, c := range []struct{ path, want string }{
		{"/v2/app/manifests/v1", `{"at":"hub"}`},
		{"/v2/app/manifests/v1?ns=other.example.org", `{"at":"other"}`},
		{"/v2/other.example.org/app/manifests/v1", `{"at":"other"}`},
		{"/v2/docker.io/app/manifests/v1", `{"at":"hub"}`},
		{"/v2/other.example.org/app/manifests/v1?ns=docker.io", `{"at":"hub, odd"}`},
	} {
		n.get(t, c.path).wantBytes(t, 200, []byte(c.want))
	}
	for _, path := range []string{"/v2/app/manifests/v1?ns=evil.example.org", "/v2/evil.example.org/app/manifests/v1"} {
		g := n.get(t, path)
		g.wantError(t, 404, "NAME_UNKNOWN")
		if !strings.Contains(string(g.body), "evil.example.org") {
			t.Errorf("%s: the message does not name the upstream: %s", path, g.body)
		}
	}
}

func TestNextQueryOfALinkHeader(t *testing.T) {
	for link, want := range map[string]string{
		`</v2/app/tags/list?n=2&last=b>; rel="next"`:                     "n=2&last=b",
		`<https://other/?y>; rel=next`:                                   "y",
		`</v2/app/tags/list?after=a,b>; rel="next"`:                      "after=a,b",
		`</first?p=1>; rel="first", </v2/app/tags/list?p=3>;rel=next`:    "p=3",
		`</v2/app/tags/list?p=3>; rel="next", </first?p=1>; rel="first"`: "p=3",
		`</v2/app/tags/list?last=a b>; rel="next"`:                       "last=a%20b",
		`</v2/app/tags/list?p=3>; rel="prev"`:                            "",
		`</v2/app/tags/list?p=3; rel="next"`:                             "",
	} {
		if got := nextQuery([]string{link}); got != want {
			t.Errorf("%s: %q, want %q", link, got, want)
		}
	}
}

func FuzzNextQueryOfALinkHeader(f *testing.F) {
	f.Add(`</v2/app/tags/list?n=2&last=b>; rel="next"`)
	f.Add(`<http://elsewhere/x?y>;rel=next, <a>; rel=prev`)
	f.Add(`<>;;;=,<`)
	f.Fuzz(func(t *testing.T, link string) {
		q := nextQuery([]string{link})
		if q != "" && !strings.Contains(strings.ToLower(link), "next") {
			t.Errorf("%q is taken for a link to the next page: %q", link, q)
		}
		if strings.ContainsFunc(q, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) {
			t.Errorf("%q gives a query that cannot be sent: %q", link, q)
		}
	})
}

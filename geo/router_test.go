package geo

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"entrepot/geo/choice"
	"entrepot/geo/locate"
	"entrepot/promote/ledger"
	"entrepot/registry/access"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	berlin   = "192.0.2.1"
	tokyo    = "2001:db8::1"
	nowhere  = "203.0.113.9"
	aDigest  = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	forwards = "10.0.0.1"
)

// setting is a router and what it is told.
type setting struct {
	*Router
	t      *testing.T
	states []choice.State
	list   *choice.List
	lacks  map[string]bool // mirrors that say they lack all
	seen   []Observation
	size   int64 // that the origin says; negative when it does not
}

func mirror(t *testing.T, name string, tier choice.Tier, country string, lat, lon float64) choice.Mirror {
	t.Helper()
	c, err := locate.ParseCountry(country)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse("https://" + name + ".example.org")
	if err != nil {
		t.Fatal(err)
	}
	return choice.Mirror{Name: name, Tier: tier, Country: c, Lat: lat, Lon: lon, URLs: []*url.URL{u}}
}

// newSetting has an origin in America, trusted mirrors in France and Japan,
// and a community mirror in Germany that is the nearest of all to Berlin.
func newSetting(t *testing.T, change ...func(*Config)) *setting {
	t.Helper()
	s := &setting{t: t, lacks: map[string]bool{}}
	mirrors := []choice.Mirror{
		mirror(t, "origin", choice.Origin, "US", 41.3, -95.9),
		mirror(t, "eu", choice.Trusted, "FR", 43.3, 5.4),
		mirror(t, "jp", choice.Trusted, "JP", 35.7, 139.7),
		mirror(t, "uni", choice.Community, "DE", 52.5, 13.4),
	}
	mirrors[3].Incomplete = true
	s.setMirrors(mirrors)
	patterns := func(texts ...string) (ps []access.Pattern) {
		for _, text := range texts {
			p, err := access.ParsePattern(text)
			if err != nil {
				t.Fatal(err)
			}
			ps = append(ps, p)
		}
		return ps
	}
	cfg := Config{
		Mirrors:    func() (*choice.List, []choice.State) { return s.list, s.states },
		Locate:     locateTest,
		Forwarders: locate.NewForwarders([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}),
		Presence:   s,
		Images: []Images{
			{Name: "docker.io"},
			{Name: "private.example", Private: true},
		},
		DefaultImages: "docker.io",
		Files: []Files{{
			Name: "dl", Immutable: patterns("release/v*/**"), Moving: patterns("**/stable.txt"),
			Ledger: testLedger(t), Destinations: []string{"https://dl.example.org"},
		}},
		DefaultFiles: "dl",
		Done:         func(o *Observation) { s.seen = append(s.seen, *o) },
	}
	for _, f := range change {
		f(&cfg)
	}
	rt, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Router = rt
	return s
}

func (s *setting) setMirrors(mirrors []choice.Mirror) {
	s.t.Helper()
	list, err := choice.NewList(mirrors, choice.Constants{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.list, s.states = list, make([]choice.State, list.Len())
	for i := range s.states {
		s.states[i] = choice.State{Up: true, Ramp: 1}
	}
}

func (s *setting) Has(_ context.Context, m *choice.Mirror, _ bool, _ *choice.Target) (bool, error) {
	return !s.lacks[m.Name], nil
}

func (s *setting) Size(_ context.Context, m *choice.Mirror, t *choice.Target) (int64, error) {
	if m.Name != "origin" {
		s.t.Errorf("%s was asked for the size of %+v", m.Name, t)
	}
	if s.size < 0 {
		return 0, errors.New("it did not say in time")
	}
	return cmp.Or(s.size, 1<<30), nil
}

func (s *setting) Tell(m *choice.Mirror, t *choice.Target, then func(int64)) {
	if size, err := s.Size(context.Background(), m, t); err == nil {
		then(size)
	}
}

func locateTest(a netip.Addr) locate.Place {
	switch a.String() {
	case berlin:
		return locate.Place{Source: locate.CityDB, Country: locate.Country{'D', 'E'}, Continent: locate.EU, Lat: 52.5, Lon: 13.4, Located: true}
	case tokyo:
		return locate.Place{Source: locate.CityDB, Country: locate.Country{'J', 'P'}, Continent: locate.AS, Lat: 35.7, Lon: 139.7, Located: true}
	}
	return locate.Place{}
}

// fixedLedger is a ledger that stays as it is.
type fixedLedger struct{ state *ledger.State }

func (l fixedLedger) State() *ledger.State { return l.state }

// testLedger has kubectl with its signature, and a revoked file.
func testLedger(t *testing.T) Ledger {
	t.Helper()
	key := t.TempDir() + "/key"
	if err := ledger.GenerateKey("test", key); err != nil {
		t.Fatal(err)
	}
	k, err := ledger.LoadKey(key)
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.New(t.Context(), ledger.NewDir(t.TempDir()), ledger.Config{Key: k})
	if err != nil {
		t.Fatal(err)
	}
	entry := func(name string, d digest.Digest) ledger.Entry {
		return ledger.Entry{Kind: ledger.File, Name: name, Action: ledger.Set, Digest: d, Size: 50 << 20, Destinations: []string{"https://dl.example.org"}}
	}
	bad := digest.FromString("bad")
	_, err = log.Append(t.Context(), func(*ledger.State) ([]ledger.Entry, error) {
		return []ledger.Entry{
			entry("release/v1.36.0/bin/kubectl", aDigest), entry("release/v1.36.0/bin/kubectl.sig", digest.FromString("sig")),
			entry("release/v1.36.0/bin/bad", bad),
			{Kind: ledger.File, Name: string(bad), Action: ledger.Revoke, Digest: bad, Reason: "it has a backdoor"},
		}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fixedLedger{log.State()}
}

// ask sends a request from an address through the trusted forwarder.
func (s *setting) ask(client, target string, header ...string) *http.Response {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), http.MethodGet, target, http.NoBody)
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(forwards), 999).String()
	r.Header.Set("X-Forwarded-For", client)
	r.Header.Set("X-Forwarded-Proto", "https")
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Result()
}

// leads checks where a request is sent.
func (s *setting) leads(client, target, want string, header ...string) {
	s.t.Helper()
	resp := s.ask(client, target, header...)
	defer resp.Body.Close()
	if got := resp.Header.Get("Location"); got != want {
		s.t.Errorf("%s for %s: %s, sent to %q, want %q", target, client, resp.Status, got, want)
	}
}

func TestEachRequestGoesToTheNearestThatMayServeIt(t *testing.T) {
	const blob, path = "/blobs/" + aDigest, "/manifests/" + aDigest
	for _, row := range []struct{ client, request, want string }{
		{berlin, "/v2/library/nginx/manifests/1.29", "https://origin.example.org/v2/docker.io/library/nginx/manifests/1.29"},
		{berlin, "/v2/library/nginx/tags/list?n=5&last=a%26b&evil=1", "https://origin.example.org/v2/docker.io/library/nginx/tags/list?n=5&last=a%26b"},
		{berlin, "/v2/app/referrers/" + aDigest + "?artifactType=a/b", "https://origin.example.org/v2/docker.io/app/referrers/" + aDigest + "?artifactType=a%2Fb"},
		{berlin, "/v2/library/nginx" + path, "https://eu.example.org/v2/docker.io/library/nginx" + path},
		{tokyo, "/v2/library/nginx" + path, "https://jp.example.org/v2/docker.io/library/nginx" + path},
		{berlin, "/v2/library/nginx" + blob, "https://uni.example.org/v2/docker.io/library/nginx" + blob},
		{berlin, "/v2/library/nginx" + blob + "?ns=docker.io", "https://uni.example.org/v2/docker.io/library/nginx" + blob},
		{berlin, "/v2/docker.io/library/nginx" + blob, "https://uni.example.org/v2/docker.io/library/nginx" + blob},
		{berlin, "/v2/private.example/app" + blob, "https://eu.example.org/v2/private.example/app" + blob},
		{nowhere, "/v2/library/nginx" + blob, "https://origin.example.org/v2/docker.io/library/nginx" + blob},
		{berlin, "/dl/release/stable.txt", "https://origin.example.org/dl/release/stable.txt"},
		{berlin, "/release/v1.36.0/bin/kubectl", "https://eu.example.org/dl/release/v1.36.0/bin/kubectl"},
		{berlin, "/release/v1.36.0/bin/kubectl?verify=1", "https://uni.example.org/dl/release/v1.36.0/bin/kubectl"},
		{berlin, "/release/v1.36.0/bin/un%2Fknown?verify=1", "https://eu.example.org/dl/release/v1.36.0/bin/un%2Fknown"}, // no digest to verify by
	} {
		newSetting(t).leads(row.client, row.request, row.want)
	}
}

func TestImagesAreRedirectedFor307AndFilesFor302AndNothingIsKept(t *testing.T) {
	s := newSetting(t)
	image := s.ask(berlin, "/v2/a/manifests/b")
	defer image.Body.Close()
	file := s.ask(berlin, "/release/v1.36.0/bin/kubectl")
	defer file.Body.Close()
	if image.StatusCode != http.StatusTemporaryRedirect || file.StatusCode != http.StatusFound {
		t.Errorf("image %s, file %s", image.Status, file.Status)
	}
	for _, resp := range []*http.Response{image, file} {
		if resp.Header.Get("Cache-Control") != "private, no-store" {
			t.Errorf("headers %v", resp.Header)
		}
	}
	if file.Header.Get("Referrer-Policy") != "no-referrer" {
		t.Errorf("headers of a file: %v", file.Header)
	}
	if o := s.seen[1]; o.Mirror != "eu" || o.Status != http.StatusFound || o.Client.String() != berlin {
		t.Errorf("observed %+v", o)
	}
}

func TestTheBaseOfTheAPIIsOpenAndWritesAreRefused(t *testing.T) {
	s := newSetting(t)
	resp := s.ask(berlin, "/v2/")
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v2/a/blobs/uploads/", http.NoBody))
	if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, %v", w.Code, w.Header())
	}
}

func TestBadRequestsAreToldWhatWouldBeRight(t *testing.T) {
	s := newSetting(t)
	for _, row := range []struct {
		request, client, want string
		status                int
	}{
		{"/v2/evil.example/app/manifests/x", berlin, "is not an upstream here", 404},
		{"/v2/app/manifests/x?ns=evil.example", berlin, "is not an upstream here", 404},
		{"/v2/app/blobs/sha256:short", berlin, "digest", 400},
		{"/v2/_catalog", berlin, "there is no catalog", 404},
		{"/dl/../etc/passwd", berlin, "..", 400},
		{"/v2/app/manifests/x", "garbage", "no IP address", 400},
		{"/release/v1.36.0/bin/bad", berlin, "it has a backdoor", 451},
		{"/release/v1.36.0/bin/nothing.meta4", berlin, "promoted files only", 404},
		{"/where?size=-1", berlin, "want bytes", 400},
		{"/where?request=nonsense", berlin, "is no path", 400},
		{"/where?request=http://evil.example/", berlin, "is no path", 400},
	} {
		resp := s.ask(row.client, row.request)
		if said := body(t, resp); resp.StatusCode != row.status || !strings.Contains(said, row.want) {
			t.Errorf("%s from %s: %s, %q, want %d and %q", row.request, row.client, resp.Status, said, row.status, row.want)
		}
	}
}

// body is what an answer says.
func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestBlobsWhoseSizeDecidesGoByWhatTheOriginSays(t *testing.T) {
	s := newSetting(t)
	for _, c := range []struct {
		size int64
		want string
	}{{100, "eu"}, {128 << 10, "uni"}, {-1, "eu"}} {
		s.size = c.size
		path := "/a" + strconv.FormatInt(c.size+1, 10) + "/blobs/" + aDigest // another each time: who comes back is given the next
		s.leads(berlin, "/v2"+path, "https://"+c.want+".example.org/v2/docker.io"+path)
	}
}

func TestARouterThatKnowsNoUpstreamsLeavesNamesToTheMirrors(t *testing.T) {
	s := newSetting(t, func(c *Config) {
		c.Images, c.DefaultImages, c.DefaultFiles = []Images{{}}, "", ""
		c.Files = []Files{{Immutable: c.Files[0].Immutable}}
	})
	const path, origin = "/manifests/" + aDigest, "https://origin.example.org"
	for request, want := range map[string]string{
		"/v2/library/nginx" + path:              "https://eu.example.org/v2/library/nginx" + path,
		"/v2/ghcr.io/a/b" + path:                "https://eu.example.org/v2/ghcr.io/a/b" + path,
		"/v2/a/b" + path + "?ns=ghcr.io":        "https://eu.example.org/v2/ghcr.io/a/b" + path,
		"/v2/library/nginx/manifests/latest":    origin + "/v2/library/nginx/manifests/latest",
		"/release/v1.36.0/bin/kubectl":          "https://eu.example.org/release/v1.36.0/bin/kubectl",
		"/stable.txt":                           origin + "/stable.txt",
		"/dl.example.org/release/v1/bin/kubect": origin + "/dl.example.org/release/v1/bin/kubect",
	} {
		s.leads(berlin, request, want)
	}
}

func TestAMirrorThatLacksContentIsPassedOver(t *testing.T) {
	s := newSetting(t)
	s.lacks["uni"] = true
	s.leads(berlin, "/v2/app/blobs/"+aDigest, "https://eu.example.org/v2/docker.io/app/blobs/"+aDigest)
}

func TestWhoComesBackIsGivenTheNextMirror(t *testing.T) {
	s := newSetting(t)
	const request = "/v2/app/blobs/" + aDigest
	for range 2 {
		s.leads(berlin, request, "https://uni.example.org/v2/docker.io/app/blobs/"+aDigest)
	}
	s.leads(berlin, request, "https://eu.example.org/v2/docker.io/app/blobs/"+aDigest)
	s.leads(berlin, request, "https://uni.example.org/v2/docker.io/app/blobs/"+aDigest, "Range", "bytes=5-9") // another thing
	newSetting(t).leads(berlin, request+"?avoid=uni", "https://eu.example.org/v2/docker.io/app/blobs/"+aDigest)
}

func TestWhoResumesIsGivenTheNextMirrorAtOnceAndItsMirrorIsSuspected(t *testing.T) {
	var suspects []string
	s := newSetting(t, func(c *Config) { c.Suspect = func(name string) { suspects = append(suspects, name) } })
	const path = "/v2/a/manifests/" + aDigest
	to := func(host string) string {
		return "https://" + host + ".example.org/v2/docker.io/a/manifests/" + aDigest
	}
	s.leads(berlin, path, to("eu"), "Range", "bytes=70001-") // of a transfer that nobody saw begin
	s.leads(tokyo, path, to("jp"))
	s.leads(tokyo, path, to("jp"), "Range", "bytes=8388608-") // a part
	s.leads(tokyo, path, to("jp"), "Range", "bytes=70001-80000")
	if len(suspects) > 0 {
		t.Errorf("suspects %q", suspects)
	}
	s.leads(tokyo, path, to("origin"), "Range", "bytes=70001-")
	s.leads(tokyo, path, to("eu"), "Range", "bytes=90001-")
	if !slices.Equal(suspects, []string{"jp", "origin"}) {
		t.Errorf("suspects %q", suspects)
	}
	s.leads(tokyo, path+"?avoid=jp", to("eu"))
	if !slices.Contains(suspects[2:], "jp") {
		t.Errorf("suspects %q", suspects)
	}
}

func TestWithoutAFitMirrorThereIsTheFallbackOr503(t *testing.T) {
	down := func(s *setting) *setting {
		for i := range s.states {
			s.states[i] = choice.State{Reason: "gone"}
		}
		s.Refresh()
		return s
	}
	resp := down(newSetting(t)).ask(berlin, "/v2/app/manifests/x")
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "10" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	fallback := mirror(t, "fallback", choice.Origin, "US", 0, 0)
	down(newSetting(t, func(c *Config) { c.Fallback = &fallback })).
		leads(berlin, "/v2/app/manifests/x", "https://fallback.example.org/v2/docker.io/app/manifests/x")
}

func TestClientsOfTheFixedHostAreServedAndNotRedirected(t *testing.T) {
	node := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Served-By", "node") })
	s := newSetting(t, func(c *Config) {
		c.Fixed = Fixed{Hosts: []string{"fixed.example.org"}, Clients: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Handler: node}
	})
	for request, client := range map[string]string{"https://Fixed.example.org:8443/v2/app/manifests/x": berlin, "/v2/app/manifests/x": "198.51.100.7"} {
		resp := s.ask(client, request)
		resp.Body.Close()
		if resp.Header.Get("Served-By") != "node" {
			t.Errorf("%s from %s was not served", request, client)
		}
	}
}

func TestCosignTagsMayHaveAnUpstreamOfTheirOwn(t *testing.T) {
	sigs := mirror(t, "sigs", choice.Origin, "US", 0, 0)
	s := newSetting(t, func(c *Config) { c.Cosign = &sigs })
	tag := strings.Replace(aDigest, ":", "-", 1) + ".sig"
	s.leads(berlin, "/v2/app/manifests/"+tag, "https://sigs.example.org/v2/docker.io/app/manifests/"+tag)
	s.leads(berlin, "/v2/app/manifests/sha256-short.sig", "https://origin.example.org/v2/docker.io/app/manifests/sha256-short.sig")
}

func TestARedirectOfAPromotedFileTellsHowToCheckIt(t *testing.T) {
	resp := newSetting(t).ask(berlin, "/release/v1.36.0/bin/kubectl")
	defer resp.Body.Close()
	if got := resp.Header.Get("Digest"); got != "SHA-256=qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo=" {
		t.Errorf("Digest: %s", got)
	}
	links := strings.Join(resp.Header.Values("Link"), "\n")
	for _, want := range []string{
		"<https://eu.example.org/dl/release/v1.36.0/bin/kubectl>; rel=duplicate; pri=1; geo=fr",
		`</dl/release/v1.36.0/bin/kubectl.meta4>; rel=describedby; type="application/metalink4+xml"`,
		`</dl/release/v1.36.0/bin/kubectl.sig>; rel=describedby`,
	} {
		if !strings.Contains(links, want) {
			t.Errorf("Link lacks %s:\n%s", want, links)
		}
	}
	if resp.Header.Get("Repr-Digest") != "" {
		t.Error("Repr-Digest of a redirect is the redirect's own")
	}
}

func TestAMetalinkHasTheDigestAndThePlaces(t *testing.T) {
	for _, header := range [][]string{nil, {"Accept", "application/metalink4+xml"}} {
		request := "/release/v1.36.0/bin/kubectl"
		if header == nil {
			request += ".meta4"
		}
		s := newSetting(t)
		resp := s.ask(berlin, request, header...)
		var d metalinkDocument
		if err := xml.NewDecoder(resp.Body).Decode(&d); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if d.File.Name != "kubectl" || d.File.Size != 50<<20 || d.File.Hash.Value != strings.Repeat("a", 64) || d.File.Hash.Type != "sha-256" || len(d.File.Links) < 2 ||
			d.File.Links[0].URL != "https://eu.example.org/dl/release/v1.36.0/bin/kubectl" || resp.Header.Get("Content-Type") != metalinkType ||
			resp.Header.Get("Content-Disposition") != "attachment; filename=kubectl.meta4" {
			t.Errorf("%s: %+v, %v", request, d, resp.Header)
		}
	}
}

func TestOnlyWhoNamesTheTypeGetsTheMetalinkInPlaceOfAFile(t *testing.T) {
	const file, aria2 = "/release/v1.36.0/bin/kubectl", "*/*,application/metalink4+xml,application/metalink+xml"
	for _, row := range []struct {
		path, accept string
		status       int
	}{
		{file, aria2, http.StatusOK},
		{file, "application/metalink4+xml;q=0, */*", http.StatusFound},
		{file, "*/*", http.StatusFound},
		{file, "application/*", http.StatusFound},
		{"/release/v1.36.0/bin/unknown", aria2, http.StatusFound}, // nothing to check it by: the file itself is better than none
		{"/release/stable.txt", aria2, http.StatusFound},
	} {
		resp := newSetting(t).ask(berlin, row.path, "Accept", row.accept)
		resp.Body.Close()
		if resp.StatusCode != row.status {
			t.Errorf("%s, Accept: %s: %s, want %d", row.path, row.accept, resp.Status, row.status)
		}
	}
}

func TestAMirrorListIsAPageOrJSON(t *testing.T) {
	s := newSetting(t)
	resp := s.ask(berlin, "/release/v1.36.0/bin/kubectl?mirrorlist")
	defer resp.Body.Close()
	var l listing
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil {
		t.Fatal(err)
	}
	if len(l.Mirrors) == 0 || l.Mirrors[0].Mirror != "eu" || l.Digest != aDigest {
		t.Errorf("%+v", l)
	}
	page := body(t, s.ask(berlin, "/release/v1.36.0/bin/kubectl?mirrorlist", "Accept", "text/html"))
	if !strings.Contains(page, `<a href="https://eu.example.org/dl/release/v1.36.0/bin/kubectl"`) {
		t.Error(page)
	}
}

func TestWhereExplainsEveryMirror(t *testing.T) {
	s := newSetting(t)
	s.states[1] = choice.State{Reason: "connection refused"}
	s.Refresh()
	resp := s.ask(berlin, "/where?request=/v2/app/blobs/"+aDigest+"&size=1000")
	defer resp.Body.Close()
	var e Explanation
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	for _, m := range e.Mirrors {
		reasons[m.Name] = m.Reason
	}
	if e.Client != berlin || e.Place.Country != "DE" || e.What != "blob" || e.Mirrors[0].Rank != 1 || e.Mirrors[0].Name != "origin" ||
		reasons["eu"] != "it is down: connection refused" || !strings.Contains(reasons["uni"], "128 KiB") {
		t.Errorf("%+v", e)
	}
	page := s.ask(berlin, "/where?request=%3Cscript%3E", "Accept", "text/html")
	defer page.Body.Close()
	if page.StatusCode != http.StatusBadRequest {
		t.Errorf("a script as request: %s", page.Status)
	}
}

func TestBytesAreAnnouncedAsTheyAreAskedFor(t *testing.T) {
	const blob, size = "/v2/app/blobs/" + aDigest, 1 << 30
	for _, row := range []struct {
		method, ranges string
		want           int64
	}{
		{http.MethodGet, "", size},
		{http.MethodHead, "", 0},
		{http.MethodGet, "bytes=0-", size},
		{http.MethodGet, "bytes=5-9", 5},
		{http.MethodGet, "bytes=-100", 100},
		{http.MethodGet, "bytes=0-9,20-29, -5", 25},
		{http.MethodGet, "bytes=1073741800-", 24},
		{http.MethodGet, "bytes=2000000000-", 0},
		{http.MethodGet, "bytes=0-99999999999", size},
		{http.MethodGet, "bytes=-99999999999", size},
		{http.MethodGet, "bytes=a-b", size},
		{http.MethodGet, "lines=1-2", size},
	} {
		for _, trusting := range []bool{false, true} { // all mirrors trusted: who asks does not wait for a size
			registry := prometheus.NewPedanticRegistry()
			s := newSetting(t, func(c *Config) { c.Registerer = registry })
			if trusting {
				s.setMirrors([]choice.Mirror{mirror(t, "origin", choice.Origin, "US", 41.3, -95.9), mirror(t, "uni", choice.Trusted, "DE", 52.5, 13.4)})
				s.Refresh()
			}
			r := httptest.NewRequestWithContext(t.Context(), row.method, blob, http.NoBody)
			r.RemoteAddr = berlin + ":999"
			if row.ranges != "" {
				r.Header.Set("Range", row.ranges)
			}
			s.ServeHTTP(httptest.NewRecorder(), r)
			if got := counted(t, registry, "entrepot_redirect_bytes_total", "uni"); got != float64(row.want) {
				t.Errorf("%s %s: %v bytes, want %d", row.method, row.ranges, got, row.want)
			}
			if got := counted(t, registry, "entrepot_redirects_total", "uni"); got != 1 {
				t.Errorf("%s %s: %v redirects", row.method, row.ranges, got)
			}
		}
	}
}

// counted is the sum of what a metric has of a mirror.
func counted(t *testing.T, registry *prometheus.Registry, name, mirror string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if family.GetName() == name && label.GetName() == "mirror" && label.GetValue() == mirror {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

func TestCostIsCountedByMirrorAndTheCheaperOfEqualsIsChosen(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	s := newSetting(t, func(c *Config) { c.Registerer = registry })
	mirrors := []choice.Mirror{mirror(t, "origin", choice.Origin, "US", 41.3, -95.9), mirror(t, "dear", choice.Trusted, "DE", 52.5, 13.4), mirror(t, "cheap", choice.Trusted, "DE", 52.5, 13.4)}
	mirrors[1].CostPerGiB, mirrors[2].CostPerGiB = 0.5, 0.25
	s.setMirrors(mirrors)
	s.Refresh()
	const path = "/v2/app/blobs/" + aDigest
	s.leads(berlin, path, "https://cheap.example.org/v2/docker.io/app/blobs/"+aDigest) // of 1 GiB
	s.leads(berlin, path+"?avoid=cheap", "https://dear.example.org/v2/docker.io/app/blobs/"+aDigest, "Range", "bytes=0-268435455")
	for name, want := range map[string]float64{"cheap": 0.25, "dear": 0.125} {
		if got := counted(t, registry, "entrepot_redirect_cost_total", name); got != want {
			t.Errorf("%s cost %v, want %v", name, got, want)
		}
	}
}

func TestAClientThatItsForwarderHidesIsSentToAnOrigin(t *testing.T) {
	s := newSetting(t)
	for range 4 { // nobody knows whether they are one
		s.leads("unknown", "/v2/app/blobs/"+aDigest, "https://origin.example.org/v2/docker.io/app/blobs/"+aDigest)
	}
	var e Explanation
	resp := s.ask("unknown", "/where")
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || e.Client != "unknown" || e.Place.Source != "unknown" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestWhoLooksAtListsDoesNotComeBack(t *testing.T) {
	s := newSetting(t, func(c *Config) { c.Suspect = func(name string) { t.Errorf("%s is suspected", name) } })
	const file = "/release/v1.36.0/bin/kubectl"
	for range 5 {
		s.ask(berlin, file+"?mirrorlist").Body.Close()
		s.ask(berlin, file, "Accept", metalinkType).Body.Close()
	}
	s.leads(berlin, file, "https://eu.example.org/dl"+file)
}

func TestAChangedListIsTakenIntoUseAtOnceAndLoadsStay(t *testing.T) {
	s := newSetting(t)
	const request = "/v2/app/blobs/" + aDigest
	for i := range 20 { // of 1 GiB each, at 1 Gbit/s
		s.ask("192.0.2.1", request, "Range", "bytes="+string(rune('0'+i%10))+"-").Body.Close()
	}
	s.refresh(viewEvery)
	if v := s.view.Load(); v.states[3].Load < 0.9 {
		t.Errorf("load %v after 20 GiB", v.states[3].Load)
	}
	s.leads(berlin, "/v2/app/blobs/"+aDigest+"?fresh", "https://eu.example.org/v2/docker.io/app/blobs/"+aDigest)
	s.setMirrors([]choice.Mirror{mirror(t, "other", choice.Origin, "FR", 48, 2)})
	s.Refresh()
	s.leads(berlin, request, "https://other.example.org/v2/docker.io/app/blobs/"+aDigest)
}

func TestAMirrorThatCameBackIsFullSooner(t *testing.T) {
	const path = "/v2/app/blobs/" + aDigest
	for _, row := range []struct {
		ramp float64
		want string
	}{{1, "uni"}, {0.1, "origin"}} {
		s := newSetting(t)
		s.setMirrors([]choice.Mirror{mirror(t, "origin", choice.Origin, "US", 41.3, -95.9), mirror(t, "uni", choice.Trusted, "DE", 52.5, 13.4)})
		s.states[1].Ramp = row.ramp
		s.Refresh()
		s.leads(berlin, path, "https://uni.example.org/v2/docker.io/app/blobs/"+aDigest, "Range", "bytes=0-199999999")
		s.refresh(viewEvery) // 160 Mbit/s of 1 Gbit/s, on average
		s.leads(berlin, path, "https://"+row.want+".example.org/v2/docker.io/app/blobs/"+aDigest)
	}
}

func TestADefaultThatIsNotThereIsRefused(t *testing.T) {
	_, err := New(Config{DefaultImages: "nowhere", Mirrors: func() (*choice.List, []choice.State) { return nil, nil }})
	if err == nil || errors.Is(err, choice.ErrList) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("%v", err)
	}
}

func FuzzRequestsLeadToConfiguredHostsOnly(f *testing.F) {
	for _, seed := range []string{"/v2/a/manifests/b", "//evil.example/%2e%2e/x", "/dl/release/v1/..;/x?n=1", "/release/v1.36.0/bin/kubectl.meta4", "/where?request=//evil"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" {
			return
		}
		s := newSetting(t)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
		r.URL, r.RequestURI = u, target
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if to := w.Header().Get("Location"); to != "" {
			parsed, err := url.Parse(to)
			if err != nil || !strings.HasSuffix(parsed.Host, ".example.org") || parsed.User != nil {
				t.Errorf("%q leads to %q (%v)", target, to, err)
			}
		}
	})
}

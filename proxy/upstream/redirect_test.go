package upstream

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

func redirectTo(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func TestCredentialsDoNotFollowARedirectToAnotherOrigin(t *testing.T) {
	bucket := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 3-6/7")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, "tent")
	})
	for name, base := range map[string]string{
		"other port of the same address": bucket.URL,
		"other name":                     strings.Replace(bucket.URL, "127.0.0.1", "localhost", 1),
	} {
		t.Run(name, func(t *testing.T) {
			r := newTokenRegistry(t)
			r.content = redirectTo(base + "/data?sig=s3cret")
			u := newUpstream(t, Config{URLs: []string{r.URL}, Username: "user", Password: "hunter2"})
			req := blob()
			req.Offset, req.Size = 3, 7
			req.Header = http.Header{"Accept": {"text/plain"}}
			if resp := wantBody(t, u, req, "tent"); resp.TotalSize != 7 {
				t.Errorf("size %d", resp.TotalSize)
			}
		})
	}
	bucket.asked(t, 2)
	for _, req := range bucket.requests() {
		h := req.Header
		if h.Get("Authorization") != "" || h.Get("Referer") != "" {
			t.Errorf("the bucket was sent %v", h)
		}
		if h.Get("Range") != "bytes=3-6" || h.Get("Accept") != "text/plain" || h.Get("Accept-Encoding") != "identity" || len(h["User-Agent"]) != 1 {
			t.Errorf("what was asked for was lost: %v", h)
		}
		if req.URL.RawQuery != "sig=s3cret" {
			t.Errorf("the signature became %q", req.URL.RawQuery)
		}
	}
}

func TestRedirectOnTheSameOriginIsAuthenticated(t *testing.T) {
	r := newTokenRegistry(t)
	r.content = func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "moved") {
			_, _ = io.WriteString(w, "content")
			return
		}
		redirectTo("/v2/app/blobs/moved")(w, req)
	}
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	wantBody(t, u, blob(), "content")
}

func TestCredentialsDoNotComeBackWithTheRedirect(t *testing.T) {
	r := newTokenRegistry(t)
	var away *server
	r.content = func(w http.ResponseWriter, req *http.Request) { redirectTo(away.URL)(w, req) }
	away = newServer(t, func(w http.ResponseWriter, req *http.Request) {
		redirectTo(r.URL+"/v2/app/blobs/again")(w, req)
	})
	u := newUpstream(t, Config{URLs: []string{r.URL}})
	wantError(t, u, blob(), Denied)
	seen := r.requests()
	if last := seen[len(seen)-1]; last.URL.Path != "/v2/app/blobs/again" || last.Header.Get("Authorization") != "" {
		t.Errorf("last asked for %s with Authorization %q", last.URL.Path, last.Header.Get("Authorization"))
	}
}

func TestChallengeOfABlobHostGetsNoCredentials(t *testing.T) {
	bucket := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
	})
	s := newServer(t, redirectTo(bucket.URL))
	u := newUpstream(t, Config{URLs: []string{s.URL}, Username: "user", Password: "hunter2"})
	wantError(t, u, blob(), Denied)
	bucket.asked(t, 1)
}

func TestRedirectsThatAreNotFollowed(t *testing.T) {
	var self *server
	for name, c := range map[string]struct {
		location string
		want     string
		asked    int
	}{
		"to itself":     {"SELF/v2/app/blobs/sha256:abc", "in a circle", 1},
		"without end":   {"SELF/v2/app/blobs/NEXT", "more than 5 times", 6},
		"to a file":     {"file:///etc/passwd", "not HTTP", 1},
		"to no host":    {"http:///x", "not HTTP", 1},
		"to no URL":     {"http://%zz/?sig=s3cret", "not a URL", 1},
		"to a bad port": {"http://a:b/?sig=s3cret", "not a URL", 1},
	} {
		t.Run(name, func(t *testing.T) {
			self = newServer(t, func(w http.ResponseWriter, r *http.Request) {
				l := strings.ReplaceAll(c.location, "SELF", self.URL)
				redirectTo(strings.ReplaceAll(l, "NEXT", fmt.Sprint(len(self.requests()))))(w, r)
			})
			u := newUpstream(t, Config{URLs: []string{self.URL}})
			err := wantError(t, u, blob(), Invalid)
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got error %v, want one about %q", err, c.want)
			}
			self.asked(t, c.asked)
		})
	}
}

func TestFailureBehindARedirectTellsNoSignature(t *testing.T) {
	s := newServer(t, redirectTo(refused(t)+"/data?X-Amz-Signature=s3cret"))
	u := newUpstream(t, Config{URLs: []string{s.URL}})
	err := wantError(t, u, blob(), Unavailable)
	if strings.Contains(err.Error(), "s3cret") || !strings.Contains(err.Error(), "redirected to 127.0.0.1") {
		t.Errorf("got error %v", err)
	}
}

func TestRedirectToAnAddressLocalToTheNodeIsRefused(t *testing.T) {
	inside := newServer(t, say("metadata"))
	for name, location := range map[string]string{
		"loopback":      inside.URL + "/",
		"loopback name": strings.Replace(inside.URL, "127.0.0.1", "localhost", 1) + "/",
		"mapped":        strings.Replace(inside.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1) + "/",
		"metadata":      "http://169.254.169.254/latest/",
		"unspecified":   strings.Replace(inside.URL, "127.0.0.1", "0.0.0.0", 1) + "/",
	} {
		t.Run(name, func(t *testing.T) {
			// The registry, which is not on this machine, is played; where it
			// redirects to is asked over the network.
			u := newUpstream(t, Config{URLs: []string{"http://r.example.org"}})
			u.Endpoints()[0].client.Client.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusFound, Request: r, Body: http.NoBody, Header: http.Header{"Location": {location}}}, nil
			})
			if err := wantError(t, u, blob(), Invalid); !strings.Contains(err.Error(), "local to this machine") {
				t.Errorf("got error %v", err)
			}
		})
	}
	inside.asked(t, 0)
}

func TestANameOfAnUpstreamCannotLeadToMetadataWhateverItsZoneSays(t *testing.T) {
	d := newDialer(net.Dialer{}, nil, &redirectRule{})
	for _, address := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80", "[64:ff9b::a9fe:a9fe]:80", "0.0.0.0:80"} {
		if err := d.byName.ControlContext(t.Context(), "tcp", address, nil); err == nil {
			t.Errorf("a name may lead to %s", address)
		}
		if err := d.own.ControlContext(t.Context(), "tcp", address, nil); err != nil {
			t.Errorf("an upstream at the configured address %s is refused: %v", address, err)
		}
	}
	if err := d.byName.ControlContext(t.Context(), "tcp", "10.0.0.7:443", nil); err != nil {
		t.Errorf("an upstream in a private network is refused: %v", err)
	}
}

func TestRedirectIntoAPrivateNetworkIsRefusedUnlessUpstreamIsInOne(t *testing.T) {
	rule, err := newRedirectRule(&Config{RedirectHosts: []string{"*.inside.example.org"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := newDialer(net.Dialer{}, []string{"auth.example.org"}, rule)
	for address, want := range map[string]bool{
		"blobs.inside.example.org:443": true, "Blobs.inside.example.org:80": true, "auth.example.org:443": true,
		"blobs.inside.example.org:8443": false, "inside.example.org:443": false, "example.org:443": false,
	} {
		if got := d.isNamed(address); got != want {
			t.Errorf("%s is named by the configuration: %t, want %t", address, got, want)
		}
	}
	other := func(address string) error { return d.other.ControlContext(t.Context(), "tcp", address, nil) }
	own := func(address string) {
		if err := d.own.ControlContext(t.Context(), "tcp", address, nil); err != nil {
			t.Errorf("upstream itself is refused at %s: %v", address, err)
		}
	}
	own("93.184.216.34:443")
	if err := other("10.0.0.7:80"); err == nil || !strings.Contains(err.Error(), "private network") {
		t.Errorf("a public upstream may redirect to 10.0.0.7: %v", err)
	}
	own("192.168.1.5:5000")
	if err := other("10.0.0.7:80"); err != nil {
		t.Errorf("a private upstream may not redirect to a private address: %v", err)
	}
	for _, address := range []string{"127.0.0.1:80", "[::1]:80", "169.254.169.254:80"} {
		if err := other(address); err == nil {
			t.Errorf("a private upstream may redirect to %s", address)
		}
	}
	own("127.0.0.1:5000")
	if err := other("127.0.0.1:80"); err != nil {
		t.Errorf("an upstream on this machine may not redirect to it: %v", err)
	}
	if err := other("169.254.169.254:80"); err == nil {
		t.Error("an upstream on this machine may redirect to its cloud's metadata")
	}
}

package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestFileServerIsAskedBelowItsURLWithThePathAsItWasWritten(t *testing.T) {
	s := newServer(t, say("content"))
	u := newUpstream(t, Config{Files: true, URLs: []string{s.URL + "/some/prefix/"}})
	for _, path := range []string{
		"a/b.txt", "a%2Fb/C%2fd", "%E2%82%AC/a+b%2Bc", "folder/", "a//b", "a:b;c=d,e@f!$&'()*", "%25x",
	} {
		t.Run(path, func(t *testing.T) {
			wantBody(t, u, &Request{Method: http.MethodGet, Path: path, Query: "b=%20&a"}, "content")
			seen := s.requests()
			last := seen[len(seen)-1]
			if want := "/some/prefix/" + path + "?b=%20&a"; last.RequestURI != want {
				t.Errorf("asked for %s, want %s", last.RequestURI, want)
			}
		})
	}
}

func TestFileMayHaveAContentEncoding(t *testing.T) {
	s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "squeezed")
	})
	u := newUpstream(t, Config{Files: true, URLs: []string{s.URL}})
	resp := wantBody(t, u, &Request{Method: http.MethodGet, Path: "a"}, "squeezed")
	if resp.Header.Get("Content-Encoding") != "gzip" || resp.Uncompressed {
		t.Errorf("got %v", resp.Header)
	}
}

func TestFileServerRedirectsOnlyToHostsThatAreConfigured(t *testing.T) {
	other := newServer(t, say("content"))
	s := newServer(t, redirectTo(other.URL+"/elsewhere?sig=s3cret"))
	request := &Request{Method: http.MethodGet, Path: "a"}

	u := newUpstream(t, Config{Files: true, URLs: []string{s.URL}})
	err := wantError(t, u, request, Invalid)
	if !strings.Contains(err.Error(), "redirect_hosts") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got error %v", err)
	}
	other.asked(t, 0)
	wantBody(t, newUpstream(t, Config{Files: true, URLs: []string{s.URL}, RedirectHosts: []string{other.host()}}), request, "content")
	wantBody(t, newUpstream(t, Config{Files: true, URLs: []string{s.URL, other.URL}}), request, "content")
}

func TestRedirectHostsMayBeAllBelowADomain(t *testing.T) {
	rule, err := newRedirectRule(&Config{Files: true, RedirectHosts: []string{"*.example.org", "cdn.example.com:8443"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]bool{
		"https://a.example.org/x": true, "https://b.A.Example.ORG:443/x": true, "https://example.org/": false,
		"https://badexample.org/": false, "https://a.example.org:8443/": false,
		"https://cdn.example.com:8443/": true, "https://cdn.example.com/": false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := rule.allows(req.URL); got != want {
			t.Errorf("%s: allowed %v, want %v", address, got, want)
		}
	}
	for _, wrong := range []string{"*", "https://example.org", "a/b", "*.*.org", ""} {
		if _, err := newRedirectRule(&Config{RedirectHosts: []string{wrong}}, nil); err == nil {
			t.Errorf("%q is taken for a host", wrong)
		}
	}
}

func TestAnswerThatTheCallerRefusesIsInvalidAndTheNextURLIsAsked(t *testing.T) {
	errOther := errors.New("another version")
	first, second := newServer(t, say("other")), newServer(t, say("right"))
	u := newUpstream(t, Config{Files: true, URLs: []string{first.URL, second.URL}})
	check := func(resp *http.Response) error {
		if resp.ContentLength == int64(len("other")) && resp.Request.URL.Host == first.host() {
			return errOther
		}
		return nil
	}
	wantBody(t, u, &Request{Method: http.MethodGet, Path: "a", Check: check}, "right")
	u = newUpstream(t, Config{Files: true, URLs: []string{first.URL}})
	if err := wantError(t, u, &Request{Method: http.MethodGet, Path: "a", Check: check}, Invalid); !errors.Is(err, errOther) {
		t.Errorf("got error %v", err)
	}
}

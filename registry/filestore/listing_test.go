package filestore_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
	"golang.org/x/net/html"
)

// listing reads a listing as JSON.
func (s *site) listing(path string) *folder.Page {
	s.t.Helper()
	a := s.ask(http.MethodGet, path, "", "Accept: application/json").want(http.StatusOK).wantHeader("Content-Type: application/json")
	var l folder.Page
	if err := json.Unmarshal([]byte(a.body), &l); err != nil {
		s.t.Fatal(err)
	}
	link := ""
	if l.Next != "" {
		link = "<" + l.Next + `>; rel="next"`
	}
	a.wantHeader("Link: " + link)
	return &l
}

func names(l *folder.Page) string {
	var all []string
	for _, e := range l.Entries {
		all = append(all, e.Name)
	}
	return strings.Join(all, " ")
}

func listTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"an empty store lists nothing": func(t *testing.T, s *site) {
			if l := s.listing("/"); l.Path != "" || l.Entries == nil || len(l.Entries) > 0 {
				t.Errorf("got %+v", l)
			}
			if a := s.ask(http.MethodGet, "/", "").want(http.StatusOK); a.body != "" {
				t.Errorf("got %q", a.body)
			}
		},

		"a listing says what is in a folder": func(t *testing.T, s *site) {
			for _, path := range []string{"/r/b", "/r/a.txt", "/r/c/x/y", "/r/c.d", "/r/c-d/e", "/other"} {
				s.put(path, path).want(http.StatusCreated)
			}
			for range 2 {
				a := s.ask(http.MethodGet, "/r/", "").want(http.StatusOK).wantHeader("Content-Type: text/plain; charset=utf-8", "Vary: Accept", "Cache-Control: no-cache")
				want := ""
				for _, line := range []string{"a.txt", "b", "c/", "c-d/", "c.d"} {
					if strings.HasSuffix(line, "/") {
						want += "-\t-\t-\t" + line + "\n"
						continue
					}
					want += fmt.Sprintf("%s\t%d\t2026-11-23T10:00:00Z\t%s\n", digest.FromString("/r/"+line).Encoded(), len("/r/"+line), line)
				}
				if a.body != want {
					t.Errorf("got\n%swant\n%s", a.body, want)
				}
				s.ask(http.MethodHead, "/r/", "").want(http.StatusOK).wantHeader(fmt.Sprintf("Content-Length: %d", len(want)))
				s.ask(http.MethodGet, "/r/", "", "If-None-Match: "+a.header.Get("Etag")).want(http.StatusNotModified)
				l := s.listing("/r/")
				if l.Path != "r/" || names(l) != "a.txt b c/ c-d/ c.d" || l.Next != "" {
					t.Errorf("got %+v", l)
				}
				e := l.Entries[0]
				if e.Folder() || e.SHA256 != digest.FromString("/r/a.txt").Encoded() || e.Size != 8 || !e.Modified.Equal(start()) || e.ContentType != "text/plain; charset=utf-8" {
					t.Errorf("got %+v", e)
				}
				if !l.Entries[2].Folder() || l.Entries[2].SHA256 != "" {
					t.Errorf("got %+v", l.Entries[2])
				}
				s.open() // and what the files are is to be read again
			}
		},

		"a folder without its slash is led to": func(_ *testing.T, s *site) {
			s.put("/a%20b/c", "x").want(http.StatusCreated)
			s.ask(http.MethodGet, "/a%20b?n=5", "").want(http.StatusTemporaryRedirect).wantHeader("Location: /a%20b/?n=5")
			s.ask(http.MethodGet, "/a%20b/c/", "").want(http.StatusNotFound, "a b/c is a file")
			s.ask(http.MethodGet, "/none/", "").want(http.StatusNotFound, "there is no folder none/")
		},

		"long listings come in pages": func(t *testing.T, s *site) {
			for i := range 7 {
				s.put(fmt.Sprintf("/l/%d%%20%%26", i), "x").want(http.StatusCreated)
			}
			s.put("/l/3-/below", "x").want(http.StatusCreated)
			page, got := "/l/?n=3", ""
			for pages := 1; ; pages++ {
				l := s.listing(page)
				got += names(l) + " | "
				if l.Next == "" {
					if pages != 3 {
						t.Errorf("%d pages", pages)
					}
					break
				}
				page = "/l/" + l.Next
			}
			if want := "0 & 1 & 2 & | 3 & 3-/ 4 & | 5 & 6 & | "; got != want {
				t.Errorf("got %s want %s", got, want)
			}
			if l := s.listing("/l/?last=3-/&n=1"); names(l) != "4 &" {
				t.Errorf("got %s", names(l))
			}
			if l := s.listing("/l/?n=99999999"); len(l.Entries) != 8 {
				t.Errorf("got %d entries", len(l.Entries))
			}
			for _, n := range []string{"0", "-1", "x", "1e3"} {
				s.ask(http.MethodGet, "/l/?n="+n, "").want(http.StatusBadRequest, "want how many entries to list")
			}
		},

		"a folder has the checksums of its files": func(t *testing.T, s *site) {
			s.put("/r/a%20b", "one").want(http.StatusCreated)
			s.put("/r/below/c", "two").want(http.StatusCreated)
			one := digest.FromString("one").Encoded() + "  a b\n"
			two := digest.FromString("two").Encoded() + "  below/c\n"
			for range 2 {
				a := s.ask(http.MethodGet, "/r/SHA256SUMS", "").want(http.StatusOK).
					wantHeader("Content-Type: text/plain; charset=utf-8", "Cache-Control: no-cache", "Entrepot-Generated: true", "Repr-Digest:")
				if a.body != one {
					t.Errorf("got %q, want %q", a.body, one)
				}
				s.ask(http.MethodHead, "/r/SHA256SUMS", "").want(http.StatusOK).wantHeader(fmt.Sprintf("Content-Length: %d", len(one)))
				s.ask(http.MethodGet, "/r/SHA256SUMS", "", "If-None-Match: "+a.header.Get("Etag")).want(http.StatusNotModified)
				if a := s.ask(http.MethodGet, "/r/SHA256SUMS?recursive=1", "").want(http.StatusOK); a.body != one+two {
					t.Errorf("got %q, want %q", a.body, one+two)
				}
				s.ask(http.MethodGet, "/SHA256SUMS", "").want(http.StatusNotFound, "it has folders only")
				s.ask(http.MethodGet, "/none/SHA256SUMS", "").want(http.StatusNotFound, "there is no file none/SHA256SUMS")
				s.ask(http.MethodGet, "/r/SHA256SUMS?recursive=x", "").want(http.StatusBadRequest, "want 0 or 1")
				if got := names(s.listing("/r/")); got != "a b below/" {
					t.Errorf("%s are listed: what is made is no file", got)
				}
				s.open()
			}
		},

		"checksums that were put go first": func(t *testing.T, s *site) {
			s.put("/r/a", "one").want(http.StatusCreated)
			s.put("/r/SHA256SUMS", "ours", "If-None-Match: *").want(http.StatusCreated)
			s.holds("/r/SHA256SUMS", "ours")
			s.holds("/r/SHA256SUMS?recursive=1", "ours")
			s.ask(http.MethodGet, "/r/SHA256SUMS", "").wantHeader("Entrepot-Generated:", "Repr-Digest: "+field("ours"))
			if got := names(s.listing("/r/")); got != "SHA256SUMS a" {
				t.Errorf("got %s", got)
			}
			s.ask(http.MethodDelete, "/r/SHA256SUMS", "").want(http.StatusNoContent)
			s.ask(http.MethodGet, "/r/SHA256SUMS", "").want(http.StatusOK, "  a\n")
			s.ask(http.MethodDelete, "/r/SHA256SUMS", "").want(http.StatusNotFound)
		},

		"what is listed changes": func(t *testing.T, s *site) {
			s.put("/a", "x").want(http.StatusCreated)
			for _, step := range []struct{ method, path, want string }{
				{http.MethodPut, "/b/c", "a b/"},
				{http.MethodPut, "/b/d", "a b/"},
				{http.MethodDelete, "/b/c", "a b/"},
				{http.MethodDelete, "/b/d", "a"},
				{http.MethodPut, "/0", "0 a"},
			} {
				if a := s.ask(step.method, step.path, "x", "Repr-Digest: "+field("x")); a.status >= 300 {
					t.Fatalf("%d: %s", a.status, a.body)
				}
				if got := names(s.listing("/")); got != step.want {
					t.Errorf("after %s %s: %s, want %s", step.method, step.path, got, step.want)
				}
			}
		},
	}
}

func TestAPageLeadsToWhatItLists(t *testing.T) {
	s := newSite(t, openDir(t))
	odd := []string{
		"a", "javascript:alert(1)", "<script>alert(1)<!--", `"quoted" 'name'`, "50%", "a&amp;b", "?q#f", "été", "~x", "a b",
	}
	for _, name := range odd {
		s.put("/f&o/"+url.PathEscape(name), name).want(http.StatusCreated)
	}
	s.put("/f&o/sub%3Adir/x", "x").want(http.StatusCreated)
	a := s.ask(http.MethodGet, "/f&o/", "", "Accept: text/html,application/xhtml+xml,*/*;q=0.8").want(http.StatusOK).
		wantHeader("Content-Type: text/html; charset=utf-8")
	if policy := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; ") {
		t.Errorf("a page may have %q", policy)
	}
	if strings.Contains(a.body, "<script") {
		t.Error("a name is markup")
	}
	base := &url.URL{Scheme: "http", Host: "files.example.org", Path: "/f&o/"}
	links := pageLinks(t, a.body)
	for _, name := range odd {
		href, ok := links[name]
		if !ok {
			t.Errorf("%q is not listed", name)
			continue
		}
		to, err := base.Parse(href)
		if err != nil || to.Host != base.Host {
			t.Errorf("%q leads to %q: %v", name, href, err)
			continue
		}
		s.holds(to.RequestURI(), name)
	}
	for name, want := range map[string]string{"files.example.org": "/", "sub:dir/": "/f&o/sub:dir/"} {
		to, err := base.Parse(links[name])
		if err != nil || to.Path != want {
			t.Errorf("%q leads to %v, want %s: %v", name, to, want, err)
		}
	}
	a = s.ask(http.MethodGet, "/f&o/?n=2", "", "Accept: text/html").want(http.StatusOK)
	next, err := base.Parse(pageLinks(t, a.body)["Next page"])
	if err != nil {
		t.Fatal(err)
	}
	if l := s.listing(next.RequestURI()); len(l.Entries) != 2 {
		t.Errorf("next page %s: %s", next, names(l))
	}
}

// pageLinks is the links of a page, by their text.
func pageLinks(t *testing.T, page string) map[string]string {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	links := map[string]string{}
	for node := range root.Descendants() {
		if node.Type == html.ElementNode && node.Data == "a" {
			for _, attribute := range node.Attr {
				if attribute.Key == "href" {
					links[node.FirstChild.Data] = attribute.Val
				}
			}
		}
	}
	return links
}

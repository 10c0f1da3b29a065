package folder_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

const root = "https://files.example.org/files/"

// shelf is files in memory. It gives a few entries at a time only, as any Lister
// may.
type shelf struct {
	folder.Tree[folder.Entry]
	few int // at most so many at a time; 0 for as many as wanted
}

func (s *shelf) List(_ context.Context, path, after string, limit int) ([]folder.Entry, string, error) {
	if s.few > 0 {
		limit = min(limit, s.few)
	}
	items, next, ok := s.Page(path, after, limit)
	if !ok {
		return nil, "", fmt.Errorf("%s/ %w", path, folder.ErrNotExist)
	}
	entries := make([]folder.Entry, len(items))
	for i := range items {
		entries[i] = items[i].Value
		entries[i].Name = items[i].Name
	}
	return entries, next, nil
}

// set puts a file with the content.
func (s *shelf) set(path, content string) {
	s.Set(path, folder.Entry{
		SHA256: digest.FromString(content).Encoded(), Size: int64(len(content)),
		Modified: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC),
	})
}

// ask asks for a page that has to be there.
func ask(t testing.TB, l folder.Lister, path, query, accept string) *folder.Document {
	t.Helper()
	d, err := folder.List(t.Context(), l, &folder.Request{Root: root, Path: path, Query: query, Accept: []string{accept}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func askJSON(t testing.TB, l folder.Lister, path, query string) *folder.Page {
	t.Helper()
	var p folder.Page
	if err := json.Unmarshal(ask(t, l, path, query, "application/json").Body, &p); err != nil {
		t.Fatal(err)
	}
	return &p
}

func names(p *folder.Page) string {
	var all []string
	for _, e := range p.Entries {
		all = append(all, e.Name)
	}
	return strings.Join(all, " ")
}

func TestPageSaysWhatIsKnown(t *testing.T) {
	var s shelf
	s.set("v1/kubectl", "binary")
	s.Set("v1/unknown", folder.Entry{Size: -1})
	s.set("v1/bin/x", "x")
	sum := digest.FromString("binary").Encoded()
	text := ask(t, &s, "v1", "", "*/*")
	want := "-\t-\t-\tbin/\n" + sum + "\t6\t2026-11-23T10:00:00Z\tkubectl\n-\t-\t-\tunknown\n"
	if string(text.Body) != want {
		t.Errorf("got\n%swant\n%s", text.Body, want)
	}
	want = `{"path":"v1/","entries":[{"name":"bin/","size":0},{"name":"kubectl","sha256":"` + sum +
		`","size":6,"modified":"2026-11-23T10:00:00Z"},{"name":"unknown","size":-1}]}` + "\n"
	if got := string(ask(t, &s, "v1", "", "application/json").Body); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := string(ask(t, &shelf{}, "", "", "application/json").Body); got != `{"path":"","entries":[]}`+"\n" {
		t.Errorf("of nothing: %s", got)
	}
	if _, err := folder.List(t.Context(), &s, &folder.Request{Root: root, Path: "v2"}); !errors.Is(err, folder.ErrNotExist) {
		t.Errorf("of no folder: %v", err)
	}
}

func TestPagesMakeUpTheFolder(t *testing.T) {
	s := shelf{few: 2}
	for i, name := range []string{"b", "a", "a!b", "a&b", "a/below", "d.1/x", "d-1/x", "z", "é", "c"} {
		s.Set("f/"+name, folder.Entry{Size: int64(i % 3), Modified: time.UnixMilli(int64(i / 4))})
	}
	for query, want := range map[string]string{
		"":                     "a a/ a!b a&b b c d-1/ d.1/ z é",
		"order=desc":           "é z d.1/ d-1/ c b a&b a!b a/ a",
		"sort=size":            "a/ d-1/ d.1/ a&b b c a z a!b é",
		"sort=size&order=desc": "a/ d-1/ d.1/ a!b é a z a&b b c",
		"sort=date":            "a/ d-1/ d.1/ a a!b a&b b z c é",
		"sort=date&order=desc": "a/ d-1/ d.1/ c é z a a!b a&b b",
	} {
		for _, limit := range []string{"1", "3", "10", "1000"} {
			at, got := "n="+limit+"&"+query, ""
			for {
				p := askJSON(t, &s, "f", at)
				got += " " + names(p)
				if p.Next == "" {
					break
				}
				at = strings.TrimPrefix(p.Next, "?")
			}
			if got = strings.TrimSpace(got); got != want {
				t.Errorf("%s in pages of %s: got %s, want %s", cmp.Or(query, "by default"), limit, got, want)
			}
		}
	}
}

func TestPageGoesOnWhateverWentMeanwhile(t *testing.T) {
	for _, query := range []string{"n=2", "n=2&order=desc", "n=2&sort=size", "n=2&sort=date&order=desc"} {
		var s shelf
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			s.set("f/"+name, "same")
		}
		first := askJSON(t, &s, "f", query)
		for _, e := range first.Entries {
			s.Remove("f/" + e.Name)
		}
		got := names(askJSON(t, &s, "f", strings.TrimPrefix(first.Next, "?")))
		want := "c d"
		if strings.HasSuffix(query, "n=2&order=desc") {
			want = "c b"
		}
		if got != want {
			t.Errorf("%s: after %s comes %s, want %s", query, names(first), got, want)
		}
	}
}

func TestQueryThatIsNotUnderstoodIsRefused(t *testing.T) {
	var s shelf
	s.set("f/a", "a")
	for query, want := range map[string]string{
		"n=0": "1 to 10000", "n=x": "1 to 10000", "sort=colour": "want name, size or date", "order=up": "want asc or desc",
		"sort=size&last=a&at=x": "want a number", "%zz": "the query",
	} {
		_, err := folder.List(t.Context(), &s, &folder.Request{Root: root, Path: "f", Query: query})
		if !errors.Is(err, folder.ErrRequest) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", query, err, want)
		}
	}
	for _, query := range []string{"utm_source=x", "n=20000", "last=zzz", "sort=size&last=zzz"} {
		ask(t, &s, "f", query, "")
	}
}

func TestFolderThatIsTooLargeIsNotSortedForARequest(t *testing.T) {
	var s shelf
	for i := range 20001 {
		s.set(fmt.Sprintf("f/%d", i), "x")
	}
	_, err := folder.List(t.Context(), &s, &folder.Request{Root: root, Path: "f", Query: "sort=size"})
	if !errors.Is(err, folder.ErrRequest) || !strings.Contains(err.Error(), "more than 20000 entries") {
		t.Errorf("got %v", err)
	}
	if p := askJSON(t, &s, "f", "n=10000"); len(p.Entries) != 10000 || p.Next == "" {
		t.Errorf("by name there are %d entries, then %q", len(p.Entries), p.Next)
	}
}

func TestPointerShowsTheFolderThatItNames(t *testing.T) {
	var s shelf
	for path, content := range map[string]string{
		"r/v1.35.1/x": "x", "r/v1.36.0/x": "x", "r/stable.txt": "v1.36.0\n", "r/stable-1.35.txt": "v1.35.1",
		"r/old.txt": "v1.34.0\n", "r/twice.txt": "v1.36.0\n\n", "r/v1.36.0.sha": digest.FromString("v1.36.0").Encoded(),
	} {
		s.set(path, content)
	}
	s.Set("r/unsized", folder.Entry{SHA256: digest.FromString("v1.36.0\n").Encoded(), Size: -1})
	for _, e := range askJSON(t, &s, "r", "").Entries {
		want := map[string]string{"stable.txt": "v1.36.0/", "stable-1.35.txt": "v1.35.1/"}[e.Name]
		if e.PointsTo != want {
			t.Errorf("%s points to %q, want %q", e.Name, e.PointsTo, want)
		}
	}
}

func TestDocumentIsSentWithConditions(t *testing.T) {
	var s shelf
	s.set("f/a", "a")
	send := func(method, path, accept, tag string) *http.Response {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("If-None-Match", tag)
		w := httptest.NewRecorder()
		ask(t, &s, "f", "", accept).ServeHTTP(w, r)
		return w.Result()
	}
	whole := send(http.MethodGet, "/f/", "text/html", "")
	want := map[string]string{
		"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-cache", "Vary": "Accept, X-Forwarded-Proto", "X-Content-Type-Options": "nosniff",
	}
	for name, value := range want {
		if got := whole.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	if policy := whole.Header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("the page may have %q", policy)
	}
	tag := whole.Header.Get("Etag")
	if again := send(http.MethodGet, "/f/", "text/html", tag); again.StatusCode != http.StatusNotModified {
		t.Errorf("unchanged: %s", again.Status)
	}
	if other := send(http.MethodGet, "/f/", "application/json", tag); other.StatusCode != http.StatusOK {
		t.Errorf("JSON has the entity tag of HTML: %s", other.Status)
	}
	s.set("f/b", "b")
	if changed := send(http.MethodHead, "/f/", "text/html", tag); changed.StatusCode != http.StatusOK || changed.ContentLength <= whole.ContentLength {
		t.Errorf("changed: %s, %d bytes after %d", changed.Status, changed.ContentLength, whole.ContentLength)
	}
}

func TestRootURLIsTheOneThatClientsUse(t *testing.T) {
	for forwarded, want := range map[string]string{
		"": "http://a.example:8080/files/", "https": "https://a.example:8080/files/", "HTTPS, http": "https://a.example:8080/files/",
		"javascript": "http://a.example:8080/files/",
	} {
		r := httptest.NewRequest(http.MethodGet, "http://a.example:8080/files/x/", nil)
		r.Header.Set("X-Forwarded-Proto", forwarded)
		if got := folder.RootURL(r, "/files/"); got != want {
			t.Errorf("%q: %s, want %s", forwarded, got, want)
		}
	}
	if got := folder.RootURL(httptest.NewRequest(http.MethodGet, "https://a.example/", nil), "/"); got != "https://a.example/" {
		t.Errorf("with TLS: %s", got)
	}
}

// FuzzTree says that a tree lists what a sorted list of its paths has.
func FuzzTree(f *testing.F) {
	f.Add("a a/b a.b -a", uint8(2))
	f.Add("a/b a/c -a/b -a/c a/b/c x -nothing -a/none", uint8(1))
	f.Add("b ? a ? -b c/d ? -c/d a ?", uint8(3))
	f.Fuzz(func(t *testing.T, script string, limit uint8) {
		var tree folder.Tree[int]
		model := map[string]int{}
		for i, step := range strings.Fields(script) {
			path, removes := strings.CutPrefix(step, "-")
			if strings.Trim(path, "/") != path || strings.Contains(path, "//") || path == "" {
				continue
			}
			switch {
			case path == "?":
				tree.Page("", "", 1) // from now on the root is kept sorted
			case removes:
				tree.Remove(path)
				delete(model, path)
			default:
				tree.Set(path, i)
				model[path] = i
			}
		}
		folders := map[string]map[string]bool{"": {}}
		for path, value := range model {
			if got, ok := tree.Get(path); !ok || got != value {
				t.Fatalf("%q is %d, %v, want %d", path, got, ok, value)
			}
			for name := ""; path != ""; name = "/" {
				at := strings.LastIndexByte(path, '/')
				in, element := path[:max(at, 0)], path[at+1:]
				if folders[in] == nil {
					folders[in] = map[string]bool{}
				}
				folders[in][element+name] = true
				path = in
			}
		}
		for path, entries := range folders {
			var want, got []string
			for name := range entries {
				want = append(want, name)
			}
			slices.SortFunc(want, folder.CompareNames)
			for after, more := "", true; more; more = after != "" {
				items, next, ok := tree.Page(path, after, int(limit)+1)
				if !ok || len(items) > int(limit)+1 || !tree.HasFolder(path) {
					t.Fatalf("a page of %q has %d entries, %v", path, len(items), ok)
				}
				for _, item := range items {
					got = append(got, item.Name)
				}
				after = next
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%q lists %q, want %q", path, got, want)
			}
		}
		for path := range model {
			tree.Remove(path)
		}
		if items, next, ok := tree.Page("", "", 10); !ok || len(items) > 0 || next != "" {
			t.Fatalf("emptied, it lists %v", items)
		}
	})
}

package folder_test

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
	"golang.org/x/net/html"
)

// row is what a page shows of an entry.
type row struct {
	name, link string
	pointsTo   string
	commands   string
}

// parsePage reads a page as a browser does, and fails when there is anything in it
// that no page has.
func parsePage(t testing.TB, page []byte) (rows []row, links map[string]string) {
	t.Helper()
	document, err := html.Parse(strings.NewReader(string(page)))
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Fields("html head meta title style body nav ol li h1 h2 p a table thead tbody tr th td code details summary pre time span")
	attributes := strings.Fields("lang charset name content aria-label aria-sort href scope class title datetime rel")
	links = map[string]string{}
	for n := range document.Descendants() {
		if n.Type == html.CommentNode {
			t.Fatalf("a comment: %q", n.Data)
		}
		if n.Type != html.ElementNode {
			continue
		}
		if !slices.Contains(known, n.Data) {
			t.Fatalf("an element %s", n.Data)
		}
		for _, a := range n.Attr {
			if !slices.Contains(attributes, a.Key) {
				t.Fatalf("element %s has attribute %s=%q", n.Data, a.Key, a.Val)
			}
		}
		switch {
		case n.Data == "tr" && n.Parent.Data == "tbody":
			rows = append(rows, row{})
		case n.Data == "a":
			href := attribute(n, "href")
			links[text(n)] = href
			switch n.Parent.Data {
			case "th":
				if len(rows) > 0 {
					rows[len(rows)-1].name, rows[len(rows)-1].link = text(n), href
				}
			case "span":
				rows[len(rows)-1].pointsTo = href
			}
		case n.Data == "pre" && n.Parent.Data == "details":
			rows[len(rows)-1].commands = text(n)
		}
	}
	return rows, links
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for child := range n.Descendants() {
		if child.Type == html.TextNode {
			b.WriteString(child.Data)
		}
	}
	return b.String()
}

// oddNames are names that mean something to a browser, a URL, a shell or sha256sum.
func oddNames() []string {
	return []string{
		"plain", "javascript:alert(1)", "<script>alert(1)<!--", `"><img src=x onerror=alert(1)>`, `it's "quoted"`, "a&amp;b", "?q=1#f", "50%", "%41",
		"a b", " lead and trail ", "-", "--output", "~x", "$(id)`id`$HOME", "!!", "*[a-z]{x,y}", "back\\slash", "new\nline", "carriage\rreturn", "tab\tstop",
		"bell\a1", "esc\x1b[31mred", "\u202egnp.exe", "été-船-😀", "...", "..x", ";x", "a=b+c,d@e", "\\n", "'", "\\", "c1\u0085x",
	}
}

func TestPageLeadsToWhatItListsWhateverTheNames(t *testing.T) {
	var s shelf
	for _, name := range oddNames() {
		s.set("o&d <d>/"+name, name)
		s.set("o&d <d>/"+name+" folder/x", "x")
	}
	page := ask(t, &s, "o&d <d>", "", "text/html").Body
	rows, _ := parsePage(t, page)
	if len(rows) != 2*len(oddNames()) {
		t.Fatalf("%d rows for %d entries", len(rows), 2*len(oddNames()))
	}
	base, err := url.Parse(root + "o&d%20%3Cd%3E/")
	if err != nil {
		t.Fatal(err)
	}
	entries := askJSON(t, &s, "o&d <d>", "").Entries
	for i, row := range rows {
		to, err := base.Parse(row.link)
		if err != nil || to.Host != base.Host || to.RawQuery != "" || to.Path != "/files/o&d <d>/"+entries[i].Name || row.name != entries[i].Name {
			t.Errorf("%q is shown as %q and leads to %q: %v", entries[i].Name, row.name, row.link, err)
		}
	}
}

func FuzzPage(f *testing.F) {
	for _, name := range oddNames() {
		f.Add(name, name+" folder")
	}
	f.Fuzz(func(t *testing.T, name, in string) {
		for _, element := range []string{name, in} {
			if element == "" || element == "." || element == ".." || strings.Contains(element, "/") {
				return
			}
		}
		var s shelf
		s.set(in+"/"+name, in)
		s.set(in+"/"+in+"/x", "x") // and the file may be a pointer to it
		rows, links := parsePage(t, ask(t, &s, in, "n=1", "text/html").Body)
		if len(rows) != 1 {
			t.Fatalf("%d rows", len(rows))
		}
		base, err := url.Parse(root + folder.EscapePath(in) + "/")
		if err != nil {
			t.Fatal(err)
		}
		follow := func(href string) *url.URL {
			to, err := base.Parse(href)
			if err != nil || to.Scheme != base.Scheme || to.Host != base.Host {
				t.Fatalf("%q: %v", href, err)
			}
			return to
		}
		items, _, _ := s.Page(in, "", 1)
		element, isFolder := strings.CutSuffix(items[0].Name, "/")
		want := base.EscapedPath() + url.PathEscape(element)
		if isFolder {
			want += "/"
		}
		if to := follow(rows[0].link); to.EscapedPath() != want || to.RawQuery != "" || to.Fragment != "" {
			t.Fatalf("%q leads to %s", items[0].Name, to)
		}
		// By way of the next page, where there is one, all of it is reached.
		if next, ok := links["Next page"]; ok {
			if to := follow(next); to.Path != base.Path || len(askJSON(t, &s, in, to.RawQuery).Entries) != 1 {
				t.Fatalf("the next page of %q is %s", in, to)
			}
		}
		if up := follow(links["files.example.org/files"]); up.String() != root {
			t.Fatalf("the root of %q is %s", in, up)
		}
		for line := range strings.Lines(string(ask(t, &s, in, "", "text/plain").Body)) {
			if strings.Count(line, "\t") != 3 {
				t.Fatalf("a line %q", line)
			}
		}
	})
}

func TestPageShowsWhereItIs(t *testing.T) {
	var s shelf
	s.set("release/v1/bin/kubectl", "x")
	s.set("release/stable.txt", "v1\n")
	_, links := parsePage(t, ask(t, &s, "release/v1/bin", "", "text/html").Body)
	for name, want := range map[string]string{"files.example.org/files": "../../../", "release": "../../", "v1": "../", "SHA256SUMS": "./SHA256SUMS"} {
		if links[name] != want {
			t.Errorf("%s leads to %q, want %q", name, links[name], want)
		}
	}
	rows, links := parsePage(t, ask(t, &s, "release", "sort=size&order=desc", "text/html").Body)
	if rows[1].name != "stable.txt" || rows[1].pointsTo != "./v1/" {
		t.Errorf("got %+v", rows)
	}
	for name, want := range map[string]string{"Name": "./?", "Size": "./?sort=size", "Modified (UTC)": "./?sort=date&order=desc", "SHA256SUMS?recursive=1": "./SHA256SUMS?recursive=1"} {
		if links[name] != want {
			t.Errorf("%s leads to %q, want %q", name, links[name], want)
		}
	}
	page := string(ask(t, &s, "release", "sort=size&order=desc", "text/html").Body)
	for _, want := range []string{`<html lang="en">`, `name="viewport"`, `<th scope="col" class="n" aria-sort="descending">`, `title="3 bytes">3 B<`, "1 folder · 1 file, 3 B"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
}

func TestCommandsOfAnUnknownDigestCheckNothing(t *testing.T) {
	var s shelf
	s.Set("f/a", folder.Entry{Size: -1})
	rows, _ := parsePage(t, ask(t, &s, "f", "", "text/html").Body)
	if want := "curl -fLO '" + root + "f/a'"; rows[0].commands != want {
		t.Errorf("got %s, want %s", rows[0].commands, want)
	}
	s.set("f/a", "a")
	rows, _ = parsePage(t, ask(t, &s, "f", "", "text/html").Body)
	if want := "curl -fLO '" + root + "f/a'\necho '" + digest.FromString("a").Encoded() + "  a' | sha256sum -c"; rows[0].commands != want {
		t.Errorf("got %s, want %s", rows[0].commands, want)
	}
}

package folder

import (
	_ "embed"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// style is the page's; its colours are those that the reader's system prefers.
//
//go:embed page.css
var style string

// markup is a page in the making. A page of 10,000 entries is written here in the
// time that html/template takes for 500; so what it knows, where text must be
// escaped and how, is in few methods: text and attribute values by [markup.text],
// where a link leads by [markup.link].
type markup []byte

// raw appends what is markup already.
func (m *markup) raw(parts ...string) {
	for _, part := range parts {
		*m = append(*m, part...)
	}
}

// text appends text, for an element's content or an attribute's value in double
// quotes.
func (m *markup) text(s string) {
	b := *m
	from := 0
	for i := range len(s) {
		c := s[i]
		if c > '>' || c > '\'' && c < '<' {
			continue // as most are
		}
		var escaped string
		switch c {
		case '&':
			escaped = "&amp;"
		case '<':
			escaped = "&lt;"
		case '>':
			escaped = "&gt;"
		case '"':
			escaped = "&#34;"
		case '\'':
			escaped = "&#39;"
		case '\r': // a parser would make it a line feed
			escaped = "&#13;"
		case 0: // no page can have it
			escaped = "\uFFFD"
		default:
			continue
		}
		b = append(b, s[from:i]...)
		b = append(b, escaped...)
		from = i + 1
	}
	*m = append(b, s[from:]...)
}

// link begins a link to an entry of this folder. "./" keeps a colon in the name
// from making it a scheme.
func (m *markup) link(name string) {
	element, isFolder := strings.CutSuffix(name, "/")
	m.raw(`<a href="./`)
	m.text(url.PathEscape(element))
	if isFolder {
		m.raw("/")
	}
	m.raw(`">`)
}

// html is the page as a document.
func (p *Page) html(req *Request, q *query) []byte {
	m := make(markup, 0, 8<<10+768*len(p.Entries))
	at := req.Root + escapedFolder(p.Path)
	_, place, _ := strings.Cut(req.Root, "://")
	place = strings.TrimSuffix(place, "/")
	m.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>")
	m.text(place + "/" + p.Path)
	m.raw("</title>\n<style>", style, "</style>\n</head>\n<body>\n")
	m.heading(place, p.Path)
	m.raw("<p>")
	m.text(p.summary(q))
	m.raw("</p>\n")
	m.table(p, q, at)
	if p.Next != "" {
		m.raw(`<a class="next" rel="next" href="`)
		m.text(p.Next)
		m.raw("\">Next page</a>\n")
	}
	m.commands(p, at)
	m.raw("</body>\n</html>\n")
	return m
}

// escapedFolder is a folder's path, with its slash, as it is written in a URL.
func escapedFolder(path string) string {
	if path == "" {
		return ""
	}
	return EscapePath(strings.TrimSuffix(path, "/")) + "/"
}

// heading is the way from the root to the folder, and its name.
func (m *markup) heading(place, path string) {
	if path == "" {
		m.raw("<h1>")
		m.text(place)
		m.raw("</h1>\n")
		return
	}
	above := strings.Split(strings.TrimSuffix(path, "/"), "/")
	name := above[len(above)-1]
	above[len(above)-1] = ""
	crumb := place
	m.raw("<nav aria-label=\"Folders above\"><ol>")
	for i, element := range above {
		m.raw(`<li><a href="`, strings.Repeat("../", len(above)-i), `">`)
		m.text(crumb)
		m.raw("</a></li>")
		crumb = element
	}
	m.raw("</ol></nav>\n<h1>")
	m.text(name)
	m.raw("/</h1>\n")
}

// summary says what is on the page.
func (p *Page) summary(q *query) string {
	var files, folders int
	var size int64
	for i := range p.Entries {
		switch e := &p.Entries[i]; {
		case e.Folder():
			folders++
		default:
			files++
			size += max(e.Size, 0)
		}
	}
	var parts []string
	if folders > 0 {
		parts = append(parts, count(folders, "folder"))
	}
	if files > 0 {
		parts = append(parts, count(files, "file")+", "+string(appendSize(nil, size)))
	}
	if len(parts) == 0 {
		parts = append(parts, "Nothing here")
	}
	if p.Next != "" || q.last != "" {
		parts = append(parts, "on this page")
	}
	return strings.Join(parts, " · ")
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

func (m *markup) table(p *Page, q *query, at string) {
	m.raw("<table>\n<thead>\n<tr>")
	m.column("Name", "", byName, q)
	m.column("Size", ` class="n"`, bySize, q)
	m.column("Modified (UTC)", "", byDate, q)
	m.raw("<th scope=\"col\">SHA-256</th></tr>\n</thead>\n<tbody>\n")
	var command markup
	command.text(strings.TrimSuffix(string(appendFetch(nil, at, "")), "'"))
	fetch := string(command)
	for i := range p.Entries {
		if e := &p.Entries[i]; e.Folder() {
			m.raw(`<tr><th scope="row">`)
			m.link(e.Name)
			m.text(e.Name)
			m.raw("</a></th><td></td><td></td><td></td></tr>\n")
		} else if e.PointsTo == "" && isPlain(e.Name) && isPlain(e.SHA256) {
			m.plainFile(e, fetch)
		} else {
			m.file(e, at)
		}
	}
	m.raw("</tbody>\n</table>\n")
}

// column is the head of a column, which leads to the page sorted by it: the other
// way where it is sorted so already, and largest and newest first.
func (m *markup) column(title, attributes string, by sorting, q *query) {
	to := query{limit: q.limit, sort: by, descending: by != byName}
	m.raw(`<th scope="col"`, attributes)
	if q.sort == by {
		to.descending = !q.descending
		m.raw(` aria-sort="`, direction(q.descending), `"`)
	}
	m.raw(`><a href="./?`)
	m.text(to.String())
	m.raw(`">`, title, `</a></th>`)
}

func direction(descending bool) string {
	if descending {
		return "descending"
	}
	return "ascending"
}

// file is the row of a file in the folder at a URL.
func (m *markup) file(e *Entry, at string) {
	m.raw(`<tr><th scope="row">`)
	m.link(e.Name)
	m.text(e.Name)
	m.raw("</a>")
	if e.PointsTo != "" {
		m.raw("<span> → ")
		m.link(e.PointsTo)
		m.text(e.PointsTo)
		m.raw("</a></span>")
	}
	m.facts(e)
	m.raw("<code>")
	m.text(e.SHA256)
	m.raw(`</code><details><summary aria-label="Commands for `)
	m.text(e.Name)
	m.raw(`">get</summary><pre>`)
	commands := appendFetch(nil, at, e.Name)
	if e.SHA256 != "" {
		commands = append(commands, '\n')
		commands = appendCheck(commands, e.SHA256, e.Name)
	}
	m.text(string(commands))
	m.raw("</pre></details></td></tr>\n")
}

// plainFile is the same of a file whose name and digest are plain, as most are, and
// which is no pointer. fetch is the markup of the command up to the name.
func (m *markup) plainFile(e *Entry, fetch string) {
	m.raw(`<tr><th scope="row"><a href="./`, e.Name, `">`, e.Name, "</a>")
	m.facts(e)
	m.raw("<code>", e.SHA256, `</code><details><summary aria-label="Commands for `, e.Name, `">get</summary><pre>`,
		fetch, e.Name, "&#39;\necho &#39;", e.SHA256, "  ", e.Name, "&#39; | sha256sum -c</pre></details></td></tr>\n")
}

// isPlain says whether a name is the same as text, in a URL and in a shell, and
// means nothing to a program.
func isPlain(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', 'A' <= c && c <= 'Z', c == '.', c == '_':
		case c == '-' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// facts are the cells of size and date.
func (m *markup) facts(e *Entry) {
	m.raw(`</th><td class="n"`)
	if e.Size >= 0 {
		m.raw(` title="`)
		*m = strconv.AppendInt(*m, e.Size, 10)
		m.raw(` bytes">`)
		*m = appendSize(*m, e.Size)
	} else {
		m.raw(">")
	}
	m.raw("</td><td>")
	if !e.Modified.IsZero() {
		modified := e.Modified.UTC()
		m.raw(`<time datetime="`)
		*m = modified.AppendFormat(*m, time.RFC3339)
		m.raw(`">`)
		*m = modified.AppendFormat(*m, "2006-01-02 15:04")
		m.raw("</time>")
	}
	m.raw("</td><td>")
}

// commands are those for the whole folder.
func (m *markup) commands(p *Page, at string) {
	hasFiles, hasFolders := false, false
	for i := range p.Entries {
		if p.Entries[i].Folder() {
			hasFolders = true
		} else {
			hasFiles = true
		}
	}
	check := func(title, name string) {
		m.raw("<h2>", title, "</h2>\n<pre>")
		m.text("curl -fsSL " + string(appendQuoted(nil, at+name)) + " | sha256sum -c --ignore-missing")
		m.raw("</pre>\n")
	}
	if hasFiles {
		check(`Check what you downloaded from this folder (<a href="./`+SumsName+`">`+SumsName+`</a>)`, SumsName)
	}
	if hasFolders {
		check(`… and from the folders in it (<a href="./`+SumsName+`?recursive=1">`+SumsName+`?recursive=1</a>)`, SumsName+"?recursive=1")
	}
	m.raw("<h2>List it as JSON</h2>\n<pre>")
	m.text("curl -fsSL -H 'Accept: application/json' " + string(appendQuoted(nil, at)))
	m.raw("</pre>\n")
}

// appendSize appends a size in bytes for people.
func appendSize(b []byte, size int64) []byte {
	const units = "KMGTPE"
	if size < 1<<10 {
		return append(strconv.AppendInt(b, size, 10), " B"...)
	}
	value, unit := float64(size)/(1<<10), 0
	for value >= 1023.95 { // which would be written 1024.0
		value /= 1 << 10
		unit++
	}
	b = strconv.AppendFloat(b, value, 'f', 1, 64)
	return append(b, ' ', units[unit], 'i', 'B')
}

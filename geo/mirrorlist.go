package geo

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"math"

	"entrepot/geo/choice"
	"entrepot/registry/folder"
)

// listed is a mirror in a list of those that have a file.
type listed struct {
	Mirror  string  `json:"mirror"`
	URL     string  `json:"url"`
	Country string  `json:"country,omitempty"`
	Tier    string  `json:"tier"`
	CostMs  float64 `json:"cost_ms"`
}

// listing is the answer to ?mirrorlist.
type listing struct {
	Name    string   `json:"name"`
	Digest  string   `json:"digest,omitempty"`
	Size    int64    `json:"size,omitempty"`
	Mirrors []listed `json:"mirrors"`
}

// mirrorList tells where a file is to be had, best first.
func (x *exchange) mirrorList(f *found, choices []choice.Choice) {
	l := listing{Name: f.name, Digest: string(f.digest), Size: max(0, f.size), Mirrors: []listed{}}
	for _, p := range x.places(choices, maxChoices) {
		l.Mirrors = append(l.Mirrors, listed{
			Mirror: p.mirror.Name, URL: p.url, Country: p.mirror.Country.String(), Tier: p.mirror.Tier.String(), CostMs: tenths(p.cost),
		})
	}
	x.answer(&l, mirrorListPage)
}

// tenths rounds to a tenth: more digits than that say nothing of an estimate.
func tenths(v float64) float64 { return math.Round(v*10) / 10 }

// answer sends a value as a page, or as JSON, whichever the client wants.
func (x *exchange) answer(v any, page string) {
	x.w.Header().Set("Vary", "Accept")
	if folder.Preferred(x.r.Header.Values("Accept"), "application/json", "text/html") == "text/html" {
		var body bytes.Buffer
		t, err := template.New("").Parse(pageHead + page)
		if err == nil {
			err = t.Execute(&body, v)
		}
		if err != nil {
			x.fail(err)
			return
		}
		x.w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src '"+styleHash()+"'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		x.document("text/html; charset=utf-8", body.Bytes())
		return
	}
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		x.fail(err)
		return
	}
	x.document("application/json", append(body, '\n'))
}

// pageStyle is of the pages here, which have nothing else to load.
const pageStyle = `:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:75rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;overflow-wrap:anywhere}
form{margin:1rem 0;display:flex;flex-wrap:wrap;gap:.75rem}
input{font:inherit;max-width:100%;padding:.2rem .4rem}
button{font:inherit;padding:.2rem .8rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #8884}
td:last-child{overflow-wrap:anywhere}
.out{opacity:.65}`

const pageHead = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><style>` + pageStyle + `</style>`

// styleHash is by what the content security policy lets the style through.
func styleHash() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

const mirrorListPage = `<title>Mirrors of {{.Name}}</title></head><body>
<h1>Mirrors of {{.Name}}</h1>
{{with .Digest}}<p>Digest: <code>{{.}}</code></p>{{end}}
<ol>{{range .Mirrors}}<li><a href="{{.URL}}" rel="noreferrer">{{.URL}}</a> ({{.Mirror}}{{with .Country}}, {{.}}{{end}}, {{.Tier}})</li>{{end}}</ol>
</body></html>
`

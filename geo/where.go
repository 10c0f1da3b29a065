package geo

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"entrepot/geo/choice"
	"entrepot/geo/locate"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Explanation is why a client is sent where it is sent.
type Explanation struct {
	Client  string        `json:"client"`
	Place   PlaceView     `json:"location"`
	Request string        `json:"request,omitempty"`
	What    string        `json:"what,omitempty"`
	Mirrors []MirrorPlace `json:"mirrors"`
}

// PlaceView is where a client is, and who says so.
type PlaceView struct {
	Source    string   `json:"source"`
	Country   string   `json:"country,omitempty"`
	Continent string   `json:"continent,omitempty"`
	Lat       *float64 `json:"lat,omitempty"`
	Lon       *float64 `json:"lon,omitempty"`
	RadiusKm  float64  `json:"radius_km,omitempty"`
	ASN       uint32   `json:"asn,omitempty"`
	Cloud     string   `json:"cloud,omitempty"`
	Region    string   `json:"region,omitempty"`
}

// MirrorPlace is the place of a mirror in a choice.
type MirrorPlace struct {
	Name string `json:"name"`
	Tier string `json:"tier"`
	// Rank is from 1; 0 is that of a mirror that was passed over, for Reason.
	Rank   int     `json:"rank,omitempty"`
	CostMs float64 `json:"cost_ms,omitempty"`
	Class  string  `json:"class,omitempty"`
	Reason string  `json:"reason,omitempty"`
	// Incomplete mirrors are asked for the content before they are used.
	Incomplete bool   `json:"asked_first,omitempty"`
	URL        string `json:"url,omitempty"`
}

func viewPlace(p *locate.Place) PlaceView {
	v := PlaceView{
		Source: p.Source.String(), Country: p.Country.String(), Continent: p.Continent.String(),
		ASN: p.ASN, Cloud: p.Cloud, Region: p.Region,
	}
	if p.Located {
		v.Lat, v.Lon, v.RadiusKm = &p.Lat, &p.Lon, p.Radius
	}
	return v
}

// Explain says where a client would be sent for a request: a path as it would
// send it, such as /v2/library/nginx/blobs/sha256:…; "/v2/" explains the choice
// of names at the default upstream. size is the content's in bytes, negative when
// it is not known. Errors are those of the request.
func (rt *Router) Explain(ctx context.Context, client netip.Addr, secure bool, request string, size int64) (*Explanation, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, request, http.NoBody)
	if err != nil || !strings.HasPrefix(request, "/") || r.URL.Host != "" {
		return nil, badWhere("%q is no path: want one such as /v2/library/nginx/manifests/latest", request)
	}
	r.Host = ""
	x := exchange{rt: rt, r: r, view: rt.view.Load()}
	x.query.Client, x.query.Secure, x.query.Size = client, secure, -1
	x.query.Place = rt.cfg.Locate(client)
	if err := x.parse(); err != nil { //nolint:contextcheck // the context is the request's, which x holds
		return nil, err
	}
	if size >= 0 {
		x.query.Size = size
	}
	x.query.Avoid = queryValue(r.URL, "avoid")
	return x.explain(request), nil
}

// parse says what a request asks for, in the words of the choice.
func (x *exchange) parse() error {
	if registry.IsAPI(x.r.URL.Path) {
		req, err := registry.ParseRequest(x.r)
		if err != nil {
			return err
		}
		if req.Kind == registry.KindBase {
			x.query.Namespace, x.target.Namespace = x.rt.cfg.DefaultImages, x.rt.cfg.DefaultImages
			return nil
		}
		return x.parseImage(&req)
	}
	req, err := registry.ParseFileRequest(x.r)
	if err != nil {
		return err
	}
	f, err := x.rt.find(&req)
	if err != nil {
		return err
	}
	return x.parseFile(f, false)
}

func (x *exchange) explain(request string) *Explanation {
	e := &Explanation{
		Client: "unknown", Place: viewPlace(&x.query.Place), Request: request, What: x.query.What.String(),
		Mirrors: make([]MirrorPlace, 0, x.view.list.Len()),
	}
	if x.query.Client.IsValid() {
		e.Client = x.query.Client.String()
	}
	for _, m := range x.view.list.Explain(&x.query, x.view.states) {
		mirror := x.view.list.Mirror(m.Index)
		p := MirrorPlace{Name: mirror.Name, Tier: mirror.Tier.String(), Rank: m.Rank, Reason: m.Reason}
		if m.Rank > 0 {
			p.CostMs, p.Class, p.Incomplete = tenths(m.Cost), m.Class.String(), mirror.Incomplete && x.query.What != choice.Names
			if x.target != (choice.Target{}) {
				p.URL = mirror.Location(x.query.Secure, &x.target)
			}
		}
		e.Mirrors = append(e.Mirrors, p)
	}
	slices.SortStableFunc(e.Mirrors, func(a, b MirrorPlace) int { // those without a rank come last
		return cmp.Compare(uint(a.Rank-1), uint(b.Rank-1))
	})
	return e
}

func badWhere(format string, args ...any) error {
	e := registry.Errorf(errcode.ErrorCodeUnsupported, format, args...)
	e.Status = http.StatusBadRequest
	return e
}

// where explains to a client where it would be sent: for ?request=PATH, and of
// content of ?size=BYTES. It tells nobody of other clients.
func (x *exchange) where() error {
	values := x.r.URL.Query()
	request, size := values.Get("request"), int64(-1)
	if request == "" {
		request = "/v2/"
	}
	if text := values.Get("size"); text != "" { // a form sends it empty
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return badWhere("size %q is none: want bytes, such as 1048576", text)
		}
		size = n
	}
	e, err := x.rt.Explain(x.r.Context(), x.query.Client, x.query.Secure, request, size)
	if err != nil {
		return err
	}
	x.answer(e, wherePage)
	return nil
}

const wherePage = `<title>Where you would be sent</title></head><body>
<h1>Where you would be sent</h1>
<p>You come from <b>{{.Client}}</b>, which is in {{with .Place}}<b>{{with .Country}}{{.}}{{else}}no known country{{end}}</b>{{with .Cloud}}, {{.}}{{end}}{{with .Region}} {{.}}{{end}}{{with .ASN}}, AS{{.}}{{end}}
(source: {{.Source}}){{end}}, and ask for: {{.What}}.</p>
<form><label>Request <input name="request" size="60" value="{{.Request}}"></label>
<label>Size in bytes, if known <input name="size" size="12" inputmode="numeric"></label> <button>Explain</button></form>
<div class="wide"><table><thead><tr><th>Rank<th>Mirror<th>Tier<th>Cost, ms<th>Why<th>URL</tr></thead><tbody>
{{range .Mirrors}}<tr{{if not .Rank}} class="out"{{end}}><td>{{if .Rank}}{{.Rank}}{{else}}–{{end}}<td>{{.Name}}<td>{{.Tier}}<td>{{if .Rank}}{{.CostMs}}{{end}}<td>{{.Reason}}{{.Class}}{{if .Incomplete}}; asked first whether it has it{{end}}<td>{{.URL}}</tr>
{{end}}</tbody></table></div>
</body></html>
`

package geo

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"entrepot/geo/choice"
	"entrepot/geo/locate"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/prometheus/client_golang/prometheus"
)

// Config configures a [Router].
type Config struct {
	// Mirrors returns the mirrors, and the state of each by its index. It is
	// called about every second: what it returns may change with each call.
	Mirrors func() (*choice.List, []choice.State)
	// Locate says where an address is. It is called for every request.
	Locate func(netip.Addr) locate.Place
	// Forwarders are whose forwarding headers are believed; nil means nobody's.
	Forwarders *locate.Forwarders
	// Presence asks mirrors that may lack content, and origins how large it is; nil
	// means that the former are not used, and that no size is known.
	Presence Presence

	// Images are the upstreams of images, and DefaultImages the one that is meant
	// when a request names none; "" means that none is. One whose own name is ""
	// stands for all that have none here: names are left to the mirrors.
	Images        []Images
	DefaultImages string
	// Files are the upstreams of files, and DefaultFiles the one of names at the
	// top; "" means that there is none.
	Files        []Files
	DefaultFiles string

	// Fallback is where clients are sent when no mirror is fit: a node by its
	// URLs. Nil means 503.
	Fallback *choice.Mirror
	// Cosign, if not nil, has the signatures and attestations that cosign keeps at
	// tags.
	Cosign *choice.Mirror
	// Fixed serves the clients and hosts that are not to be redirected.
	Fixed Fixed

	// Suspect, when set, is told of a mirror that a client came back from.
	Suspect func(mirror string)
	// Done, when set, is called at the end of every request, but for those that Fixed
	// serves.
	Done       func(*Observation)
	Logger     *slog.Logger // nil discards
	Registerer prometheus.Registerer
}

// Presence says what mirrors have.
type Presence interface {
	// Has says whether a mirror has what a target means. An error says that it is
	// not known, in time.
	Has(ctx context.Context, m *choice.Mirror, secure bool, t *choice.Target) (bool, error)
	// Size is how large it is there, in bytes; negative when the mirror does not
	// say. Errors are those of Has.
	Size(ctx context.Context, m *choice.Mirror, t *choice.Target) (int64, error)
	// Tell calls then with that size, now when it is known, and else from another
	// goroutine when the mirror says so, or never.
	Tell(m *choice.Mirror, t *choice.Target, then func(size int64))
}

// Fixed is who is served by a node in the same process, for networks in which one
// name may be reached and no other.
type Fixed struct {
	Hosts   []string       // of the Host header, without a port
	Clients []netip.Prefix // of clients
	Handler http.Handler   // nil when nobody is
}

// Observation is what became of a request, for access logs.
type Observation struct {
	Method, Path string
	Client       netip.Addr // invalid when it could not be told
	Place        locate.Place
	Status       int
	Mirror       string // where the client was sent, "" for nowhere
	Attempt      int
	Start        time.Time
	Duration     time.Duration
	Err          error // why it was refused
}

// Router is the one name. It is safe for concurrent use.
type Router struct {
	cfg       Config
	images    map[string]*Images
	files     map[string]*Files
	attempts  *attempts
	metrics   *metrics
	values    headerValues
	exchanges sync.Pool // of *exchange

	refreshing sync.Mutex
	view       atomic.Pointer[view]
}

// headerValues are header values that never change, ready to be put into a
// response's header. They are shared: nothing writes to them.
type headerValues struct{ noStore, noReferrer []string }

// New makes a router. Its views of the mirrors are kept new by [Router.Run].
// Errors say what of cfg is wrong.
func New(cfg Config) (*Router, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Forwarders == nil {
		cfg.Forwarders = locate.NewForwarders(nil)
	}
	rt := &Router{cfg: cfg, attempts: newAttempts(), metrics: newMetrics(cfg.Registerer), images: map[string]*Images{}, files: map[string]*Files{}}
	rt.exchanges.New = func() any { return new(exchange) }
	rt.values = headerValues{noStore: []string{"private, no-store"}, noReferrer: []string{"no-referrer"}}
	for i := range cfg.Images {
		rt.images[cfg.Images[i].Name] = &cfg.Images[i]
	}
	for i := range cfg.Files {
		rt.files[cfg.Files[i].Name] = &cfg.Files[i]
	}
	switch {
	case cfg.DefaultImages != "" && rt.images[cfg.DefaultImages] == nil:
		return nil, errors.New("the default upstream " + cfg.DefaultImages + " is not among the upstreams")
	case cfg.DefaultFiles != "" && rt.files[cfg.DefaultFiles] == nil:
		return nil, errors.New("the default of files " + cfg.DefaultFiles + " is not among the files")
	}
	rt.refresh(0)
	return rt, nil
}

// ServeHTTP implements http.Handler.
func (rt *Router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := rt.exchanges.Get().(*exchange)
	defer func() {
		*x = exchange{}
		rt.exchanges.Put(x)
	}()
	*x = exchange{rt: rt, w: w, r: r, view: rt.view.Load()}
	if rt.cfg.Done != nil {
		x.obs = Observation{Method: r.Method, Path: r.URL.Path, Start: time.Now()}
		defer func() {
			if x.obs.Duration = time.Since(x.obs.Start); !x.served {
				rt.cfg.Done(&x.obs)
			}
		}()
	}
	x.serve() //nolint:contextcheck // the context is the request's, which x holds
}

// exchange is one request and its answer.
type exchange struct {
	rt   *Router
	w    http.ResponseWriter
	r    *http.Request
	view *view
	obs  Observation
	// served says that the node did, which has a log of its own.
	served bool

	query  choice.Query
	target choice.Target
}

func (x *exchange) serve() {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.w.Header().Set("Allow", "GET, HEAD")
		e := registry.Errorf(errcode.ErrorCodeUnsupported, "%s is not possible here: the router reads only; promotion writes at the origin", x.r.Method)
		e.Status = http.StatusMethodNotAllowed
		x.fail(e)
		return
	}
	client, err := x.rt.cfg.Forwarders.Client(x.r)
	if err != nil {
		e := registry.Errorf(errcode.ErrorCodeUnsupported, "%w: send one of X-Forwarded-For and Forwarded, with addresses", err)
		e.Status = http.StatusBadRequest
		x.fail(e)
		return
	}
	x.obs.Client = client.Addr
	if x.fixed(client.Addr) {
		x.served = true
		x.rt.cfg.Fixed.Handler.ServeHTTP(x.w, x.r)
		return
	}
	x.query.Client, x.query.Secure, x.query.Size = client.Addr, client.Secure, -1
	x.query.Place = x.rt.cfg.Locate(client.Addr)
	x.obs.Place = x.query.Place
	switch path := x.r.URL.Path; {
	case registry.IsAPI(path):
		err = x.image()
	case path == "/where":
		err = x.where()
	case path == "/":
		x.welcome()
	default:
		err = x.file()
	}
	if err != nil {
		x.fail(err)
	}
}

// fixed says whether the client is to be served and not redirected.
func (x *exchange) fixed(client netip.Addr) bool {
	f := &x.rt.cfg.Fixed
	if f.Handler == nil {
		return false
	}
	host := hostOnly(x.r.Host)
	return slices.ContainsFunc(f.Hosts, func(h string) bool { return strings.EqualFold(h, host) }) ||
		slices.ContainsFunc(f.Clients, func(p netip.Prefix) bool { return p.Contains(client) })
}

// hostOnly is a host without its port.
func hostOnly(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}

// retryLater is when a client that no mirror is fit for should come back.
const retryLater = 10 * time.Second

// choose returns the mirrors for the request, best first.
func (x *exchange) choose(into []choice.Choice) []choice.Choice {
	if x.r.URL.RawQuery != "" {
		x.query.Avoid = queryValue(x.r.URL, "avoid")
	}
	return x.view.list.Choose(&x.query, x.view.states, into)
}

// chooseAgain does so for a client that is to be sent to one of them: it notes how
// often the client came back, and from which mirror.
func (x *exchange) chooseAgain(into []choice.Choice) []choice.Choice {
	if x.r.Method == http.MethodGet && x.query.Client.IsValid() { // a HEAD before it is no attempt
		x.query.Attempt = x.rt.attempts.next(x.query.Client, x.r.UserAgent(), x.r.URL.Path, x.r.Header.Get("Range"))
		x.obs.Attempt = x.query.Attempt
	}
	choices := x.choose(into)
	if suspect := x.rt.cfg.Suspect; suspect != nil {
		if x.query.Avoid != "" {
			suspect(x.query.Avoid)
		}
		if x.query.Attempt > 0 && len(choices) > 0 { // the one that it had before is the last now
			suspect(x.view.list.Mirror(choices[len(choices)-1].Index).Name)
		}
	}
	return choices
}

// location is where the client is sent: to the best mirror that has the content,
// else to the fallback. It returns the mirror's index, -1 for the fallback.
func (x *exchange) location(choices []choice.Choice) (index int, location string, err error) {
	for _, c := range choices {
		m := x.view.list.Mirror(c.Index)
		location := m.Location(x.query.Secure, &x.target)
		if location == "" || !x.has(m) {
			continue
		}
		return c.Index, location, nil
	}
	if f := x.rt.cfg.Fallback; f != nil {
		if location := f.Location(x.query.Secure, &x.target); location != "" {
			return -1, location, nil
		}
	}
	e := registry.Errorf(errcode.ErrorCodeUnavailable, "no mirror is fit to serve this now: %s; /where?request=PATH tells why", x.whyNone())
	e.RetryAfter = retryLater
	return -1, "", e
}

// has says whether a mirror has the content, as far as that has to be asked.
func (x *exchange) has(m *choice.Mirror) bool {
	if !m.Incomplete || x.query.What == choice.Names {
		return true
	}
	if x.rt.cfg.Presence == nil {
		return false
	}
	has, err := x.rt.cfg.Presence.Has(x.r.Context(), m, x.query.Secure, &x.target)
	if err != nil {
		x.rt.cfg.Logger.DebugContext(x.r.Context(), "asking a mirror for content failed", "mirror", m.Name, "error", err)
	}
	return has && err == nil
}

// whyNone is the reason that passed over the first mirror, of the most trusted.
func (x *exchange) whyNone() string {
	reason := "there are none"
	best := choice.Community + 1
	for _, e := range x.view.list.Explain(&x.query, x.view.states) {
		if m := x.view.list.Mirror(e.Index); m.Tier < best {
			best = m.Tier
			if reason = m.Name + ": " + e.Reason; e.Reason == "" {
				reason = m.Name + ": it lacks the content, or did not say in time whether it has it"
			}
		}
	}
	return reason
}

// redirect sends the client on, and counts it.
func (x *exchange) redirect(status, index int, location string) {
	x.obs.Mirror = "fallback"
	if index >= 0 {
		x.obs.Mirror = x.view.list.Mirror(index).Name
		x.count(index)
	} else {
		x.rt.metrics.fellBack(&x.query)
	}
	header := x.w.Header()
	header["Location"] = []string{location}
	header["Cache-Control"] = x.rt.values.noStore // it is this client's, now
	if status == http.StatusFound {
		header["Referrer-Policy"] = x.rt.values.noReferrer // browsers follow these
	}
	x.obs.Status = status
	x.w.WriteHeader(status)
}

// fail answers with an error.
func (x *exchange) fail(err error) {
	x.obs.Err = err
	var told *registry.Error
	if !errors.As(err, &told) {
		x.rt.cfg.Logger.ErrorContext(x.r.Context(), "request failed", "path", x.r.URL.Path, "error", err)
		told = &registry.Error{Code: errcode.ErrorCodeUnknown, Message: "internal error: the log of this router has the reason"}
	}
	told.ServeHTTP(x.w, x.r)
	x.obs.Status = told.StatusCode()
	x.rt.metrics.refused(x.obs.Status)
}

// queryValue is the first value of a parameter; "" when there is none, or a
// malformed one.
func queryValue(u *url.URL, key string) string { return u.Query().Get(key) }

// welcome tells a person where they are.
func (x *exchange) welcome() {
	x.obs.Status = http.StatusOK
	x.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = x.w.Write([]byte("This is an entrepot router: it sends each request for an image or a file to the nearest mirror.\n" +
		"/where says where it would send you, and why.\n"))
}

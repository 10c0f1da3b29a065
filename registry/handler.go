package registry

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultWriteTimeout is how long a client has for every 4 MiB of a body,
// unless configured.
const DefaultWriteTimeout = 5 * time.Minute

// DefaultManifestMemory is what large manifests may take, in bytes, unless
// configured.
const DefaultManifestMemory = 256 << 20

// Config configures a [Handler].
type Config struct {
	// Backend answers the requests. One that is a [Writer] is written to too.
	Backend Backend
	// Authorizer says who may write. Nil lets nobody.
	Authorizer Authorizer
	// Readers says who may read. Nil lets everybody.
	Readers Readers
	// Logger is told what a client is not: the text of unexpected errors, and
	// transfers that had to be cut. Nil discards it.
	Logger *slog.Logger
	// Done, when set, is called once at the end of every request. The
	// Observation is valid during the call only.
	Done func(*Observation)
	// Name is this cache's name in Cache-Status (RFC 9211); "" means "entrepot".
	Name string
	// WriteTimeout is how long a client may take for every 4 MiB of a body,
	// received or sent, before it is cut off; 0 means [DefaultWriteTimeout], negative no limit.
	// Bodies of 64 KiB and less are left to the server's own timeouts.
	WriteTimeout time.Duration
	// ManifestMemory bounds, in bytes, the manifests of more than 64 KiB that are
	// being sent to or received from clients at once; more are told 503. 0 means
	// [DefaultManifestMemory].
	ManifestMemory int64
}

// Observation is what became of a request, for access logs and metrics.
type Observation struct {
	Request  *Request      // as far as it was understood; never nil
	Method   string        // as sent
	Path     string        // decoded, without the query
	Client   string        // address and port
	Status   int           // as sent; 499 when the client was gone before
	Bytes    int64         // of the body, sent
	Cache    CacheStatus   // as the backend said
	Start    time.Time     // when the request reached the handler
	Duration time.Duration // from Start to the last byte handed to the connection
	ID       string        // of the request; sent as X-Request-Id, but with manifests
	Identity string        // who asks, as the Authorizer or Readers said; "" where neither was asked
	Err      error         // why the request failed or was cut; nil when all was well
}

// Handler is the API: /v2/ and everything below. It is safe for concurrent use.
type Handler struct {
	backend      Backend
	writer       Writer // nil where the backend only reads
	authorizer   Authorizer
	readers      Readers // nil where all may read
	logger       *slog.Logger
	done         func(*Observation)
	writeTimeout time.Duration
	largeLimit   int64
	large        atomic.Int64 // bytes of large manifests in memory for clients
	cache        *cacheHeaders
	values       *headerValues
	exchanges    sync.Pool // of *exchange
	buffers      sync.Pool // of *[copyBuffer]byte
}

// headerValues are the header values that never change, ready to be put into a
// response's header. They are shared: nothing writes to them.
type headerValues struct {
	nosniff, immutable, revalidate, noStore []string
	immutablePrivate, revalidatePrivate     []string
	varyAuthorization                       []string
	octetStream, json, index, text, bytes   []string
	api, allow, artifactType                []string
}

// NewHandler makes a Handler. cfg.Backend must be set.
func NewHandler(cfg Config) *Handler {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		cfg.Name = "entrepot"
	}
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = DefaultWriteTimeout
	}
	if cfg.ManifestMemory == 0 {
		cfg.ManifestMemory = DefaultManifestMemory
	}
	writer, _ := cfg.Backend.(Writer)
	h := &Handler{
		backend:      cfg.Backend,
		writer:       writer,
		authorizer:   cfg.Authorizer,
		readers:      cfg.Readers,
		logger:       cfg.Logger,
		done:         cfg.Done,
		writeTimeout: cfg.WriteTimeout,
		largeLimit:   cfg.ManifestMemory,
		cache:        newCacheHeaders(cfg.Name),
		values: &headerValues{
			nosniff: []string{"nosniff"},
			// Without "public", a shared cache keeps no answer to a request
			// that carried credentials (RFC 9111, section 3.5).
			immutable: []string{"max-age=31536000, immutable"},
			// Names move: a cache may keep the answer, and asks each time
			// whether it still holds, which the entity tag makes cheap.
			revalidate: []string{"no-cache"},
			// The same of what not everybody may read, also where no header
			// of the request says so: who has a certificate sends none.
			immutablePrivate:  []string{"private, max-age=31536000, immutable"},
			revalidatePrivate: []string{"private, no-cache"},
			varyAuthorization: []string{"Authorization"},

			noStore:      []string{"no-store"},
			octetStream:  []string{"application/octet-stream"},
			json:         []string{"application/json"},
			index:        []string{"application/vnd.oci.image.index.v1+json"},
			text:         []string{"text/plain; charset=utf-8"},
			bytes:        []string{"bytes"},
			api:          []string{"registry/2.0"},
			allow:        []string{"GET, HEAD"},
			artifactType: []string{"artifactType"},
		},
	}
	h.exchanges.New = func() any { return &exchange{Handler: h} }
	h.buffers.New = func() any { return new([copyBuffer]byte) }
	return h
}

// ServeHTTP implements http.Handler. It panics with [http.ErrAbortHandler],
// which net/http turns into a cut connection, when a response cannot be
// completed as it was begun.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := h.exchanges.Get().(*exchange)
	x.begin(w, r)
	defer x.end()
	x.serve() //nolint:contextcheck // the context is the request's, which x holds
	x.returned = true
}

// exchange is one request and its response, reused from a pool so that the
// happy path allocates nothing of its own.
type exchange struct {
	*Handler
	w      http.ResponseWriter
	r      *http.Request
	header http.Header // of w

	req  Request
	obs  Observation
	body body

	ranges  [1]byteRange // the usual number
	scratch [512]byte    // for making header values

	plain      bool // errors are told as text: see wantsText
	restricted bool // not everybody may read what is asked for
	returned   bool // serve ended by itself, without a panic
	cut        bool // the connection is to be cut
}

func (x *exchange) begin(w http.ResponseWriter, r *http.Request) {
	x.w, x.r, x.header = w, r, w.Header()
	x.obs = Observation{
		Request: &x.req,
		Method:  r.Method,
		Path:    r.URL.Path,
		Client:  r.RemoteAddr,
	}
	if x.done != nil {
		x.obs.Start = time.Now()
		x.identify()
	}
}

// end tells what became of the request and gives x back.
func (x *exchange) end() {
	if !x.returned && x.obs.Status == 0 {
		x.obs.Status = http.StatusInternalServerError // what net/http makes of a panic
	}
	if x.done != nil {
		x.obs.Duration = time.Since(x.obs.Start)
		x.done(&x.obs)
	}
	if !x.returned {
		return // a panic goes on: what it left is not used again
	}
	cut, h := x.cut, x.Handler
	*x = exchange{Handler: h}
	h.exchanges.Put(x)
	if cut {
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) serve() {
	var err error
	x.req, err = ParseRequest(x.r)
	if x.req.Namespace != "" {
		x.header["Oci-Namespace"] = []string{x.req.Namespace}
	}
	reads := x.r.Method == http.MethodGet || x.r.Method == http.MethodHead
	if !reads && x.writer == nil {
		x.methodNotAllowed()
		return
	}
	if err != nil {
		x.fail(err)
		return
	}
	if !reads {
		x.serveWrite()
		return
	}
	if x.readers != nil && !x.permitted(x.readers.ReadImage(x.r, &x.req)) {
		return
	}
	switch x.req.Kind {
	case KindManifest:
		x.manifest()
	case KindBlob:
		x.blob()
	case KindTags:
		x.tags()
	case KindReferrers:
		x.referrers()
	case KindUpload:
		switch {
		case x.writer == nil:
			x.fail(noSuchEndpoint(x.r.URL.Path))
		case x.req.Upload == "" || x.req.Head:
			x.methodNotAllowed()
		default:
			x.perform(ActionPush, x.uploadStatus)
		}
	default:
		x.ping()
	}
}

// cacheStatus notes where the answer came from, and tells the client.
func (x *exchange) cacheStatus(cs *CacheStatus) {
	x.obs.Cache = *cs
	x.cache.set(x.header, cs)
}

// document sends a whole body that is at hand.
func (x *exchange) document(status int, contentType []string, content []byte) {
	x.showID()
	x.header["Content-Type"] = contentType
	x.header["Content-Length"] = []string{strconv.Itoa(len(content))}
	x.write(status, content)
}

// write sends the headers, and for a GET the content.
func (x *exchange) write(status int, content []byte) {
	x.obs.Status = status
	x.w.WriteHeader(status)
	if x.r.Method == http.MethodHead || len(content) == 0 {
		return
	}
	whole := x.gather(int64(len(content)))
	n, err := x.w.Write(content)
	if whole != nil && err != nil {
		err = errors.Join(err, whole.Send())
	}
	x.obs.Bytes = int64(n)
	if err != nil && x.obs.Err == nil {
		x.obs.Err = err
	}
}

// identify gives the request an id of its own: one that a client sends could
// be made to look like another's in a log.
//
// The id is sent with errors and, where requests are observed, with all that
// can be cut or takes work. It is not sent with a manifest: there it would be
// the ninth header of a warm tag, at which the header's map grows, here and in
// net/http's copy, for a twentieth of what the request costs.
func (x *exchange) identify() {
	if x.obs.ID != "" {
		return
	}
	const digits = "0123456789abcdef"
	var id [16]byte
	for i, n := 0, rand.Uint64(); i < len(id); i, n = i+1, n>>4 { //nolint:gosec // names a request, keeps no secret
		id[i] = digits[n&15]
	}
	x.obs.ID = string(id[:])
}

// showID sends the request's id, if it has one.
func (x *exchange) showID() {
	if x.obs.ID != "" {
		x.header["X-Request-Id"] = []string{x.obs.ID}
	}
}

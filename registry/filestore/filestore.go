// Package filestore is a file store over HTTP: names that point to content by
// digest, over a blobstore. It serves files with ranges and validators, and
// listings of folders, to everybody; whom an Authorizer lets puts files, which
// are verified, and deletes them.
//
// A name is put with the sha256 of what it is to hold, and holds it from one
// moment to the next or not at all. It never changes to other content unless
// that is asked for. To put what is there already stores nothing. Content stays
// when its name goes, so that the name can be set back.
//
// What is asked:
//
//	GET, HEAD /<path>          a file; /<folder>/ lists, and /<folder>/SHA256SUMS
//	                           has the checksums: see package folder
//	GET, HEAD /blobs/sha256:…  content by its digest
//	PUT       /<path>          with Repr-Digest (RFC 9530) or ?digest=sha256:…;
//	                           ?mount=sha256:… takes what is there and sends nothing;
//	                           ?overwrite=1, or If-Match with the present entity
//	                           tag, lets it replace other content
//	DELETE    /<path>
//
// It fetches nothing and evicts nothing. One process uses a store at a time:
// names are remembered in memory. The store is the file store's own: another
// one's garbage collection would not know its files.
package filestore

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// Backing is where files are kept.
type Backing interface {
	blobstore.Store
	blobstore.Records
}

// Config is what a file store is made of.
type Config struct {
	// Store keeps content and names, and nothing else: a [blobstore.Dir]
	// without a size limit, or a [blobstore.S3].
	Store Backing
	// Prefix is the path before all names: "/files" has file a at /files/a.
	// Empty means that names begin at the root.
	Prefix string
	// Authorizer says who may write which path; reading is open. Where it says
	// repository, it is given the path. Nil lets nobody.
	Authorizer registry.Authorizer
	// Listener is told what was put and deleted; nil for nobody.
	Listener Listener
	// WriteTimeout is how long a client may take for every 4 MiB of a body,
	// received or sent. 0 means [registry.DefaultWriteTimeout], negative no limit.
	WriteTimeout time.Duration
	// Logger is told what a client is not: the text of unexpected errors. Nil
	// discards it.
	Logger *slog.Logger
	// Done, when set, is called once at the end of every request. The
	// Observation is valid during the call only.
	Done func(*Observation)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Event is something that happened to a file.
type Event struct {
	Path        string // without Config.Prefix, and without a slash at its start
	Digest      digest.Digest
	Size        int64 // bytes
	ContentType string
	Previous    digest.Digest // what the name held before; "" when it was new
	Caller      registry.Caller
}

// Listener is told of what happened, after it did. Its methods return at once:
// the client waits for them.
type Listener interface {
	Pushed(Event)
	Deleted(Event)
}

// nobody listens.
type nobody struct{}

func (nobody) Pushed(Event)  {}
func (nobody) Deleted(Event) {}

// Observation is what became of a request, for access logs and metrics.
type Observation struct {
	Method   string // as sent
	Path     string // decoded, without the query
	Client   string // address and port
	Status   int    // as sent; 499 when the client was gone before
	Bytes    int64  // of the body, sent
	Start    time.Time
	Duration time.Duration
	ID       string // of the request; sent as X-Request-Id
	Identity string // who wrote, as the Authorizer said
	Err      error  // why the request failed or was cut; nil when all was well
}

// Store is a file store. It is an [http.Handler], and safe for concurrent use.
type Store struct {
	store      Backing
	files      fileOpener // store, where it can open files; else nil
	names      *names
	prefix     string
	authorizer registry.Authorizer
	listener   Listener
	timeout    time.Duration
	log        *slog.Logger
	done       func(*Observation)
	now        func() time.Time
}

// fileOpener is a store whose blobs are files, which the kernel can send.
type fileOpener interface {
	OpenFile(d digest.Digest) (*blobstore.File, error)
}

// New makes a file store. It asks the store for nothing yet: see [Store.Load].
func New(cfg Config) (*Store, error) {
	if limited, ok := cfg.Store.(interface{ Limit() int64 }); ok && limited.Limit() > 0 {
		return nil, fmt.Errorf("opening the file store: its store is limited to %d bytes and would evict files: set no limit", limited.Limit())
	}
	prefix := strings.TrimSuffix(cfg.Prefix, "/")
	if prefix != "" && prefix[0] != '/' {
		return nil, fmt.Errorf("opening the file store: prefix %q does not begin with a slash", cfg.Prefix)
	}
	s := &Store{
		store:      cfg.Store,
		prefix:     prefix,
		authorizer: cfg.Authorizer,
		listener:   cfg.Listener,
		timeout:    cmp.Or(cfg.WriteTimeout, registry.DefaultWriteTimeout),
		log:        cfg.Logger,
		done:       cfg.Done,
		now:        cfg.Now,
	}
	s.files, _ = cfg.Store.(fileOpener)
	if s.listener == nil {
		s.listener = nobody{}
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.names = newNames(cfg.Store, s.log)
	return s, nil
}

// Load reads the names that the store has. The first request does so otherwise;
// of a large store it would wait for it.
func (s *Store) Load(ctx context.Context) error { return s.names.load(ctx) }

// ServeHTTP implements [http.Handler]. It panics with [http.ErrAbortHandler],
// which net/http turns into a cut connection, when a response cannot be
// completed as it was begun.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{
		Store: s,
		r:     r,
		w:     newPacedWriter(w, r, s.timeout),
		obs: Observation{
			Method: r.Method, Path: r.URL.Path, Client: r.RemoteAddr, Start: time.Now(), ID: newID(),
		},
	}
	defer x.end()
	x.w.Header().Set("X-Request-Id", x.obs.ID)
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := x.serve(); err != nil { //nolint:contextcheck // the context is the request's, which x holds
		x.fail(err) //nolint:contextcheck // as above
	}
	x.returned = true
}

// exchange is one request and its response.
type exchange struct {
	*Store
	r *http.Request
	w *pacedWriter

	obs      Observation
	returned bool // ended by itself, without a panic
	cut      bool // the connection is to be cut
}

// end tells what became of the request.
func (x *exchange) end() {
	x.obs.Duration = time.Since(x.obs.Start)
	x.obs.Bytes = x.w.written
	switch {
	case x.obs.Status != 0:
	case x.returned:
		x.obs.Status = cmp.Or(x.w.status, http.StatusOK)
	default:
		x.obs.Status = http.StatusInternalServerError // what net/http makes of a panic
	}
	if x.done != nil {
		x.done(&x.obs)
	}
	if x.returned && x.cut {
		// The server would wait for the rest of the request's body first.
		_ = x.w.connection.SetReadDeadline(time.Now()) // one in memory has none
		panic(http.ErrAbortHandler)
	}
}

// serve answers the request, or returns why it did not.
func (x *exchange) serve() error {
	t, err := parseTarget(x.r.URL.EscapedPath(), x.prefix)
	if err != nil {
		return err
	}
	switch method := x.r.Method; {
	case method == http.MethodGet || method == http.MethodHead:
		return x.get(t)
	case t.kind == targetFile && method == http.MethodPut:
		return x.put(t.path)
	case t.kind == targetFile && method == http.MethodDelete:
		return x.delete(t.path)
	case t.kind == targetFile:
		return x.methodNotAllowed("GET, HEAD, PUT, DELETE")
	default:
		return x.methodNotAllowed("GET, HEAD")
	}
}

func (x *exchange) methodNotAllowed(allow string) error {
	x.w.Header().Set("Allow", allow)
	return problemf(http.StatusMethodNotAllowed, codeUnsupported, "%.40q is not supported here: there are %s", x.r.Method, allow)
}

// authorize says who sent the request, if they may do something to a path.
func (x *exchange) authorize(action registry.Action, path string) (registry.Caller, error) {
	if x.authorizer == nil {
		return registry.Caller{}, problemf(http.StatusForbidden, codeDenied,
			"this file store lets nobody write: its configuration names no identities that may")
	}
	identity, err := x.authorizer.Authorize(x.r, action, path)
	if err != nil {
		return registry.Caller{}, err
	}
	x.obs.Identity = identity
	return registry.Caller{
		Identity: identity, Address: x.r.RemoteAddr, Host: x.r.Host, Method: x.r.Method,
		UserAgent: x.r.UserAgent(), RequestID: x.obs.ID,
	}, nil
}

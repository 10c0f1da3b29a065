package ledger

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// checkpointAge is how long a checkpoint is served before the storage is
	// asked again: however many nodes poll, that is what reaches a bucket.
	checkpointAge = 200 * time.Millisecond
	// handlerTimeout bounds a request to the storage.
	handlerTimeout = 30 * time.Second
)

func contentType(path string) string {
	if path == checkpointPath || path == keyPath {
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// cacheControl is how long anyone may keep an object: tiles, also partial ones,
// never change.
func cacheControl(path string) string {
	if strings.HasPrefix(path, tilePrefix) {
		return "public, max-age=31536000, immutable"
	}
	return "no-cache"
}

// handler serves a log read-only.
type handler struct {
	r      Reader
	prefix string
	key    string
	log    *slog.Logger

	reading    singleflight.Group               // of the checkpoint, by whoever asks first
	checkpoint atomic.Pointer[servedCheckpoint] // nil before it was first read
}

// servedCheckpoint is the checkpoint as it was at a time.
type servedCheckpoint struct {
	data    []byte
	version Version
	read    time.Time
}

// keyPath is where a log's public key is, for those who have yet to decide whether to
// trust it. C2SP's tlog-tiles has nothing at that path.
const keyPath = "key"

// NewHandler serves a log read-only, as C2SP's tlog-tiles says, at paths below
// a prefix such as "/ledger/", and at "key" there the text of its public key, unless
// that is empty.
func NewHandler(r Reader, prefix, key string, logger *slog.Logger) http.Handler {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &handler{r: r, prefix: strings.TrimRight(prefix, "/") + "/", key: key, log: logger}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the ledger is read-only: only GET and HEAD are allowed", http.StatusMethodNotAllowed)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, h.prefix)
	if ok && path == keyPath && h.key != "" {
		h.send(w, r, path, []byte(h.key))
		return
	}
	if !ok || path != checkpointPath && !isTilePath(path) {
		http.Error(w, "the ledger has checkpoint, tile/<level>/<n> and tile/entries/<n> (C2SP tlog-tiles)", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), handlerTimeout)
	defer cancel()
	data, err := h.object(ctx, path)
	switch {
	case errors.Is(err, ErrNotExist):
		http.Error(w, "the ledger has no "+path, http.StatusNotFound)
		return
	case err != nil && r.Context().Err() != nil:
		return // nobody is there to answer
	case err != nil:
		h.log.Error("cannot read the ledger to serve it", slog.String("path", path), slog.Any("error", err))
		http.Error(w, "the ledger cannot be read at the moment", http.StatusServiceUnavailable)
		return
	}
	h.send(w, r, path, data)
}

// send answers with an object.
func (h *handler) send(w http.ResponseWriter, r *http.Request, path string, data []byte) {
	header := w.Header()
	header.Set("Content-Type", contentType(path))
	header.Set("Cache-Control", cacheControl(path))
	header.Set("X-Content-Type-Options", "nosniff")
	etag := `"` + string(hashVersion(data))[:32] + `"`
	header.Set("ETag", etag)
	if matches(r.Header.Values("If-None-Match"), etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(data) //nolint:gosec // no browser takes these types for HTML; and the client may be gone
}

func isTilePath(path string) bool {
	_, ok := parseTilePath(path)
	return ok
}

// matches says whether If-None-Match names an entity tag (RFC 9110 section
// 13.1.2), weak or not.
func matches(headers []string, etag string) bool {
	for _, header := range headers {
		for tag := range strings.SplitSeq(header, ",") {
			tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
			if tag == etag || tag == "*" {
				return true
			}
		}
	}
	return false
}

func (h *handler) object(ctx context.Context, path string) ([]byte, error) {
	if path != checkpointPath {
		data, _, err := h.r.Read(ctx, path, "")
		return data, err
	}
	if c := h.checkpoint.Load(); c != nil && time.Since(c.read) < checkpointAge {
		return c.data, nil
	}
	// Not the request's context: others wait for the answer too.
	detached := context.WithoutCancel(ctx)
	result := h.reading.DoChan(path, func() (any, error) { return h.readCheckpoint(detached) })
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.([]byte), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (h *handler) readCheckpoint(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, handlerTimeout)
	defer cancel()
	now := servedCheckpoint{read: time.Now()}
	var known Version
	before := h.checkpoint.Load()
	if before != nil {
		known = before.version
	}
	var err error
	now.data, now.version, err = h.r.Read(ctx, checkpointPath, known)
	switch {
	case errors.Is(err, ErrNotModified) && before != nil:
		now.data, now.version = before.data, before.version
	case err != nil:
		return nil, err
	}
	h.checkpoint.Store(&now)
	return now.data, nil
}

package ledger

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// checkpointAge is how long a checkpoint is served before the storage is
	// asked again: however many nodes poll, that is what reaches a bucket.
	checkpointAge = 200 * time.Millisecond
	// handlerTimeout bounds a request to the storage.
	handlerTimeout = 30 * time.Second
)

func contentType(path string) string {
	if path == checkpointPath {
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
	log    *slog.Logger

	mu         sync.Mutex
	checkpoint []byte
	version    Version
	read       time.Time // when the checkpoint was; zero for never
}

// NewHandler serves a log read-only, as C2SP's tlog-tiles says, at paths below
// a prefix such as "/ledger/".
func NewHandler(r Reader, prefix string, logger *slog.Logger) http.Handler {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &handler{r: r, prefix: strings.TrimRight(prefix, "/") + "/", log: logger}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the ledger is read-only: only GET and HEAD are allowed", http.StatusMethodNotAllowed)
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, h.prefix)
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
	_, _ = w.Write(data) // the client may be gone
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
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.read.IsZero() && time.Since(h.read) < checkpointAge {
		return h.checkpoint, nil
	}
	data, version, err := h.r.Read(ctx, path, h.version)
	if err == nil {
		h.checkpoint, h.version = data, version
	}
	if err != nil && !errors.Is(err, ErrNotModified) {
		return nil, err
	}
	h.read = time.Now()
	return h.checkpoint, nil
}

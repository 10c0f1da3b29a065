package ledger

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"entrepot/registry/reach"
)

// HTTP reads a log from a web server, as C2SP's tlog-tiles says.
type HTTP struct {
	base   string // ends in no slash
	client *http.Client
}

// httpTimeout bounds a request and its answer.
const httpTimeout = 30 * time.Second

// NewHTTP is the log below a URL. It makes no request. With a nil client it
// makes one that does not take longer than 30 seconds for a request.
func NewHTTP(location string, client *http.Client) (*HTTP, error) {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("want a URL such as https://origin.example.org/ledger")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the URL has a query or a fragment: paths are put behind it")
	}
	if client == nil {
		client = reach.NewClient() // the server may be anybody: what it sends is signed
		client.Timeout = httpTimeout
	}
	return &HTTP{base: strings.TrimRight(u.String(), "/"), client: client}, nil
}

// Read is [Reader].
func (h *HTTP) Read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	data, version, err := h.read(ctx, path, known)
	if err != nil {
		return nil, "", fmt.Errorf("reading %s/%s: %w", redact(h.base), path, withoutURL(err))
	}
	return data, version, nil
}

func (h *HTTP) read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.base+"/"+path, nil) //nolint:gosec // the URL is the operator's
	if err != nil {
		return nil, "", err
	}
	if known != "" {
		req.Header.Set("If-None-Match", string(known))
	}
	resp, err := h.client.Do(req) //nolint:gosec // the URL is the operator's
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusOK:
	case resp.StatusCode == http.StatusNotModified && known != "":
		return nil, "", ErrNotModified
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		return nil, "", fmt.Errorf("%w: the server answered %s", ErrNotExist, resp.Status)
	default:
		return nil, "", fmt.Errorf("the server answered %s", resp.Status)
	}
	data, err := readAll(resp.Body, maxSize(path))
	if err != nil {
		return nil, "", err
	}
	return data, Version(resp.Header.Get("ETag")), nil
}

// withoutURL is an error of http.Client without the URL, which is told already,
// and may hold a password.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// Create is [Storage].
func (h *HTTP) Create(_ context.Context, path string, _ []byte) error {
	return fmt.Errorf("writing %s/%s: %w", redact(h.base), path, ErrReadOnly)
}

// Swap is [Storage].
func (h *HTTP) Swap(_ context.Context, path string, _ Version, _ []byte) error {
	return fmt.Errorf("writing %s/%s: %w", redact(h.base), path, ErrReadOnly)
}

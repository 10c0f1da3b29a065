package warm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"entrepot/registry"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// HTTP is a node or router that is asked as its clients do.
type HTTP struct {
	URL    *url.URL // scheme, host and port
	Client *http.Client
}

// StatusError is an answer that is not what was asked for.
type StatusError struct {
	Status  int
	Message string // what the server says, "" for nothing
}

func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the answer is %d %s", e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%d: %s", e.Status, e.Message)
}

// StatusCode is the status of the answer.
func (e *StatusError) StatusCode() int { return e.Status }

// Manifest implements [Source].
func (h *HTTP) Manifest(ctx context.Context, upstream, repository, reference string) (*Manifest, error) {
	resp, err := h.do(ctx, http.MethodGet, "/v2/"+upstream+"/"+repository+"/manifests/"+reference)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, registry.MaxManifestSize+1))
	if err != nil {
		return nil, err
	}
	if len(body) > registry.MaxManifestSize {
		return nil, fmt.Errorf("it is larger than %d bytes", registry.MaxManifestSize)
	}
	want := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if strings.Contains(reference, ":") {
		want = digest.Digest(reference)
	}
	if want.Validate() != nil {
		want = digest.FromBytes(body)
	}
	if got := want.Algorithm().FromBytes(body); got != want {
		return nil, fmt.Errorf("what came has digest %s", got)
	}
	return &Manifest{Digest: want, Body: body}, nil
}

// Blob implements [Source]. What the node says is in its store is not sent: it was
// verified when it came there.
func (h *HTTP) Blob(ctx context.Context, upstream, repository string, blob ocispec.Descriptor) (int64, error) {
	if err := blob.Digest.Validate(); err != nil {
		return 0, err
	}
	path := "/v2/" + upstream + "/" + repository + "/blobs/" + blob.Digest.String()
	if head, err := h.do(ctx, http.MethodHead, path); err == nil {
		head.Body.Close()
		if stored(head.Header) {
			return 0, nil
		}
	}
	resp, err := h.do(ctx, http.MethodGet, path)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	verifier := blob.Digest.Verifier()
	n, err := io.Copy(verifier, resp.Body)
	if err != nil {
		return n, fmt.Errorf("after %d bytes: %w", n, err)
	}
	if !verifier.Verified() {
		return n, fmt.Errorf("what came, %d bytes, does not have the digest", n)
	}
	return n, nil
}

// File implements [Source]. The node verifies what it can; a body that is cut is an
// error here.
func (h *HTTP) File(ctx context.Context, upstream, path string) (int64, error) {
	at := "/" + upstream + "/" + path
	if head, err := h.do(ctx, http.MethodHead, at); err == nil {
		head.Body.Close()
		if stored(head.Header) {
			return 0, nil
		}
	}
	resp, err := h.do(ctx, http.MethodGet, at)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return n, fmt.Errorf("after %d bytes: %w", n, err)
	}
	return n, nil
}

// stored says whether a node has what a HEAD asked about, and not only its size. A
// stale hit is checked by the GET.
func stored(header http.Header) bool {
	for _, cache := range header.Values("Cache-Status") {
		for member := range strings.SplitSeq(cache, ",") {
			params := strings.Split(member, ";")
			hit := false
			for _, p := range params[1:] {
				switch p = strings.TrimSpace(p); {
				case p == "hit":
					hit = true
				case strings.HasPrefix(p, "detail="), strings.HasPrefix(p, "ttl=-"):
					return false
				}
			}
			if hit && strings.TrimSpace(params[0]) == "entrepot" {
				return true
			}
		}
	}
	return false
}

func (h *HTTP) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.URL.Scheme+"://"+h.URL.Host+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header["Accept"] = []string{
		ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json", "*/*",
	}
	resp, err := h.send(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	if err != nil {
		body = nil // the status says enough
	}
	return nil, &StatusError{Status: resp.StatusCode, Message: message(body)}
}

// stallTimeout is how long the server may say nothing.
const stallTimeout = 2 * time.Minute

var errStalled = fmt.Errorf("nothing came for %v", stallTimeout)

// send sends a request, whose answer is given up when nothing comes for a while.
func (h *HTTP) send(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	resp, err := h.Client.Do(req.WithContext(ctx))
	if err != nil {
		timer.Stop()
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		cancel(nil)
		return nil, err
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer}
	return resp, nil
}

// watchedBody is a body that ends with an error when nothing comes for a while.
type watchedBody struct {
	io.ReadCloser

	ctx    context.Context //nolint:containedctx // of the request
	cancel context.CancelCauseFunc
	timer  *time.Timer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(stallTimeout)
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// message is what an error's body says: JSON from registries, else a line of text.
func message(body []byte) string {
	var told struct {
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(body, &told); err == nil && len(told.Errors) > 0 {
		return told.Errors[0].Message
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if strings.HasPrefix(line, "<") || len(line) > 500 {
		return ""
	}
	return line
}

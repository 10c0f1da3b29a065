package filestore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"

	"entrepot/registry"
	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

// The codes of errors, for programs.
const (
	codeNameInvalid    = "NAME_INVALID"
	codeUnknown        = "FILE_UNKNOWN"
	codeContentUnknown = "CONTENT_UNKNOWN" // of a mount
	codeDigestRequired = "DIGEST_REQUIRED"
	codeDigestInvalid  = "DIGEST_INVALID"
	codeSizeInvalid    = "SIZE_INVALID"
	codeRequestInvalid = "REQUEST_INVALID"
	codeExists         = "FILE_EXISTS" // with other content
	codeNameConflict   = "NAME_CONFLICT"
	codePrecondition   = "PRECONDITION_FAILED"
	codeUnsupported    = "UNSUPPORTED"
	codeDenied         = "DENIED"
	codeNoSpace        = "NO_SPACE"
	codeInternal       = "UNKNOWN"
)

// The media types of errors.
const (
	mediaText = "text/plain"
	mediaJSON = "application/json"
)

// problem is an error that the client is told.
type problem struct {
	status  int
	code    string
	message string   // what is wrong, and what would be right
	detail  *digests // for programs; nil for none
	err     error    // cause; may be nil
}

// problemf makes a problem; a %w argument becomes its cause.
func problemf(status int, code, format string, args ...any) *problem {
	err := fmt.Errorf(format, args...)
	return &problem{status: status, code: code, message: err.Error(), err: err}
}

func (p *problem) Error() string { return p.message }

func (p *problem) Unwrap() error { return p.err }

// digests is the detail of a conflict.
type digests struct {
	Present digest.Digest `json:"present,omitempty"`
	Sent    digest.Digest `json:"sent,omitempty"`
}

// statusClientGone is how logs call a request whose client left before the
// answer (nginx's number; it is never sent).
const statusClientGone = 499

// fail answers with an error. The headers have not gone out yet.
func (x *exchange) fail(err error) {
	x.obs.Err = err
	// A deadline that passes ends the context too, though the client is there.
	if errors.Is(x.r.Context().Err(), context.Canceled) && !errors.Is(err, os.ErrDeadlineExceeded) {
		x.obs.Status, x.cut = statusClientGone, true
		return
	}
	header := x.w.Header()
	for _, name := range []string{"Etag", "Last-Modified", "Repr-Digest", "Content-Security-Policy", "Accept-Ranges"} {
		header.Del(name) // those of what could not be sent
	}
	if x.r.ContentLength != 0 && !errors.Is(err, os.ErrDeadlineExceeded) {
		armRead(x.w.connection, x.timeout) // for what the server reads of the body before it answers
	}
	p := x.tell(err)
	header.Set("Cache-Control", "no-store")
	header.Add("Vary", "Accept")
	body, contentType := p.text(), "text/plain; charset=utf-8"
	if folder.Preferred(x.r.Header.Values("Accept"), mediaText, mediaJSON) == mediaJSON {
		body, contentType = p.json(), mediaJSON
	}
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(p.status)
	if x.r.Method != http.MethodHead {
		// Without a deadline, which what is left of the request's body could
		// use up: so little fits the kernel's buffers.
		n, _ := io.WriteString(x.w.ResponseWriter, body) // a client that left needs no answer
		x.w.written += int64(n)
	}
}

// tell is what the client is told of an error.
func (x *exchange) tell(err error) *problem {
	p, ok := errors.AsType[*problem](err)
	if ok {
		return p
	}
	if told, ok := errors.AsType[*registry.Error](err); ok { // of the Authorizer
		told.SetHeaders(x.w.Header())
		return &problem{status: told.StatusCode(), code: told.Code.Descriptor().Value, message: told.Message}
	}
	x.log.ErrorContext(x.r.Context(), "request failed",
		slog.String("id", x.obs.ID), slog.String("method", x.obs.Method), slog.String("path", x.obs.Path), slog.Any("error", err))
	return problemf(http.StatusInternalServerError, codeInternal,
		"internal error: the log of this file store has the reason under request id %s", x.obs.ID)
}

func (p *problem) text() string { return p.message + "\n" }

// json is the problem in the shape that registries use (OCI Distribution v1.1,
// "Error Codes").
func (p *problem) json() string {
	type item struct {
		Code    string   `json:"code"`
		Message string   `json:"message"`
		Detail  *digests `json:"detail,omitempty"`
	}
	body, err := json.Marshal(map[string][]item{"errors": {{p.code, p.message, p.detail}}})
	if err != nil { // strings always have a JSON form
		return `{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}`
	}
	return string(body) + "\n"
}

// newID names a request: one that a client sends could be made to look like
// another's in a log.
func newID() string {
	return fmt.Sprintf("%016x", rand.Uint64()) //nolint:gosec // names a request, keeps no secret
}

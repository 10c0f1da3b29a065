package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Error is an error that is told to the client as an OCI error body.
type Error struct {
	Code       errcode.ErrorCode
	Status     int           // HTTP status; 0 means the code's own
	Message    string        // for the client: what is wrong, and what would be right
	RetryAfter time.Duration // sent as Retry-After when positive
	Challenge  string        // sent as WWW-Authenticate when set (RFC 9110, section 11.6.1)
	Err        error         // cause, for the log only; may be nil
}

// Errorf makes an [Error] from a code and a message; a %w argument becomes its
// cause.
func Errorf(code errcode.ErrorCode, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: err}
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// statusClientGone is how logs call a request whose client left before the
// answer (nginx's number; it is never sent).
const statusClientGone = 499

// ErrClientGone is why a transfer was cut that the client did not want to its
// end: clients that fetch in parallel close what they have enough of.
var ErrClientGone = errors.New("the client left")

// fail answers with an error. The headers must not have gone out yet.
func (x *exchange) fail(err error) {
	x.obs.Err = err
	// One whose body came too slowly is there still, though net/http takes the
	// deadline that passed for its leaving.
	if errors.Is(x.r.Context().Err(), context.Canceled) && !errors.Is(err, os.ErrDeadlineExceeded) {
		// A client that only closed its sending side must not take an empty
		// 200 for the answer: the connection is cut.
		x.obs.Status, x.cut = statusClientGone, true
		return
	}
	x.identify()
	var told *Error
	if !errors.As(err, &told) {
		x.logger.ErrorContext(x.r.Context(), "request failed",
			slog.String("id", x.obs.ID), slog.String("path", x.obs.Path), slog.Any("error", err))
		told = &Error{
			Code:    errcode.ErrorCodeUnknown,
			Message: "internal error: the log of this registry has the reason under request id " + x.obs.ID,
		}
	}
	told.SetHeaders(x.header)
	x.header["Cache-Control"] = x.values.noStore
	x.header["X-Content-Type-Options"] = x.values.nosniff
	if x.plain {
		x.header["Vary"] = []string{"Accept"}
	}
	if x.wantsText() {
		x.document(told.StatusCode(), x.values.text, []byte(told.message()+"\n"))
		return
	}
	x.document(told.StatusCode(), x.values.json, told.body())
}

// ServeHTTP answers a request with the error: as JSON to a client of the registry's
// API, else as text unless JSON is asked for. It is for surfaces besides [Handler]
// and [FileHandler], which do it by themselves.
func (e *Error) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	e.SetHeaders(header)
	body := e.body()
	if IsAPI(r.URL.Path) || strings.Contains(r.Header.Get("Accept"), "json") {
		header.Set("Content-Type", "application/json")
	} else {
		header.Set("Content-Type", "text/plain; charset=utf-8")
		body = []byte(e.message() + "\n")
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(e.StatusCode())
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // who left does not read it
	}
}

// SetHeaders sets the headers that tell the client what to do about the error:
// Retry-After, in whole seconds, rounded up, and WWW-Authenticate.
func (e *Error) SetHeaders(header http.Header) {
	if e.RetryAfter > 0 {
		header["Retry-After"] = []string{strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10)}
	}
	if e.Challenge != "" {
		header["Www-Authenticate"] = []string{e.Challenge}
	}
}

// StatusCode is the HTTP status of the answer.
func (e *Error) StatusCode() int {
	if e.Status >= 400 && e.Status <= 599 {
		return e.Status
	}
	return e.Code.Descriptor().HTTPStatusCode
}

func (e *Error) message() string {
	if e.Message == "" {
		return e.Code.Message()
	}
	return e.Message
}

// body is the error as JSON (OCI Distribution v1.1, "Error Codes").
func (e *Error) body() []byte {
	b, err := json.Marshal(errcode.Errors{e.Code.WithMessage(e.message())})
	if err != nil { // a string always has a JSON form
		return []byte(`{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}`)
	}
	return b
}

// abort ends a response that was begun and cannot be completed: more bytes
// would be taken for content, so the connection is cut.
func (x *exchange) abort(err error) {
	x.cut = true
	x.obs.Err = err
	if x.body.writeErr != nil || x.r.Context().Err() != nil {
		x.obs.Err = fmt.Errorf("%w: %w", ErrClientGone, err)
		return // which is no news: clients close what they have enough of
	}
	x.identify()
	x.logger.WarnContext(x.r.Context(), "transfer cut",
		slog.String("id", x.obs.ID), slog.String("path", x.obs.Path),
		slog.Int64("sent", x.body.written), slog.Any("error", err))
}

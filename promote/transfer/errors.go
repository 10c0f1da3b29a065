package transfer

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// What can stand in the way of an operation. Every error of this package that
// is not the end of a context wraps exactly one of them.
var (
	// ErrNotFound: the content or name asked for is not there. From
	// [Client.Copy] and [Client.CopyFile] it is the source that lost it.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt: the bytes do not match their digest or size. The error names
	// who sent them.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrUnauthorized: credentials are missing, wrong, or not enough.
	ErrUnauthorized = errors.New("not authorized")
	// ErrConflict: the name is taken by other content, and may not be moved.
	ErrConflict = errors.New("taken by other content")
	// ErrRateLimited: the host asks for a longer pause than it will be given.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnavailable: broken connections, silence and 5xx, after all attempts.
	ErrUnavailable = errors.New("unavailable")
	// ErrRefused: an answer that trying again would not change.
	ErrRefused = errors.New("refused")
	// ErrUnsupported: content or a URL of a kind that this package cannot copy.
	ErrUnsupported = errors.New("not supported")
)

// Error is why an exchange with a host failed.
type Error struct {
	Kind       error         // one of the errors above
	Status     int           // HTTP status, 0 when there was no answer
	RetryAfter time.Duration // what the host asked for, 0 when it did not
	Err        error         // what was being done, and what happened; without secrets
}

// Error implements error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap makes errors.Is find the kind and the cause.
func (e *Error) Unwrap() []error { return []error{e.Kind, e.Err} }

// is says whether the error is of one of the kinds.
func (e *Error) is(kinds ...error) bool { return slices.Contains(kinds, e.Kind) }

// failf makes an [Error] of a kind.
func failf(kind error, format string, args ...any) *Error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// withoutURL takes the URL that net/http puts into its errors out of err: a
// presigned URL is a secret, and messages name the host anyway.
func withoutURL(err error) error {
	if told, ok := errors.AsType[*url.Error](err); ok {
		return told.Err
	}
	return err
}

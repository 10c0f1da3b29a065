package registry

import (
	"fmt"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Error is an error that is told to the client as an OCI error body.
type Error struct {
	Code       errcode.ErrorCode
	Status     int           // HTTP status; 0 means the code's own
	Message    string        // for the client: what is wrong, and what would be right
	RetryAfter time.Duration // sent as Retry-After when positive
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

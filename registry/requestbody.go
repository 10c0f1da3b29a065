package registry

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// requestBody reads what a client sends, within deadlines that move on as it
// comes, and tells its errors from those of who writes it somewhere.
type requestBody struct {
	body       io.Reader
	connection *http.ResponseController
	timeout    time.Duration // for paceBytes; not positive means no deadlines
	sinceArmed int64         // bytes read since the deadline was set
	whole      bool          // the body was read to its end
	err        error         // why the body ended early; nil when it did not
}

// newRequestBody begins reading the body of r. It is finished before the
// request is answered.
func newRequestBody(w http.ResponseWriter, r *http.Request, timeout time.Duration) *requestBody {
	b := &requestBody{body: r.Body, connection: http.NewResponseController(w), timeout: timeout}
	b.arm()
	return b
}

// Read implements io.Reader.
func (b *requestBody) Read(p []byte) (int, error) {
	if b.sinceArmed >= paceBytes {
		b.arm()
	}
	n, err := b.body.Read(p)
	b.sinceArmed += int64(n)
	switch {
	case err == io.EOF:
		b.whole = true
	case err != nil:
		b.err = err
	}
	return n, err
}

func (b *requestBody) arm() {
	b.sinceArmed = 0
	armRead(b.connection, b.timeout)
}

// armRead bounds how long the next bytes of a body may take.
func armRead(connection *http.ResponseController, timeout time.Duration) {
	if timeout > 0 {
		// A connection without deadlines is not one of net/http's own: tests.
		_ = connection.SetReadDeadline(time.Now().Add(timeout))
	}
}

// finish takes the deadline of a whole body away: answering may take longer,
// and the server reads on meanwhile to see whether the client leaves. Where
// something is left of the body, the server reads that before it answers, and
// must not wait for it without end.
func (b *requestBody) finish() {
	if b.timeout > 0 && b.whole {
		_ = b.connection.SetReadDeadline(time.Time{})
	}
}

// told is the error that the client is told of why its body ended early.
func (b *requestBody) told() error {
	e := Errorf(errcode.ErrorCodeBlobUploadInvalid, "the body ended early: %w", b.err)
	e.Message, e.Status = "the body ended before it was whole", http.StatusBadRequest
	if errors.Is(b.err, os.ErrDeadlineExceeded) {
		e.Message, e.Status = "the body came too slowly", http.StatusRequestTimeout
	}
	return e
}

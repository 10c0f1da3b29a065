package filestore

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// paceBytes is the progress, in bytes, that a client has to make within
	// the timeout.
	paceBytes = 4 << 20
)

// pacedWriter writes a response within deadlines that move on as the client
// takes it. It leaves files to the kernel where the connection can.
type pacedWriter struct {
	http.ResponseWriter
	connection *http.ResponseController
	files      io.ReaderFrom // nil where the connection takes none
	timeout    time.Duration // for paceBytes; not positive means no deadlines
	multiplex  bool          // HTTP/2, whose streams a deadline ends though nobody writes

	status  int   // as sent; 0 before
	written int64 // bytes of the body
}

func newPacedWriter(w http.ResponseWriter, r *http.Request, timeout time.Duration) *pacedWriter {
	p := &pacedWriter{
		ResponseWriter: w, connection: http.NewResponseController(w), timeout: timeout, multiplex: r.ProtoMajor >= 2,
	}
	p.files, _ = w.(io.ReaderFrom)
	return p
}

// Unwrap lets http.ResponseController reach the connection.
func (w *pacedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *pacedWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *pacedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	sent := 0
	for sent < len(p) {
		w.arm()
		n, err := w.ResponseWriter.Write(p[sent:min(len(p), sent+paceBytes)])
		w.disarm()
		sent += n
		w.written += int64(n)
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// ReadFrom implements io.ReaderFrom. Of a limited part of a file, pieces are
// handed on in the same form, in which net/http sends them by the kernel.
func (w *pacedWriter) ReadFrom(src io.Reader) (sent int64, err error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok || w.files == nil {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	if w.status == 0 {
		w.status = http.StatusOK
	}
	for limited.N > 0 {
		piece := &io.LimitedReader{R: limited.R, N: min(limited.N, paceBytes)}
		before := piece.N
		w.arm()
		n, err := w.files.ReadFrom(piece)
		w.disarm()
		sent += n
		w.written += n
		limited.N -= n
		if err != nil || n < before {
			return sent, err
		}
	}
	return sent, nil
}

func (w *pacedWriter) arm() {
	if w.timeout > 0 {
		// A writer without deadlines is one in memory.
		_ = w.connection.SetWriteDeadline(time.Now().Add(w.timeout))
	}
}

func (w *pacedWriter) disarm() {
	if w.timeout > 0 && w.multiplex {
		_ = w.connection.SetWriteDeadline(time.Time{})
	}
}

// pacedBody reads a request's body within deadlines that move on as it comes,
// and tells its errors from those of who stores it.
type pacedBody struct {
	body       io.Reader
	connection *http.ResponseController
	timeout    time.Duration
	sinceArmed int64
	read       int64 // bytes
	whole      bool  // read to its end
	err        error // why it ended early; nil when it did not
}

func (x *exchange) body() *pacedBody {
	b := &pacedBody{body: x.r.Body, connection: x.w.connection, timeout: x.timeout}
	b.arm()
	return b
}

func (b *pacedBody) Read(p []byte) (int, error) {
	if b.sinceArmed >= paceBytes {
		b.arm()
	}
	n, err := b.body.Read(p)
	b.sinceArmed += int64(n)
	b.read += int64(n)
	switch {
	case err == io.EOF:
		b.whole = true
	case err != nil:
		b.err = err
	}
	return n, err
}

func (b *pacedBody) arm() {
	b.sinceArmed = 0
	armRead(b.connection, b.timeout)
}

// armRead bounds how long the next bytes of a body may take.
func armRead(connection *http.ResponseController, timeout time.Duration) {
	if timeout > 0 {
		_ = connection.SetReadDeadline(time.Now().Add(timeout)) // a body in memory has none
	}
}

// finish takes the deadline of a whole body away: storing may take longer, and
// the server reads on meanwhile to see whether the client leaves. Where
// something is left of the body, the server reads that before it answers, and
// must not wait for it without end.
func (b *pacedBody) finish() {
	if b.timeout > 0 && b.whole {
		_ = b.connection.SetReadDeadline(time.Time{})
	}
}

// told is the error that the client is told of a body that ended early.
func (b *pacedBody) told() error {
	if errors.Is(b.err, os.ErrDeadlineExceeded) {
		return &problem{status: http.StatusRequestTimeout, code: codeRequestInvalid, message: "the body came too slowly", err: b.err}
	}
	return &problem{status: http.StatusBadRequest, code: codeRequestInvalid, message: "the body ended before it was whole", err: b.err}
}

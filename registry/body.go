package registry

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// smallBody is the length, in bytes, up to which a body has no write
	// deadlines of its own: it fits the kernel's send buffer, and the server's
	// own limits see to the rest.
	smallBody = 64 << 10
	// paceBytes is the progress, in bytes, that a client has to make within
	// the write timeout.
	paceBytes = 4 << 20
	// copyBuffer is the size, in bytes, of the buffers that bodies go through
	// where the kernel cannot send them from a file.
	copyBuffer = 128 << 10
)

// errTooLong says that a backend gave more bytes than it announced.
var errTooLong = errors.New("more content than was announced")

// body sends a response's body: at most the length that was announced, within
// deadlines that move on as the client takes it, and without a copy where the
// connection can take a file. The headers go out with its first byte, so that
// until then an error can still be told.
type body struct {
	w        http.ResponseWriter
	file     io.ReaderFrom // takes files; nil where that would copy anyway
	status   int
	started  bool  // the headers are out
	left     int64 // bytes still announced, negative when that is unknown
	written  int64 // bytes
	writeErr error // the client could not be written to

	timeout    time.Duration // for paceBytes; 0 means without deadlines
	multiplex  bool          // HTTP/2: see disarm
	armed      time.Time     // when the deadline was last set
	sinceArmed int64         // bytes written since

	buffers *sync.Pool       // of *[copyBuffer]byte
	limited io.LimitedReader // what file reads from: kept here to allocate none
}

// fileLike is what the kernel can send from.
type fileLike interface {
	syscall.Conn
	Stat() (os.FileInfo, error)
}

// reset prepares b for a body of length bytes, negative when unknown.
func (b *body) reset(w http.ResponseWriter, r *http.Request, status int, length int64, timeout time.Duration, buffers *sync.Pool) {
	*b = body{w: w, status: status, left: length, buffers: buffers, multiplex: r.ProtoMajor >= 2}
	// A chunked or encrypted body is copied in user space in any case, by
	// net/http with a smaller buffer than ours.
	if length >= 0 && r.ProtoMajor == 1 && r.TLS == nil {
		b.file, _ = w.(io.ReaderFrom)
	}
	if length < 0 || length > smallBody {
		b.timeout = timeout
	}
}

// start sends the status and the headers, once.
func (b *body) start() {
	if !b.started {
		b.started = true
		b.w.WriteHeader(b.status)
	}
}

// flush sends the headers to the client now, ahead of the content.
func (b *body) flush() {
	b.start()
	b.arm()
	// A writer that cannot flush sends the headers when it will.
	_ = http.NewResponseController(b.w).Flush()
	b.disarm()
}

// Write implements io.Writer.
func (b *body) Write(p []byte) (int, error) {
	if b.left >= 0 && int64(len(p)) > b.left {
		return 0, errTooLong
	}
	b.start()
	sent := 0
	for sent < len(p) {
		b.arm()
		n, err := b.w.Write(p[sent:min(len(p), sent+paceBytes)])
		b.disarm()
		b.account(int64(n))
		sent += n
		if err != nil {
			b.writeErr = err
			return sent, err
		}
	}
	return sent, nil
}

// ReadFrom implements io.ReaderFrom: a file, or a limited part of one, is sent
// by the kernel.
func (b *body) ReadFrom(src io.Reader) (n int64, err error) {
	limit := b.left
	if part, ok := src.(*io.LimitedReader); ok {
		if b.left >= 0 && part.N > b.left {
			return 0, errTooLong
		}
		limit, src = part.N, part.R
		defer func() { part.N -= n }()
	}
	if _, ok := src.(fileLike); ok && b.file != nil {
		return b.sendFile(src, limit)
	}
	return b.copyFrom(src, limit)
}

// sendFile sends up to limit bytes of src, in pieces that each have a deadline.
func (b *body) sendFile(src io.Reader, limit int64) (sent int64, err error) {
	b.start()
	for sent < limit {
		piece := min(limit-sent, paceBytes)
		b.limited = io.LimitedReader{R: src, N: piece}
		b.arm()
		n, err := b.file.ReadFrom(&b.limited)
		b.account(n)
		sent += n
		if err != nil {
			if !fromFile(err) {
				b.writeErr = err
			}
			return sent, err
		}
		if n < piece {
			break
		}
	}
	b.limited.R = nil
	return sent, nil
}

// fromFile reports that sending a file failed on the file's side.
func fromFile(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) || errors.Is(err, io.ErrUnexpectedEOF)
}

// copyFrom sends what src gives, up to limit bytes, negative for all. Its reads
// may wait: deadlines bound the writes only.
func (b *body) copyFrom(src io.Reader, limit int64) (sent int64, err error) {
	buf := b.buffers.Get().(*[copyBuffer]byte)
	defer b.buffers.Put(buf)
	for limit < 0 || sent < limit {
		p := buf[:]
		if limit >= 0 {
			p = p[:min(limit-sent, copyBuffer)]
		}
		n, readErr := src.Read(p)
		if n > 0 {
			n, err := b.Write(p[:n])
			sent += int64(n)
			if err != nil {
				return sent, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return sent, nil
		}
		if readErr != nil {
			return sent, readErr
		}
	}
	return sent, nil
}

func (b *body) account(n int64) {
	b.written += n
	b.sinceArmed += n
	if b.left >= 0 {
		b.left -= n
	}
}

// arm gives the write that follows its time. A deadline that was set recently,
// and has seen little since, is left as it is: setting one costs more than a
// small write.
func (b *body) arm() {
	if b.timeout <= 0 {
		return
	}
	now := time.Now()
	if !b.multiplex && b.sinceArmed < paceBytes && now.Sub(b.armed) < b.timeout/8 {
		return
	}
	b.armed, b.sinceArmed = now, 0
	// A writer without deadlines is one in memory.
	_ = http.NewResponseController(b.w).SetWriteDeadline(now.Add(b.timeout))
}

// disarm takes the deadline away while the body waits for content. HTTP/2
// resets a stream whose deadline passes, writing or not; a connection only
// fails the writes that come after it, and those set it anew. What remains set
// at the end is taken back by net/http.
func (b *body) disarm() {
	if b.multiplex && b.timeout > 0 {
		_ = http.NewResponseController(b.w).SetWriteDeadline(time.Time{})
	}
}

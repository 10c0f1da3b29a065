package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// direct streams a blob from its sources to one client when the store cannot
// be written. It keeps the promise of a fill for whoever is sent the end of the blob:
// the last bytes are held back until the whole is verified, for which a range that
// begins later has what is before it fetched, too, and thrown away. A range that ends
// earlier completes nothing, and cannot be verified by itself. It implements
// registry.Content and is used by one goroutine.
type direct struct {
	goal   goal
	in     feed
	prefix *os.File // has the bytes from 0 to where the client was sent some; nil for none
	// turn waits until as much may be fetched for one client as a fill fetches for all;
	// nil when it is not to be waited for.
	turn func(context.Context) (release func(), err error)

	started   bool
	verifiers []digest.Verifier // of the bytes from 0 to in.offset; none when some are missing
	tail      []byte            // the verified end of the blob, once read
	tailAt    int64             // offset of tail
}

// ready waits for the sources and says how large the blob is, negative when
// they do not say.
func (d *direct) ready(ctx context.Context) (int64, error) {
	if err := d.in.open(ctx); err != nil {
		return 0, err
	}
	return d.in.size, nil
}

// WriteRange implements registry.Content.
func (d *direct) WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error) {
	toEnd := length < 0 || d.in.size >= 0 && offset+length > d.in.size-tailSize
	if err := d.seek(ctx, offset, toEnd); err != nil {
		return 0, err
	}
	var written int64
	for length < 0 || written < length {
		p, err := d.next(ctx, offset+written)
		if errors.Is(err, io.EOF) && length < 0 {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		if length >= 0 && int64(len(p)) > length-written {
			p = p[:length-written]
		}
		n, err := w.Write(p)
		written += int64(n)
		if err != nil {
			return written, fmt.Errorf("sending %s: %w", d.goal, err)
		}
	}
	return written, nil
}

// next returns bytes from offset that may be sent; they are valid until the
// next call.
func (d *direct) next(ctx context.Context, offset int64) ([]byte, error) {
	if d.tail != nil && offset >= d.tailAt {
		rest := d.tail[min(offset-d.tailAt, int64(len(d.tail))):]
		if len(rest) == 0 {
			return nil, io.EOF
		}
		return rest, nil
	}
	if len(d.verifiers) > 0 && (d.in.size < 0 || d.in.size-offset <= tailSize) {
		if err := d.readTail(ctx); err != nil {
			return nil, err
		}
		return d.next(ctx, offset)
	}
	p := make([]byte, 32<<10)
	if len(d.verifiers) > 0 {
		p = p[:min(int64(len(p)), d.in.size-offset-tailSize)]
	}
	n, err := d.in.Read(ctx, p)
	if err != nil {
		return nil, err
	}
	_, _ = d.check(p[:n])
	return p[:n], nil
}

// seek moves the feed to offset. Only an unbroken run from byte 0 can be verified: what
// is sent of the last tailSize bytes of the blob has one.
func (d *direct) seek(ctx context.Context, offset int64, toEnd bool) error {
	run := d.started && offset == d.in.offset
	if run && (len(d.verifiers) > 0 || !toEnd) || d.tail != nil && offset >= d.tailAt {
		return nil
	}
	d.verifiers, d.tail = nil, nil
	if offset == 0 || d.prefix != nil && !d.started || toEnd && d.in.end == 0 {
		d.verifiers = d.goal.verifiers()
	}
	prefix := d.prefix
	if d.started { // something else was sent since
		prefix = nil
	}
	d.started = true
	if len(d.verifiers) == 0 || offset == 0 {
		d.move(offset)
		return nil
	}
	if prefix != nil {
		n, err := io.Copy(writerFunc(d.check), io.NewSectionReader(prefix, 0, offset))
		if err != nil {
			return fmt.Errorf("reading back what was sent of %s: %w", d.goal, err)
		}
		if n == offset {
			d.move(offset)
			return nil
		}
		d.verifiers = nil // it ends earlier
		if !toEnd {
			d.move(offset)
			return nil
		}
		d.verifiers = d.goal.verifiers()
	}
	return d.wind(ctx, offset)
}

// move has the feed go on at offset.
func (d *direct) move(offset int64) {
	if d.in.offset != offset {
		d.in.close()
		d.in.offset = offset
	}
}

// wind takes in the bytes before offset without sending them.
func (d *direct) wind(ctx context.Context, offset int64) error {
	if d.turn != nil {
		release, err := d.turn(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	d.move(0)
	p := make([]byte, 32<<10)
	for d.in.offset < offset {
		n, err := d.in.Read(ctx, p[:min(int64(len(p)), offset-d.in.offset)])
		_, _ = d.check(p[:n])
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s has %d bytes, and was to have more than %d: %w", d.goal, d.in.offset, offset, errWrongSize)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// check has the verifiers take in bytes.
func (d *direct) check(p []byte) (int, error) {
	for _, v := range d.verifiers {
		_, _ = v.Write(p) // a hash never fails
	}
	return len(p), nil
}

// verified reports that all bytes are right.
func (d *direct) verified() bool {
	return !slices.ContainsFunc(d.verifiers, func(v digest.Verifier) bool { return !v.Verified() })
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// readTail reads to the end of the blob and verifies the whole. A blob whose
// size no source tells is read whole: it cannot be known which bytes are last.
func (d *direct) readTail(ctx context.Context) error {
	d.tailAt = d.in.offset
	limit := int64(maxUnsized)
	tail := make([]byte, 0, tailSize)
	p := make([]byte, 32<<10)
	for {
		n, err := d.in.Read(ctx, p)
		tail = append(tail, p[:n]...)
		_, _ = d.check(p[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if int64(len(tail)) > limit {
			return fmt.Errorf("no source tells the size of %s, and it is over %d bytes: %w", d.goal, limit, errWrongSize)
		}
	}
	if !d.verified() {
		err := fmt.Errorf("%s sent wrong bytes for %s: %w", d.in.label(), d.goal, blobstore.ErrDigestMismatch)
		d.in.restart(err, d.prefix != nil)
		return err
	}
	d.tail = tail
	return nil
}

// maxUnsized bounds, in bytes, a blob of unknown size that is held in memory
// because it cannot be stored.
const maxUnsized = 8 << 20

// Ready reports that every read may have to wait.
func (d *direct) Ready(int64, int64) bool { return false }

// Close ends the transfer.
func (d *direct) Close() error {
	d.in.close()
	return nil
}

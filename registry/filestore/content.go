package filestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

// content is a blob that [http.ServeContent] reads from a store that is asked
// for each range. Seeking costs nothing; reading asks for the range that was
// announced, so that the usual request costs the store one.
type content struct {
	ctx    context.Context //nolint:containedctx // of the one request that reads it
	store  blobstore.Store
	digest digest.Digest
	size   int64 // bytes
	end    int64 // where reading is expected to end

	offset int64
	open   io.ReadCloser // nil when nothing is
	at     int64         // where open goes on
	err    error         // of the store
}

var errSeek = errors.New("seeking to before the start")

// Seek implements io.Seeker.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.offset
	case io.SeekEnd:
		offset += c.size
	}
	if offset < 0 {
		return 0, errSeek
	}
	c.offset = offset
	return offset, nil
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.offset >= c.size {
		return 0, io.EOF
	}
	if c.open == nil || c.at != c.offset {
		end := c.end
		if c.offset >= end {
			end = c.size
		}
		if err := c.openRange(c.offset, end); err != nil {
			return 0, err
		}
	}
	n, err := c.open.Read(p)
	c.offset += int64(n)
	c.at = c.offset
	if errors.Is(err, io.EOF) {
		c.Close() // there may be more after the range
		err = nil
		if n == 0 && c.offset < c.size {
			err = fmt.Errorf("blob %s ended after %d of %d bytes: %w", c.digest, c.offset, c.size, io.ErrUnexpectedEOF)
		}
	}
	if err != nil {
		c.err = err
	}
	return n, err
}

// openRange opens a part of the blob, for when reading comes there.
func (c *content) openRange(start, end int64) error {
	c.Close()
	r, info, err := c.store.Open(c.ctx, c.digest, start, end-start)
	if err == nil && info.Size != c.size {
		err = errors.Join(fmt.Errorf("blob %s has %d bytes in the store, want %d", c.digest, info.Size, c.size), r.Close())
	}
	if err != nil {
		c.err = err
		return err
	}
	c.open, c.at = r, start
	return nil
}

// Close closes what is open.
func (c *content) Close() {
	if c.open != nil {
		_ = c.open.Close() // read from only
		c.open = nil
	}
}

// rangeHint is the part of size bytes that a request with a Range header most
// likely reads first. What it means in full, [http.ServeContent] decides.
func rangeHint(header string, size int64) (start, end int64) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, size
	}
	start, err := strconv.ParseInt(from, 10, 64)
	if err != nil || start < 0 || start >= size {
		return 0, size
	}
	last, err := strconv.ParseInt(to, 10, 64)
	if err != nil || last < start || last >= size {
		return start, size
	}
	return start, last + 1
}

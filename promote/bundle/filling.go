package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

const (
	// tarBlock is what a tar's headers and contents are padded to, in bytes.
	tarBlock = 512
	// maxAhead is how many bytes may be whole behind the first content that is not: an
	// interruption loses no more than these, and what is on its way.
	maxAhead = 256 << 20
)

// held is content of a bundle.
type held struct {
	begin, size int64 // of its entry in the volume; of the content
}

// filling is content of a bundle that is written at once. Each has its place from the
// beginning, in the order in which it was added: what is in a bundle does not depend on
// which came first. None of it is in memory.
type filling struct {
	*Writer

	group errgroup.Group

	mu    sync.Mutex // guards what follows
	ended sync.Cond
	now   map[int64]int64 // sizes of what is on its way, by where it begins
	cut   int64           // where the first begins that was not written whole; -1 is nowhere
}

// fill begins to write so many contents at once.
func (w *Writer) fill(parallel int) *filling {
	f := &filling{Writer: w, now: map[int64]int64{}, cut: -1}
	f.ended.L = &f.mu
	f.group.SetLimit(parallel)
	return f
}

// add has content written, unless it is there or on its way, and returns when that has
// begun; done is told when it is over. It is for one goroutine.
func (f *filling) add(ctx context.Context, d digest.Digest, size int64, read func(context.Context, io.Writer) error, done func(error)) error {
	if f.Has(d) {
		done(nil)
		return nil
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%s: a bundle holds content by sha256 only", d)
	}
	f.keepClose(maxAhead)
	begin := f.vol.size
	var header bytes.Buffer
	err := tar.NewWriter(&header).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: blobPath(d), Size: size, Mode: 0o644})
	if err == nil {
		_, err = f.vol.Write(header.Bytes())
	}
	at := f.vol.size
	if err == nil {
		err = f.vol.grow((size + tarBlock - 1) / tarBlock * tarBlock)
	}
	if err != nil {
		f.failed(begin)
		return err
	}
	f.held[d] = held{begin, size}
	f.mu.Lock()
	f.now[begin] = size
	f.mu.Unlock()
	f.group.Go(func() error {
		defer f.over(begin)
		place := &place{vol: f.vol, at: at, left: size}
		sum := digest.SHA256.Digester()
		err := read(ctx, io.MultiWriter(place, sum.Hash()))
		if err == nil && (place.left != 0 || sum.Digest() != d) {
			err = fmt.Errorf("%w: what came for %s has %s", ErrCorrupt, d, sum.Digest())
		}
		if err != nil {
			f.failed(begin)
		}
		done(err)
		return err
	})
	return nil
}

// keepClose waits while more bytes than so many are whole behind the first content that is
// not.
func (f *filling) keepClose(most int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.now) > 0 {
		whole := f.vol.size - slices.Min(slices.Collect(maps.Keys(f.now)))
		for _, size := range f.now {
			whole -= size
		}
		if whole <= most {
			return
		}
		f.ended.Wait()
	}
}

func (f *filling) over(begin int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.now, begin)
	f.ended.Broadcast()
}

func (f *filling) failed(begin int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut < 0 || begin < f.cut {
		f.cut = begin
	}
}

// wait waits for all that is on its way. Where something failed, it is taken away again,
// with what lies behind it. Its error is the first.
func (f *filling) wait() error {
	err := f.group.Wait()
	if f.cut < 0 {
		return err
	}
	for d, h := range f.held {
		if h.begin >= f.cut {
			delete(f.held, d)
		}
	}
	return errors.Join(err, f.vol.truncate(f.cut))
}

// place is where content is written.
type place struct {
	vol      *volume
	at, left int64 // bytes
}

func (p *place) Write(b []byte) (int, error) {
	if int64(len(b)) > p.left {
		return 0, fmt.Errorf("%w: more came than there was to come", ErrCorrupt)
	}
	n, err := p.vol.WriteAt(b, p.at)
	p.at += int64(n)
	p.left -= int64(n)
	return n, err
}

package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// volume is the bytes of a bundle, in one file or in parts of a size.
type volume struct {
	path  string
	split int64 // bytes of each part but the last; 0 is one file

	mu    sync.Mutex // guards what follows while several write
	parts []*os.File
	size  int64
}

// part is the path of the n-th part, from 0.
func (v *volume) part(n int) string {
	if v.split == 0 {
		return v.path
	}
	return fmt.Sprintf("%s.%03d", v.path, n+1)
}

// openVolume opens the parts of a bundle that are there, to write on.
func openVolume(path string, split int64) (*volume, error) {
	v := &volume{path: path, split: split}
	for {
		f, err := os.OpenFile(v.part(len(v.parts)), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return v, nil
		}
		if err == nil {
			err = v.add(f)
		}
		if err != nil {
			return nil, errors.Join(err, v.close())
		}
		if split == 0 {
			return v, nil
		}
	}
}

func (v *volume) add(f *os.File) error {
	info, err := f.Stat()
	if err == nil && v.split > 0 && v.size != int64(len(v.parts))*v.split {
		err = fmt.Errorf("%w: %s is there, and the part before it has not %d bytes: it was begun with another --split", ErrCorrupt, f.Name(), v.split)
	}
	if err == nil && v.split > 0 && info.Size() > v.split {
		err = fmt.Errorf("%w: %s has more than %d bytes: it was begun with another --split", ErrCorrupt, f.Name(), v.split)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	v.parts = append(v.parts, f)
	v.size += info.Size()
	return nil
}

// Write appends.
func (v *volume) Write(p []byte) (n int, err error) {
	at := v.size
	if err := v.grow(int64(len(p))); err != nil {
		return 0, err
	}
	return v.WriteAt(p, at)
}

// grow makes room for n bytes at the end, which are zero until they are written.
func (v *volume) grow(n int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for n > 0 {
		room := n
		if v.split > 0 {
			room = min(room, int64(len(v.parts))*v.split-v.size)
		}
		if room == 0 || len(v.parts) == 0 {
			f, err := os.OpenFile(v.part(len(v.parts)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // others carry it
			if err != nil {
				return err
			}
			v.parts = append(v.parts, f)
			continue
		}
		last := len(v.parts) - 1
		if err := v.parts[last].Truncate(v.size + room - int64(last)*v.split); err != nil {
			return err
		}
		v.size += room
		n -= room
	}
	return nil
}

// WriteAt implements [io.WriterAt], within the volume's size. Several may write at once,
// also while the volume grows.
func (v *volume) WriteAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		file, in, room := v.at(offset+int64(n), int64(len(p)-n))
		wrote, err := file.WriteAt(p[n:n+int(room)], in)
		n += wrote
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// at is the part that has an offset, the offset in it, and how many of n bytes it takes
// from there.
func (v *volume) at(offset, n int64) (file *os.File, in, room int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.split == 0 {
		return v.parts[0], offset, n
	}
	in = offset % v.split
	return v.parts[offset/v.split], in, min(n, v.split-in)
}

// ReadAt implements [io.ReaderAt].
func (v *volume) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		at := offset + int64(n)
		if at >= v.size {
			return n, io.EOF
		}
		part, in := 0, at
		if v.split > 0 {
			part, in = int(at/v.split), at%v.split
		}
		read, err := v.parts[part].ReadAt(p[n:min(int64(len(p)), int64(n)+v.partSize(part)-in)], in)
		n += read
		if err != nil && !(errors.Is(err, io.EOF) && read > 0) {
			return n, err
		}
	}
	return n, nil
}

func (v *volume) partSize(n int) int64 {
	if v.split == 0 {
		return v.size
	}
	return min(v.split, v.size-int64(n)*v.split)
}

// truncate takes away what lies behind a size.
func (v *volume) truncate(size int64) error {
	for len(v.parts) > 0 {
		last := len(v.parts) - 1
		begin := int64(last) * v.split
		if begin < size || last == 0 {
			v.size = size
			return v.parts[last].Truncate(size - begin)
		}
		if err := errors.Join(v.parts[last].Close(), os.Remove(v.part(last))); err != nil {
			return err
		}
		v.parts = v.parts[:last]
	}
	return nil
}

// sync makes what was written survive a crash.
func (v *volume) sync() error {
	var errs []error
	for _, f := range v.parts {
		errs = append(errs, f.Sync())
	}
	return errors.Join(errs...)
}

func (v *volume) close() error {
	var errs []error
	for _, f := range v.parts {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

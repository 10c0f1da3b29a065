package blobstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// Scrubbing goes on beside everything else that a store does, and takes nothing
// away that is right; what is read is right, or was rotten before.
func TestScrubBesideReadersWritersAndEvictionTakesNothingThatIsRight(t *testing.T) {
	path := t.TempDir()
	const blobs, size = 60, 64 << 10
	d := openDir(t, path, blobstore.DirConfig{MaxSize: blobs * size / 2})
	scrubbing, stop := context.WithCancel(t.Context())
	var scrubs, clients sync.WaitGroup
	scrubs.Go(func() { // by the process itself
		s := newScrubber(t, blobstore.ScrubConfig{Dir: d, Rate: fastScrub})
		for scrubbing.Err() == nil {
			if err := s.Pass(scrubbing); err != nil && scrubbing.Err() == nil {
				t.Error(err)
			}
		}
		if st := s.Status(); st.Rotten != 0 || st.Unreadable != 0 {
			t.Errorf("found %+v", st)
		}
	})
	scrubs.Go(func() { // and by another
		for scrubbing.Err() == nil {
			_, err := blobstore.ScrubDir(scrubbing, path, blobstore.ScrubDirConfig{
				Found: func(f blobstore.ScrubFinding) { t.Errorf("found %+v", f) },
			})
			if err != nil && scrubbing.Err() == nil {
				t.Error(err)
			}
		}
	})
	for c := range 4 {
		clients.Go(func() {
			for i := range 3 * blobs {
				b := content(fmt.Sprint("blob", (i*7+c*13)%blobs), size)
				dgst := digest.FromBytes(b)
				if err := d.Put(t.Context(), dgst, size, bytes.NewReader(b)); err != nil {
					t.Errorf("storing: %v", err)
					return
				}
				r, _, err := d.Open(t.Context(), dgst, 0, -1)
				if errors.Is(err, blobstore.ErrNotExist) {
					continue // evicted since
				}
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(r)
				if err = errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, b) {
					t.Errorf("read %d bytes: %v", len(got), err)
				}
				if i%10 == 0 {
					if err := d.Delete(t.Context(), dgst); err != nil && !errors.Is(err, blobstore.ErrNotExist) {
						t.Error(err)
					}
				}
			}
		})
	}
	clients.Wait()
	stop()
	scrubs.Wait()
	held := 0
	for info, err := range d.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		held += int(info.Size)
	}
	if u := d.Usage(); u.Quarantined != 0 || u.Evictions == 0 || u.PartialBytes != 0 || int(u.Bytes) != held || len(quarantined(t, path)) != 0 {
		t.Errorf("the usage is %+v, and %d bytes are listed", u, held)
	}
}

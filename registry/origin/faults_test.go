package origin_test

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"entrepot/blobstore"
	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// slowStore lists its blobs when it is told to.
type slowStore struct {
	*blobstore.Dir
	listing, goOn chan struct{}
}

func (s *slowStore) Blobs(ctx context.Context) iter.Seq2[blobstore.Info, error] {
	close(s.listing)
	<-s.goOn
	return s.Dir.Blobs(ctx)
}

// failingStore fails to write records from some point on.
type failingStore struct {
	*blobstore.Dir
	left int // records that can still be written or deleted
}

var errBroken = errors.New("the disk is on fire")

func (s *failingStore) PutRecord(ctx context.Context, key string, value []byte) error {
	if s.left--; s.left < 0 {
		return errBroken
	}
	return s.Dir.PutRecord(ctx, key, value)
}

func (s *failingStore) DeleteRecord(ctx context.Context, key string) error {
	if s.left--; s.left < 0 {
		return errBroken
	}
	return s.Dir.DeleteRecord(ctx, key)
}

const plenty = 1 << 30

// A push of two tags and a referrer fails at each of its records in turn.
func TestPushThatFailsHalfWayShowsNothingIncomplete(t *testing.T) {
	for records := 0; ; records++ {
		store := &failingStore{Dir: openDir(t), left: plenty}
		s := newSite(t, store)
		subject, _ := s.pushImage("a", "subject", nil)
		body := image(s.pushBlob("a", random(10)), []ocispec.Descriptor{}, func(m *ocispec.Manifest) { m.Subject = &subject })
		d := digest.FromBytes(body)
		push := manifestPath("a", d.String()+"?tag=x&tag=y")
		store.left = records
		a := s.ask("PUT", push, body, "Content-Type", ocispec.MediaTypeImageManifest)
		store.left = plenty
		for range 2 {
			listed := len(s.referrersOf("a", subject.Digest, "")) > 0
			there := s.ask("GET", manifestPath("a", d.String()), nil).StatusCode == http.StatusOK
			if listed && !there {
				t.Errorf("after %d records, a referrer is listed that is not there", records)
			}
			if there && !listed {
				t.Errorf("after %d records, a referrer is there that is not listed: nobody would push it again", records)
			}
			tags, _ := s.tagsOf("a", "")
			for _, tag := range tags {
				s.want(http.StatusOK, "", "GET", manifestPath("a", tag), nil)
			}
			s.restart()
		}
		if a.StatusCode == http.StatusCreated {
			if records != 4 {
				t.Errorf("the push took %d records, want 4: manifest, referrer and two tags", records)
			}
			return
		}
		// The client pushes again, and all is well.
		s.want(http.StatusCreated, "", "PUT", push, body, "Content-Type", ocispec.MediaTypeImageManifest)
		if got := s.referrersOf("a", subject.Digest, ""); len(got) != 1 {
			t.Errorf("after %d records and a second push, referrers %v", records, got)
		}
	}
}

func TestDeletionThatFailsHalfWayShowsNothingIncomplete(t *testing.T) {
	for records := 0; ; records++ {
		store := &failingStore{Dir: openDir(t), left: plenty}
		s := newSite(t, store)
		subject, _ := s.pushImage("a", "subject", nil)
		d, _ := s.pushImage("a", "x", func(m *ocispec.Manifest) { m.Subject = &subject })
		store.left = records
		a := s.ask("DELETE", manifestPath("a", d.Digest.String()), nil)
		store.left = plenty
		for range 2 {
			tags, _ := s.tagsOf("a", "")
			for _, tag := range tags {
				s.want(http.StatusOK, "", "GET", manifestPath("a", tag), nil)
			}
			for _, referrer := range s.referrersOf("a", subject.Digest, "") {
				s.want(http.StatusOK, "", "GET", manifestPath("a", referrer.Digest.String()), nil)
			}
			s.restart()
		}
		if a.StatusCode == http.StatusAccepted {
			return
		}
		s.want(http.StatusAccepted, "", "DELETE", manifestPath("a", d.Digest.String()), nil)
	}
}

func TestUploadThatCannotBeLinkedIsNotReadable(t *testing.T) {
	store := &failingStore{Dir: openDir(t)}
	s := newSite(t, store)
	content := random(10)
	d := digest.FromBytes(content)
	s.want(http.StatusInternalServerError, "UNKNOWN", "POST", "/v2/a/blobs/uploads/?digest="+d.String(), content)
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", d), nil)
	wantNoFiles(t, s)
	store.left = plenty
	s.pushBlob("a", content)
	s.want(http.StatusOK, "", "GET", blobPath("a", d), nil)
}

func TestDamagedManifestIsNotServed(t *testing.T) {
	place := filepath.Join(t.TempDir(), "store")
	store, err := blobstore.OpenDir(place, blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s := newSite(t, store)
	body := indexOf()
	d := digest.FromBytes(body)
	s.want(http.StatusCreated, "", "PUT", manifestPath("a", "x"), body, "Content-Type", ocispec.MediaTypeImageIndex)
	damaged := append([]byte{' '}, body[:len(body)-1]...)
	if err := os.WriteFile(filepath.Join(place, "blobs/sha256", d.Encoded()[:2], d.Encoded(), "data"), damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	s.want(http.StatusInternalServerError, "UNKNOWN", "GET", manifestPath("a", "x"), nil)
}

func TestStoreThatEvictsIsRefused(t *testing.T) {
	store, err := blobstore.OpenDir(filepath.Join(t.TempDir(), "store"), blobstore.DirConfig{MaxSize: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if o, err := origin.New(origin.Config{Store: store, Uploads: t.TempDir()}); err == nil {
		_ = o.Close()
		t.Error("an origin was made that forgets what was pushed to it")
	}
}

package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

var errBroken = errors.New("the disk is broken")

func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func (w *watched) Put(ctx context.Context, d digest.Digest, size int64, r io.Reader) error {
	if err := w.note("put %s", short(d)); err != nil {
		return err
	}
	return w.Backing.Put(ctx, d, size, r)
}

func (w *watched) PutRecord(ctx context.Context, key string, value []byte) error {
	if err := w.note("record %s", key); err != nil {
		return err
	}
	return w.Backing.PutRecord(ctx, key, value)
}

func (w *watched) Record(ctx context.Context, key string) ([]byte, error) {
	if err := w.note("read %s", key); err != nil {
		return nil, err
	}
	return w.Backing.Record(ctx, key)
}

// writes are the calls that changed something.
func (w *watched) writes() []string {
	return slices.DeleteFunc(w.take(), func(call string) bool {
		return !strings.HasPrefix(call, "put ") && !strings.HasPrefix(call, "record ")
	})
}

func putTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"what is put is there": func(_ *testing.T, s *site) {
			s.put("/release/v1.36.0/bin/kubectl", "binary").want(http.StatusCreated).wantHeader(
				"Location: /release/v1.36.0/bin/kubectl", "Repr-Digest: "+field("binary"), "Etag: "+tag("binary"))
			s.holds("/release/v1.36.0/bin/kubectl", "binary")
			s.put("/empty", "").want(http.StatusCreated)
			s.holds("/empty", "")
			large := strings.Repeat("0123456789abcdef", 1<<20)
			s.put("/large", large).want(http.StatusCreated)
			s.holds("/large", large)
		},

		"a file needs the digest of its content": func(_ *testing.T, s *site) {
			d := string(digest.FromString("x"))
			s.ask(http.MethodPut, "/a", "x").want(http.StatusBadRequest, "a file is put with its sha256", "Repr-Digest")
			for i, how := range []struct{ query, header string }{
				{"", "Repr-Digest: " + field("x")},
				{"", "Content-Digest: " + field("x")},
				{"?digest=" + d, "X-Nothing: "},
				{"?digest=" + d, "Repr-Digest: " + field("x")},
				{"", "Repr-Digest: sha-512=:AAAA:, " + field("x") + ";q=1"},
				{"", "Repr-Digest: " + field("other") + ", " + field("x")}, // the last counts
			} {
				path := fmt.Sprintf("/ok/%d", i)
				s.ask(http.MethodPut, path+how.query, "x", how.header).want(http.StatusCreated)
				s.holds(path, "x")
			}
			for _, how := range []struct{ query, header, want string }{
				{"?digest=" + d, "Repr-Digest: " + field("other"), "Repr-Digest says sha256:"},
				{"", "Repr-Digest: sha-256=" + d, "is not of the form sha-256=:<base64 of 32 bytes>:"},
				{"", "Repr-Digest: sha-256=:AAAA:", "is not of the form"},
				{"", "Repr-Digest: sha-512=:AAAA:", "a file is put with its sha256"},
				{"?digest=sha256:" + strings.ToUpper(digest.FromString("x").Encoded()), "X-Nothing: ", "is not a digest"},
				{"?digest=sha256:abc", "X-Nothing: ", "want sha256: and 64 hexadecimal digits"},
				{"?digest=" + string(digest.SHA512.FromString("x")), "X-Nothing: ", "is not a digest"},
				{"?digest=" + d + "&digest=" + d, "X-Nothing: ", "the query has digest twice"},
				{"?digest=" + d + "&overwite=1", "X-Nothing: ", `there is no parameter "overwite"`},
				{"?digest=" + d + "&overwrite=yes", "X-Nothing: ", `overwrite is "yes"`},
				{"?digest=%zz", "X-Nothing: ", "the query"},
			} {
				s.ask(http.MethodPut, "/bad"+how.query, "x", how.header).want(http.StatusBadRequest, how.want)
			}
			s.ask(http.MethodGet, "/bad", "").want(http.StatusNotFound)
		},

		"wrong content is not stored": func(t *testing.T, s *site) {
			s.ask(http.MethodPut, "/a", "wrong", "Repr-Digest: "+field("right")).
				want(http.StatusBadRequest, "the 5 bytes sent do not have digest "+string(digest.FromString("right")))
			s.ask(http.MethodGet, "/a", "").want(http.StatusNotFound)
			s.ask(http.MethodGet, "/blobs/"+string(digest.FromString("right")), "").want(http.StatusNotFound)
			if heard := s.heard.take(); len(heard) > 0 {
				t.Errorf("heard %q", heard)
			}
			// Nor is it believed to be when the right content is there.
			s.put("/b", "right").want(http.StatusCreated)
			s.ask(http.MethodPut, "/a", "wrong", "Repr-Digest: "+field("right")).want(http.StatusBadRequest, string(digest.FromString("wrong")))
			s.ask(http.MethodPut, "/a", "wrong!", "Repr-Digest: "+field("right")).want(http.StatusBadRequest, "6 bytes")
			s.ask(http.MethodGet, "/a", "").want(http.StatusNotFound)
		},

		"other content does not replace a file unless that is asked": func(t *testing.T, s *site) {
			one, two := digest.FromString("one"), digest.FromString("two")
			s.put("/a", "one").want(http.StatusCreated)
			for _, headers := range [][]string{nil, {"If-Match: *"}} {
				s.put("/a", "two", headers...).want(http.StatusConflict, string(one), string(two), "?overwrite=1")
			}
			s.put("/a?overwrite=0", "two").want(http.StatusConflict)
			s.put("/a", "two", "If-Match: "+tag("zero")).want(http.StatusPreconditionFailed, string(one))
			s.put("/a", "two", "If-Match: W/"+tag("one")).want(http.StatusPreconditionFailed)
			s.put("/a?overwrite=1", "two", "If-Match: "+tag("zero")).want(http.StatusPreconditionFailed)
			s.put("/a?overwrite=1", "two", "If-None-Match: *").want(http.StatusPreconditionFailed)
			s.holds("/a", "one")
			s.heard.take()

			s.put("/a", "two", "If-Match: "+tag("zero")+", "+tag("one")).want(http.StatusOK)
			s.holds("/a", "two")
			s.put("/a?overwrite=1", "one").want(http.StatusOK)
			s.holds("/a", "one")
			want := []string{
				`pushed a ` + short(two) + ` 3 application/octet-stream by "" instead of ` + short(one),
				`pushed a ` + short(one) + ` 3 application/octet-stream by "" instead of ` + short(two),
			}
			if got := s.heard.take(); !slices.Equal(got, want) {
				t.Errorf("heard %q, want %q", got, want)
			}
		},

		"a condition on a new file": func(_ *testing.T, s *site) {
			s.put("/a", "x", "If-Match: "+tag("x")).want(http.StatusPreconditionFailed, "there is no file a")
			s.put("/a", "x", "If-Match: *").want(http.StatusPreconditionFailed)
			s.put("/a", "x", "If-None-Match: *").want(http.StatusCreated)
			s.put("/a", "x", "If-None-Match: *").want(http.StatusPreconditionFailed)
		},

		"the same again stores nothing": func(t *testing.T, s *site) {
			s.put("/a", "x").want(http.StatusCreated)
			s.heard.take()
			s.store.take()
			s.put("/a", "x").want(http.StatusOK).wantHeader("Etag: " + tag("x"))
			s.put("/a?overwrite=1", "x").want(http.StatusOK)
			if writes, heard := s.store.writes(), s.heard.take(); len(writes)+len(heard) > 0 {
				t.Errorf("wrote %q, told %q", writes, heard)
			}
			// The same content by another name is one record.
			s.put("/b", "x").want(http.StatusCreated)
			if writes := s.store.writes(); !slices.Equal(writes, []string{"record files/b"}) {
				t.Errorf("wrote %q", writes)
			}
		},

		"content that was lost is stored again": func(t *testing.T, s *site) {
			s.put("/a", "x").want(http.StatusCreated)
			if err := s.store.Delete(t.Context(), digest.FromString("x")); err != nil {
				t.Fatal(err)
			}
			s.ask(http.MethodGet, "/a", "").want(http.StatusInternalServerError)
			s.put("/a", "x").want(http.StatusOK)
			s.holds("/a", "x")
		},

		"a mount takes content that is there": func(t *testing.T, s *site) {
			d := digest.FromString("x")
			s.ask(http.MethodPut, "/b?mount="+string(d), "").want(http.StatusNotFound, "there is no content with digest "+string(d)+": send it")
			s.put("/a", "x").want(http.StatusCreated)
			s.store.take()
			s.ask(http.MethodPut, "/b?mount="+string(d), "").want(http.StatusCreated)
			if writes := s.store.writes(); !slices.Equal(writes, []string{"record files/b"}) {
				t.Errorf("wrote %q", writes)
			}
			s.holds("/b", "x")
			s.ask(http.MethodPut, "/b?mount="+string(d), "", "Repr-Digest: "+field("x")).want(http.StatusOK)
			s.ask(http.MethodPut, "/b?mount="+string(d), "", "Repr-Digest: "+field("y")).want(http.StatusBadRequest)
			s.ask(http.MethodPut, "/b?mount="+string(d), "x").want(http.StatusBadRequest, "Content-Length: 0")
			s.ask(http.MethodPut, "/b?mount=x", "").want(http.StatusBadRequest, "mount:")
			s.put("/c", "y").want(http.StatusCreated)
			s.ask(http.MethodPut, "/c?mount="+string(d), "").want(http.StatusConflict)
			s.ask(http.MethodPut, "/c?mount="+string(d)+"&overwrite=1", "").want(http.StatusOK)
			s.holds("/c", "x")
		},

		"parts and encoded content are refused": func(_ *testing.T, s *site) {
			s.put("/a", "x", "Content-Range: bytes 0-0/2").want(http.StatusBadRequest, "files are put whole")
			s.put("/a", "x", "Content-Encoding: gzip").want(http.StatusUnsupportedMediaType, "send the content itself")
			s.put("/a", "x", "Content-Encoding: identity").want(http.StatusCreated)
		},

		"names outlive a restart": func(_ *testing.T, s *site) {
			paths := []string{"/a", "/b/c/d", "/b/%C3%A9t%C3%A9", "/b/50%25", "/b/" + strings.Repeat("%F0%9F%9A%A2", 40)}
			for _, path := range paths {
				s.put(path, path).want(http.StatusCreated)
			}
			s.open()
			for _, path := range paths {
				s.holds(path, path)
				s.put(path, "other").want(http.StatusConflict)
				s.put(path, path).want(http.StatusOK)
			}
		},

		"of two that write one name, one does": func(t *testing.T, s *site) {
			for round := range 5 {
				var created, refused atomic.Int32
				var winner atomic.Pointer[string]
				var all sync.WaitGroup
				for i := range 8 {
					all.Go(func() {
						body := fmt.Sprintf("content %d of %d", i, round)
						switch a := s.put(fmt.Sprintf("/race/%d", round), body); a.status {
						case http.StatusCreated:
							created.Add(1)
							winner.Store(&body)
						case http.StatusConflict:
							refused.Add(1)
						default:
							t.Errorf("status %d: %s", a.status, a.body)
						}
					})
				}
				all.Wait()
				if created.Load() != 1 || refused.Load() != 7 {
					t.Fatalf("%d created, %d refused", created.Load(), refused.Load())
				}
				s.holds(fmt.Sprintf("/race/%d", round), *winner.Load())
			}
		},

		"a name becomes a file or a folder, never both": func(t *testing.T, s *site) {
			for round := range 5 {
				var files, below atomic.Int32
				var all sync.WaitGroup
				for i := range 8 {
					all.Go(func() {
						path, count := fmt.Sprintf("/%d/a", round), &files
						if i%2 == 0 {
							path, count = fmt.Sprintf("/%d/a/b/%d", round, i), &below
						}
						if a := s.put(path, "x"); a.status < 300 {
							count.Add(1)
						} else if a.status != http.StatusConflict {
							t.Errorf("status %d: %s", a.status, a.body)
						}
					})
				}
				all.Wait()
				if f, b := files.Load(), below.Load(); (f > 0) == (b > 0) {
					t.Fatalf("%d as a file, %d as a folder", f, b)
				}
			}
		},
	}
}

// tag is the entity tag of content.
func tag(body string) string { return `"` + string(digest.FromString(body)) + `"` }

func TestAFullStoreSaysSo(t *testing.T) {
	s := newSite(t, openDir(t))
	for _, when := range []string{"put ", "record "} {
		s.store.fail(func(call string) error {
			if strings.HasPrefix(call, when) {
				return fmt.Errorf("storing: %w", blobstore.ErrNoSpace)
			}
			return nil
		})
		s.put("/a", "x").want(http.StatusInsufficientStorage, "no space left")
		s.store.fail(nil)
		s.ask(http.MethodGet, "/a", "").want(http.StatusNotFound)
	}
	s.put("/a", "x").want(http.StatusCreated)
}

// Object names of S3 are shorter than paths may be.
func TestANameThatTheStoreCannotHoldIsRefused(t *testing.T) {
	s := newSite(t, openDir(t))
	s.store.fail(func(call string) error {
		if strings.HasPrefix(call, "record ") {
			return fmt.Errorf("%w: too long", blobstore.ErrInvalidKey)
		}
		return nil
	})
	s.put("/a/b", "x").want(http.StatusRequestURITooLong, "too long for the store")
	s.ask(http.MethodGet, "/a/", "").want(http.StatusNotFound)
}

// A write that failed may have been done: S3 was asked, and the answer lost.
func TestAfterAFailedWriteWhatTheStoreHasCounts(t *testing.T) {
	s := newSite(t, openDir(t))
	s.put("/a", "one").want(http.StatusCreated)
	value, err := s.store.Record(t.Context(), "files/a")
	if err != nil {
		t.Fatal(err)
	}
	s.store.fail(func(call string) error {
		if strings.HasPrefix(call, "record ") {
			return errBroken
		}
		return nil
	})
	s.put("/a?overwrite=1", "two").want(http.StatusInternalServerError)
	s.put("/new", "one").want(http.StatusInternalServerError)
	s.put("/folder/new", "one").want(http.StatusInternalServerError)
	s.store.fail(nil)
	s.holds("/a", "one")
	if a := s.ask(http.MethodGet, "/", "").want(http.StatusOK); strings.Contains(a.body, "new") {
		t.Errorf("lists what is not there: %s", a.body)
	}
	if err := s.store.PutRecord(t.Context(), "files/folder/new", value); err != nil { // it was done, late
		t.Fatal(err)
	}
	s.holds("/folder/new", "one")
}

func TestUploadsKeepTheirType(t *testing.T) {
	s := newSite(t, openDir(t))
	for _, c := range []struct{ path, sent, want string }{
		{"/a.tar.gz", "", "application/gzip"},
		{"/a.TXT", "", "text/plain; charset=utf-8"},
		{"/kubectl", "", "application/octet-stream"},
		{"/b.txt", "application/octet-stream", "text/plain; charset=utf-8"},
		{"/c.json", "application/x-www-form-urlencoded", "application/json"}, // curl --data-binary
		{"/d", `text/html; charset="utf-8"`, "text/html; charset=utf-8"},
		{"/e.json", "not a type", "application/json"},
		{"/f.yaml", "multipart/form-data; boundary=x", "application/yaml"},
		{"/g.txt", "image/png\r\nX-Evil: 1", "text/plain; charset=utf-8"},
	} {
		s.put(c.path, c.path, "Content-Type: "+c.sent).want(http.StatusCreated)
		s.ask(http.MethodGet, c.path, "").want(http.StatusOK).wantHeader("Content-Type: "+c.want, "X-Content-Type-Options: nosniff")
	}
}

package filestore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
)

func (w *watched) Open(ctx context.Context, d digest.Digest, offset, length int64) (io.ReadCloser, blobstore.Info, error) {
	if err := w.note("open %d+%d", offset, length); err != nil {
		return nil, blobstore.Info{}, err
	}
	return w.Backing.Open(ctx, d, offset, length)
}

const letters = "abcdefghijklmnopqrstuvwxyz"

func readTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"a file says what it is": func(t *testing.T, s *site) {
			s.put("/v1/letters.txt", letters).want(http.StatusCreated)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := s.ask(method, "/v1/letters.txt", "").want(http.StatusOK).wantHeader(
					"Content-Type: text/plain; charset=utf-8", "Content-Length: 26", "Accept-Ranges: bytes", "Etag: "+tag(letters),
					"Repr-Digest: "+field(letters), "Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT", "Cache-Control: no-cache",
					"X-Content-Type-Options: nosniff")
				if want := map[string]string{http.MethodGet: letters}[method]; a.body != want {
					t.Errorf("%s: body %q", method, a.body)
				}
			}
		},

		"content is there by its digest": func(_ *testing.T, s *site) {
			s.put("/a", letters).want(http.StatusCreated)
			blob := "/blobs/" + string(digest.FromString(letters))
			s.ask(http.MethodGet, blob, "").want(http.StatusOK, letters).wantHeader(
				"Content-Type: application/octet-stream", "Etag: "+tag(letters), "Repr-Digest: "+field(letters),
				"Cache-Control: max-age=31536000, immutable", "Last-Modified:")
			s.ask(http.MethodGet, blob, "", "Range: bytes=1-2").want(http.StatusPartialContent, "bc")
			s.ask(http.MethodHead, blob, "").want(http.StatusOK).wantHeader("Content-Length: 26")
			s.ask(http.MethodGet, "/blobs/"+string(digest.FromString("none")), "").want(http.StatusNotFound, "there is no content")
		},

		"parts": func(t *testing.T, s *site) {
			s.put("/a", letters).want(http.StatusCreated)
			for _, c := range []struct {
				header, body, contentRange string
			}{
				{"bytes=0-0", "a", "bytes 0-0/26"},
				{"bytes=5-9", "fghij", "bytes 5-9/26"},
				{"bytes=20-", "uvwxyz", "bytes 20-25/26"},
				{"bytes=20-26", "uvwxyz", "bytes 20-25/26"}, // one past the end, as regctl asks
				{"bytes=-3", "xyz", "bytes 23-25/26"},
			} {
				a := s.ask(http.MethodGet, "/a", "", "Range: "+c.header).want(http.StatusPartialContent).
					wantHeader("Content-Range: "+c.contentRange, fmt.Sprintf("Content-Length: %d", len(c.body)), "Repr-Digest: "+field(letters))
				if a.body != c.body {
					t.Errorf("%s: %q", c.header, a.body)
				}
			}
			s.ask(http.MethodGet, "/a", "", "Range: bytes=26-").want(http.StatusRequestedRangeNotSatisfiable).wantHeader("Content-Range: bytes */26")
			s.ask(http.MethodGet, "/a", "", "Range: bytes=0-3", "If-Range: "+tag(letters)).want(http.StatusPartialContent, "abcd")
			s.ask(http.MethodGet, "/a", "", "Range: bytes=0-3", "If-Range: "+tag("changed")).want(http.StatusOK, letters)
			s.ask(http.MethodGet, "/a", "", "Range: bytes=5-8", "If-Range: Mon, 23 Nov 2026 10:00:00 GMT").want(http.StatusPartialContent, "fghi")

			a := s.ask(http.MethodGet, "/a", "", "Range: bytes=0-1,24-,3-4").want(http.StatusPartialContent)
			_, parameters, err := mime.ParseMediaType(a.header.Get("Content-Type"))
			if err != nil {
				t.Fatal(err)
			}
			parts := multipart.NewReader(strings.NewReader(a.body), parameters["boundary"])
			for _, want := range []string{"ab", "yz", "de"} {
				part, err := parts.NextPart()
				if err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, part); got != want {
					t.Errorf("part %q, want %q", got, want)
				}
			}
		},

		"who has it already is not sent it": func(t *testing.T, s *site) {
			s.put("/a", letters).want(http.StatusCreated)
			s.store.take()
			for _, header := range []string{
				"If-None-Match: " + tag(letters), "If-None-Match: W/" + tag(letters), "If-None-Match: " + tag("x") + ", " + tag(letters),
			} {
				a := s.ask(http.MethodGet, "/a", "", header).want(http.StatusNotModified).wantHeader("Etag: "+tag(letters), "Cache-Control: no-cache")
				if a.body != "" {
					t.Errorf("body %q", a.body)
				}
			}
			if calls := s.store.take(); len(calls) > 0 {
				t.Errorf("the store was asked %q", calls)
			}
			s.ask(http.MethodGet, "/a", "", "If-None-Match: *").want(http.StatusNotModified)
			s.ask(http.MethodGet, "/a", "", "If-Modified-Since: Mon, 23 Nov 2026 10:00:00 GMT").want(http.StatusNotModified)
			s.ask(http.MethodGet, "/a", "", "If-Modified-Since: Mon, 23 Nov 2026 09:59:59 GMT").want(http.StatusOK)
			s.ask(http.MethodGet, "/a", "", "If-None-Match: "+tag("x")).want(http.StatusOK, letters)
			s.ask(http.MethodGet, "/a", "", "If-Match: "+tag("x")).want(http.StatusPreconditionFailed)
		},

		"an empty file": func(t *testing.T, s *site) {
			s.put("/a", "").want(http.StatusCreated)
			if a := s.ask(http.MethodGet, "/a", "", "Range: bytes=0-").wantHeader("Content-Length: 0"); a.status != http.StatusOK || a.body != "" {
				t.Errorf("status %d, body %q", a.status, a.body)
			}
		},
	}
}

// A store that is no directory is asked for just the range, once.
func TestARangeCostsTheStoreOneRequest(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.Store = s.store // without OpenFile
	s.open()
	s.put("/a", letters).want(http.StatusCreated)
	for header, want := range map[string][]string{
		"bytes=5-9":     {"open 5+5"},
		"bytes=20-":     {"open 20+6"},
		"bytes=20-99":   {"open 20+6"},
		"bytes=-3":      {"open 0+26", "open 23+3"}, // nobody asks so
		"bytes=0-1,5-6": {"open 0+26", "open 5+21"},
		"":              {"open 0+26"},
	} {
		s.store.take()
		r := httptest.NewRequest(http.MethodGet, "/a", nil)
		if header != "" {
			r.Header.Set("Range", header)
		}
		s.ServeHTTP(httptest.NewRecorder(), r)
		if calls := s.store.take(); !slices.Equal(calls, want) {
			t.Errorf("%s: %q, want %q", header, calls, want)
		}
	}
	s.ask(http.MethodHead, "/a", "").want(http.StatusOK)
	if calls := s.store.take(); len(calls) > 0 {
		t.Errorf("HEAD: %q", calls)
	}
}

// fileTaker is a connection that can send files.
type fileTaker struct {
	*httptest.ResponseRecorder
	files int
}

func (f *fileTaker) ReadFrom(src io.Reader) (int64, error) {
	if part, ok := src.(*io.LimitedReader); ok {
		if _, ok := part.R.(*os.File); ok {
			f.files++
		}
	}
	return io.Copy(f.ResponseRecorder, src)
}

func TestTheKernelSendsFilesOfADirectory(t *testing.T) {
	s := newSite(t, openDir(t))
	large := strings.Repeat(letters, 400_000) // of several pieces
	s.put("/a", large).want(http.StatusCreated)
	for header, want := range map[string]string{"": large, "bytes=1-5000000": large[1:5000001]} {
		w := &fileTaker{ResponseRecorder: httptest.NewRecorder()}
		r := httptest.NewRequest(http.MethodGet, "/a", nil)
		if header != "" {
			r.Header.Set("Range", header)
		}
		s.ServeHTTP(w, r)
		if w.files < 2 || w.Body.String() != want {
			t.Errorf("%q: %d pieces from a file, %d bytes", header, w.files, w.Body.Len())
		}
	}
}

// breaking is a reader that fails after some bytes.
type breaking struct {
	io.ReadCloser
	left int
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errBroken
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

type breakingStore struct{ *watched }

func (b breakingStore) Open(ctx context.Context, d digest.Digest, offset, length int64) (io.ReadCloser, blobstore.Info, error) {
	r, info, err := b.watched.Open(ctx, d, offset, length)
	return &breaking{r, 100_000}, info, err
}

func TestATransferThatBreaksIsCut(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.Store = breakingStore{s.store}
	var failed error
	done := make(chan struct{}, 1)
	s.config.Done = func(o *observation) {
		if o.Method == http.MethodGet {
			failed = o.Err
			done <- struct{}{}
		}
	}
	s.open()
	s.put("/a", strings.Repeat(letters, 100_000)).want(http.StatusCreated)
	server := s.serve()
	response, err := server.Client().Get(server.URL + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || n > 100_000 {
		t.Errorf("read %d bytes, then %v", n, err)
	}
	<-done
	if !errors.Is(failed, errBroken) {
		t.Errorf("observed %v", failed)
	}
}

func TestContentThatCannotBeOpenedIsAnError(t *testing.T) {
	s := newSite(t, openDir(t))
	s.config.Store = s.store
	s.open()
	s.put("/a", "x").want(http.StatusCreated)
	s.store.fail(func(call string) error {
		if strings.HasPrefix(call, "open") {
			return errBroken
		}
		return nil
	})
	s.ask(http.MethodGet, "/a", "").want(http.StatusInternalServerError).wantHeader("Etag:", "Repr-Digest:", "Cache-Control: no-store")
}

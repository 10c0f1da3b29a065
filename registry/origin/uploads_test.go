package origin_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/registry/origin"

	"github.com/opencontainers/go-digest"
)

func uploadTests() map[string]func(*testing.T, *site) {
	return map[string]func(*testing.T, *site){
		"EveryWayOfUploadingStoresTheBlob":           testWaysOfUploading,
		"BytesThatDoNotMatchAreRefused":              testWrongBytes,
		"ChunkOutOfOrderIsRefusedAndUploadGoesOn":    testOutOfOrder,
		"ChunkOfAnotherLengthThanSaidIsNotKept":      testWrongChunkLength,
		"UploadSurvivesARestart":                     testUploadSurvives,
		"UploadThatNobodyGoesOnWithEndsAfterADay":    testUploadExpires,
		"UploadBelongsToItsRepository":               testUploadRepository,
		"CancelledUploadIsGone":                      testCancel,
		"BlobThatIsThereCanBeUploadedAgain":          testUploadAgain,
		"EmptyUploadIsTheEmptyBlobAndNothingElse":    testEmptyUpload,
		"UploadsOfAnUnknownAlgorithmAreRefused":      testUnknownAlgorithm,
		"BytesBeforeABrokenConnectionAreNotLost":     testBrokenConnection,
		"BlobIsReadInRanges":                         testRanges,
		"TwoRequestsDoNotWriteOneUploadAtOnce":       testTurns,
		"FinishedUploadLeavesNoFiles":                testNoFilesLeft,
		"WrongBytesForABlobThatIsThereAreNotLinked":  testWrongBytesForKnownBlob,
		"UploadWhoseClientLeftAtItsEndCanBeFinished": testFinishAgain,
	}
}

// upload uploads content in one of the ways there are, and returns the last
// answer.
func (s *site) upload(way, repository string, content []byte, d digest.Digest) answer {
	s.t.Helper()
	const first = 600
	switch way {
	case "POST":
		return s.ask("POST", "/v2/"+repository+"/blobs/uploads/?digest="+d.String(), content)
	case "POST and PUT":
		return s.ask("PUT", withDigest(s.startUpload(repository), d), content)
	case "stream":
		location := s.want(http.StatusAccepted, "", "PATCH", s.startUpload(repository), content).Header.Get("Location")
		return s.ask("PUT", withDigest(location, d), nil)
	case "chunks":
		a := s.want(http.StatusAccepted, "", "PATCH", s.startUpload(repository), content[:first], "Content-Range", fmt.Sprintf("0-%d", first-1))
		a.wantHeaders(s.t, map[string]string{"Range": fmt.Sprintf("0-%d", first-1)})
		location := s.want(http.StatusAccepted, "", "PATCH", a.Header.Get("Location"), content[first:],
			"Content-Range", fmt.Sprintf("%d-%d", first, len(content)-1)).Header.Get("Location")
		return s.ask("PUT", withDigest(location, d), nil)
	case "chunks, the last with PUT":
		location := s.want(http.StatusAccepted, "", "PATCH", s.startUpload(repository), content[:first], "Content-Range", fmt.Sprintf("0-%d", first-1)).Header.Get("Location")
		return s.ask("PUT", withDigest(location, d), content[first:], "Content-Range", fmt.Sprintf("bytes %d-%d/*", first, len(content)-1))
	}
	s.t.Fatalf("no way %s", way)
	return answer{}
}

var ways = []string{"POST", "POST and PUT", "stream", "chunks", "chunks, the last with PUT"}

func testWaysOfUploading(t *testing.T, s *site) {
	for _, way := range ways {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			content := random(1000)
			d := algorithm.FromBytes(content)
			s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a/b", d), nil)
			a := s.upload(way, "a/b", content, d)
			if a.StatusCode != http.StatusCreated {
				t.Fatalf("%s: %d %s", way, a.StatusCode, a.body)
			}
			a.wantHeaders(t, map[string]string{"Location": blobPath("a/b", d), "Docker-Content-Digest": d.String()})
			if got := s.want(http.StatusOK, "", "GET", blobPath("a/b", d), nil); got.body != string(content) {
				t.Errorf("%s: %d bytes came back", way, len(got.body))
			}
			s.want(http.StatusOK, "", "HEAD", blobPath("a/b", d), nil).wantHeaders(t, map[string]string{"Content-Length": "1000"})
			s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", d), nil)
			if got, want := s.heard.take(), "pushed application/octet-stream a/b@"+d.String(); len(got) != 1 || got[0] != want {
				t.Errorf("%s: events %q, want %q", way, got, want)
			}
		}
	}
}

func testWrongBytes(t *testing.T, s *site) {
	for _, way := range ways {
		content := random(1000)
		d := digest.FromBytes(content)
		content[999] ^= 1
		a := s.upload(way, "a", content, d)
		if a.StatusCode != http.StatusBadRequest || a.code() != "DIGEST_INVALID" {
			t.Errorf("%s: %d %s", way, a.StatusCode, a.body)
		}
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "HEAD", blobPath("a", d), nil)
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("a", digest.FromBytes(content)), nil)
	}
	if n := s.storedBlobs(); n != 0 {
		t.Errorf("%d blobs are stored", n)
	}
	wantNoFiles(t, s)
	if lines := s.heard.take(); len(lines) != 0 {
		t.Errorf("events %q", lines)
	}
}

// wantNoFiles wants no upload to have left a file.
func wantNoFiles(t *testing.T, s *site) {
	t.Helper()
	entries, err := os.ReadDir(s.config.Uploads)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("left of the uploads: %v, %v", entries, err)
	}
}

func testNoFilesLeft(t *testing.T, s *site) {
	for _, way := range ways {
		content := random(1000)
		if a := s.upload(way, "a", content, digest.FromBytes(content)); a.StatusCode != http.StatusCreated {
			t.Fatalf("%s: %d %s", way, a.StatusCode, a.body)
		}
	}
	wantNoFiles(t, s)
}

func testWrongBytesForKnownBlob(_ *testing.T, s *site) {
	layer := s.pushBlob("a", random(100))
	s.want(http.StatusBadRequest, "DIGEST_INVALID", "POST", "/v2/b/blobs/uploads/?digest="+layer.Digest.String(), []byte("I do not have it"))
	s.want(http.StatusNotFound, "BLOB_UNKNOWN", "GET", blobPath("b", layer.Digest), nil)
}

func testOutOfOrder(t *testing.T, s *site) {
	content := random(300)
	location := s.startUpload("a")
	s.want(http.StatusAccepted, "", "PATCH", location, content[:100], "Content-Range", "0-99")
	for _, method := range []string{"PATCH", "PUT"} {
		for _, wrong := range []string{"0-99", "99-198", "200-299"} {
			a := s.want(http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", method, withDigest(location, digest.FromBytes(content)), content[200:], "Content-Range", wrong)
			a.wantHeaders(t, map[string]string{"Range": "0-99", "Location": location})
		}
	}
	s.want(http.StatusNoContent, "", "GET", location, nil).wantHeaders(t, map[string]string{"Range": "0-99", "Location": location})
	s.want(http.StatusAccepted, "", "PATCH", location, content[100:], "Content-Range", "100-299")
	s.want(http.StatusCreated, "", "PUT", withDigest(location, digest.FromBytes(content)), nil)
}

func testWrongChunkLength(t *testing.T, s *site) {
	content := random(300)
	location := s.startUpload("a")
	s.want(http.StatusAccepted, "", "PATCH", location, content[:100], "Content-Range", "0-99")
	s.want(http.StatusBadRequest, "SIZE_INVALID", "PATCH", location, content[100:200], "Content-Range", "100-299")
	for _, body := range [][]byte{content[100:200], append(content[100:300:300], 'x')} {
		// Of unknown length, so that only reading it tells.
		r := httptest.NewRequest(http.MethodPatch, location, strings.NewReader(string(body)))
		r.ContentLength = -1
		r.Header.Set("Content-Range", "100-299")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "SIZE_INVALID") {
			t.Errorf("a body of %d bytes: %d %s", len(body), w.Code, w.Body)
		}
	}
	for _, malformed := range []string{"", "100", "299-100", "-5", "a-b", "100-299/300"} {
		s.want(http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "PATCH", location, content[100:], "Content-Range", malformed)
	}
	s.want(http.StatusNoContent, "", "GET", location, nil).wantHeaders(t, map[string]string{"Range": "0-99"})
	s.want(http.StatusCreated, "", "PUT", withDigest(location, digest.FromBytes(content)), content[100:])
}

func testUploadSurvives(t *testing.T, s *site) {
	content := random(2000)
	location := s.startUpload("a/b")
	s.want(http.StatusAccepted, "", "PATCH", location, content[:1500])
	s.restart()
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", strings.Replace(location, "a/b", "a/c", 1), nil)
	s.want(http.StatusNoContent, "", "GET", location, nil).wantHeaders(t, map[string]string{"Range": "0-1499"})
	s.want(http.StatusAccepted, "", "PATCH", location, content[1500:], "Content-Range", "1500-1999")
	s.restart()
	d := digest.FromBytes(content)
	s.want(http.StatusCreated, "", "PUT", withDigest(location, d), nil)
	s.restart()
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", location, nil)
	if got := s.want(http.StatusOK, "", "GET", blobPath("a/b", d), nil); got.body != string(content) {
		t.Errorf("%d bytes came back", len(got.body))
	}
}

func testUploadExpires(t *testing.T, s *site) {
	old, used := s.startUpload("a"), s.startUpload("a")
	s.clock.forward(23 * time.Hour)
	s.want(http.StatusAccepted, "", "PATCH", used, []byte("x"))
	s.clock.forward(2 * time.Hour)
	// Halves of uploads, as a crash leaves them, and what is not an upload.
	for name, text := range map[string]string{
		strings.Repeat("a", 32) + ".data": "x", strings.Repeat("b", 32) + ".json": `{"repository":"a"}`, "README": "keep me",
	} {
		if err := os.WriteFile(filepath.Join(s.config.Uploads, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A file's time is the system's: the origin's clock ran ahead of it.
	path := filepath.Join(s.config.Uploads, used[strings.LastIndex(used, "/")+1:]+".data")
	if err := os.Chtimes(path, time.Time{}, s.clock.now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	s.restart()
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", old, nil)
	s.want(http.StatusNoContent, "", "GET", used, nil)
	entries, err := os.ReadDir(s.config.Uploads)
	if err != nil || len(entries) != 4 {
		t.Errorf("in the directory: %v, %v; want lock, README and two files of one upload", entries, err)
	}
}

func testUploadRepository(_ *testing.T, s *site) {
	location := s.startUpload("a")
	other := strings.Replace(location, "/v2/a/", "/v2/b/", 1)
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", other, nil)
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "PATCH", other, []byte("x"))
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "PUT", withDigest(other, digest.FromString("x")), []byte("x"))
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "DELETE", other, nil)
	s.want(http.StatusNoContent, "", "GET", location, nil)
}

func testCancel(t *testing.T, s *site) {
	location := s.startUpload("a")
	s.want(http.StatusAccepted, "", "PATCH", location, random(10))
	s.want(http.StatusNoContent, "", "DELETE", location, nil)
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", location, nil)
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "DELETE", location, nil)
	s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "PATCH", location, random(10))
	wantNoFiles(t, s)
}

func testUploadAgain(t *testing.T, s *site) {
	content := random(1000)
	s.pushBlob("a", content)
	s.pushBlob("a", content)
	layer := s.pushBlob("b", content)
	for _, repository := range []string{"a", "b"} {
		s.want(http.StatusOK, "", "GET", blobPath(repository, layer.Digest), nil)
	}
	if n := s.storedBlobs(); n != 1 {
		t.Errorf("%d blobs are stored, want 1", n)
	}
}

func testEmptyUpload(t *testing.T, s *site) {
	empty := digest.FromString("")
	s.want(http.StatusBadRequest, "DIGEST_INVALID", "PUT", withDigest(s.startUpload("a"), digest.FromString("x")), nil)
	s.want(http.StatusBadRequest, "DIGEST_INVALID", "PUT", s.startUpload("a"), nil)
	s.want(http.StatusCreated, "", "PUT", withDigest(s.startUpload("a"), empty), nil)
	s.want(http.StatusOK, "", "GET", blobPath("a", empty), nil).wantHeaders(t, map[string]string{"Content-Length": "0"})
}

func testUnknownAlgorithm(_ *testing.T, s *site) {
	for _, query := range []string{
		"digest-algorithm=md5", "digest=md5:d41d8cd98f00b204e9800998ecf8427e", "mount=sha256:abc&from=b",
		"digest=sha384:" + strings.Repeat("a", 96),
	} {
		s.want(http.StatusBadRequest, "DIGEST_INVALID", "POST", "/v2/a/blobs/uploads/?"+query, nil)
	}
	s.want(http.StatusAccepted, "", "POST", "/v2/a/blobs/uploads/?digest-algorithm=sha512", nil)
}

// The connection breaks within a chunk; the client asks how far it came, and
// goes on from there.
func testBrokenConnection(t *testing.T, s *site) {
	server := httptest.NewServer(s)
	defer server.Close()
	content := random(100_000)
	location := s.startUpload("a")
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(connection, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Range: 0-%d\r\n\r\n", location, len(content), len(content)-1)
	if _, err := connection.Write(content[:60_000]); err != nil {
		t.Fatal(err)
	}
	// Only the sending side, so that the end of the request can be seen.
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode < 400 {
			t.Errorf("half of a chunk was answered with %s", resp.Status)
		}
	}
	connection.Close()
	s.want(http.StatusNoContent, "", "GET", location, nil).wantHeaders(t, map[string]string{"Range": "0-59999"})
	s.want(http.StatusAccepted, "", "PATCH", location, content[60_000:], "Content-Range", "60000-99999")
	s.want(http.StatusCreated, "", "PUT", withDigest(location, digest.FromBytes(content)), nil)
}

func testRanges(t *testing.T, s *site) {
	content := random(1000)
	layer := s.pushBlob("a", content)
	for header, want := range map[string]string{
		"bytes=0-9": string(content[:10]), "bytes=990-": string(content[990:]), "bytes=-10": string(content[990:]), "bytes=500-2000": string(content[500:]),
	} {
		if a := s.want(http.StatusPartialContent, "", "GET", blobPath("a", layer.Digest), nil, "Range", header); a.body != want {
			t.Errorf("%s: %d bytes, want %d others", header, len(a.body), len(want))
		}
	}
}

func testFinishAgain(_ *testing.T, s *site) {
	content := random(1000)
	d := digest.FromBytes(content)
	location := s.startUpload("a")
	s.want(http.StatusAccepted, "", "PATCH", location, content)
	gone, leave := context.WithCancel(s.t.Context())
	leave()
	r := httptest.NewRequestWithContext(gone, http.MethodPut, withDigest(location, d), nil)
	func() {
		defer func() {
			if cut := recover(); cut != http.ErrAbortHandler { //nolint:errorlint // a panic's value
				s.t.Errorf("the handler ended with %v, want a cut connection", cut)
			}
		}()
		s.ServeHTTP(httptest.NewRecorder(), r)
	}()
	s.want(http.StatusNotFound, "", "HEAD", blobPath("a", d), nil)
	s.want(http.StatusCreated, "", "PUT", withDigest(location, d), nil)
	s.want(http.StatusOK, "", "HEAD", blobPath("a", d), nil)
}

func testTurns(t *testing.T, s *site) {
	location := s.startUpload("a")
	const writers, size = 8, 10_000
	done := make(chan int, writers)
	for range writers {
		go func() {
			done <- s.ask("PATCH", location, make([]byte, size)).StatusCode
		}()
	}
	for range writers {
		if status := <-done; status != http.StatusAccepted {
			t.Errorf("PATCH: %d", status)
		}
	}
	s.want(http.StatusCreated, "", "PUT", withDigest(location, digest.FromBytes(make([]byte, writers*size))), nil)
}

func TestTwoOriginsDoNotShareUploads(t *testing.T) {
	s := newSite(t, openDir(t))
	if other, err := origin.New(s.config); err == nil {
		_ = other.Close()
		t.Error("a second origin opened the same uploads")
	}
}

package origin_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunRemovesOldUploadsAndGarbage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, openDir(t))
		s.config.CollectEvery = 6 * time.Hour
		s.restart()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			s.origin.Run(ctx)
			close(ended)
		}()
		_, m := s.pushImage("a", "x", nil)
		loose := s.pushBlob("a", random(10))
		location := s.startUpload("a")

		time.Sleep(23 * time.Hour)
		synctest.Wait()
		s.want(http.StatusNoContent, "", "GET", location, nil)
		s.want(http.StatusOK, "", "HEAD", blobPath("a", loose.Digest), nil)

		time.Sleep(8 * time.Hour)
		synctest.Wait()
		s.want(http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "GET", location, nil)
		s.want(http.StatusNotFound, "BLOB_UNKNOWN", "HEAD", blobPath("a", loose.Digest), nil)
		if n := s.storedBlobs(); n != 3 {
			t.Errorf("%d blobs are stored, want those of the image", n)
		}
		s.want(http.StatusOK, "", "GET", blobPath("a", m.Layers[0].Digest), nil)
		stop()
		<-ended
	})
}

// A request that finds its upload being written waits, but not for ever.
func TestUploadThatIsBeingWrittenIsWaitedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, openDir(t))
		location := s.startUpload("a")
		body := &stalledBody{reading: make(chan struct{}), goOn: make(chan struct{})}
		done := make(chan int)
		go func() { done <- s.send(http.MethodPatch, location, body).StatusCode }()
		<-body.reading
		start := time.Now()
		a := s.want(http.StatusConflict, "BLOB_UPLOAD_INVALID", "PATCH", location, []byte("x"))
		if waited := time.Since(start); waited < 10*time.Second || waited > time.Minute || a.Header.Get("Retry-After") == "" {
			t.Errorf("answered after %v, Retry-After %q", waited, a.Header.Get("Retry-After"))
		}
		s.want(http.StatusNoContent, "", "GET", location, nil)
		close(body.goOn)
		if status := <-done; status != http.StatusAccepted {
			t.Errorf("the first one: %d", status)
		}
		s.want(http.StatusAccepted, "", "PATCH", location, []byte("x"))
	})
}

// stalledBody is empty, but says so only when it is told to.
type stalledBody struct{ reading, goOn chan struct{} }

func (b *stalledBody) Read([]byte) (int, error) {
	close(b.reading)
	<-b.goOn
	return 0, io.EOF
}

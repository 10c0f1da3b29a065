package blobstore_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"
)

// rotting is a way to a server whose disk has changed a bit of one blob.
type rotting struct{ digest digest.Digest }

func (r *rotting) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil || req.Method != http.MethodGet || !strings.Contains(req.URL.Path, r.digest.Encoded()) {
		return resp, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	b[len(b)/2] ^= 4
	resp.Body = io.NopCloser(bytes.NewReader(b))
	return resp, nil
}

func TestScrubOfABucketReportsRotAndLeavesItThere(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		cfg := s3Config(server, server.NewBucket(t))
		cfg.Prefix = "mirror"
		way := &rotting{}
		cfg.Transport = way
		s := openS3(t, cfg)
		var digests []digest.Digest
		for _, b := range [][]byte{[]byte("a"), randomBytes(300 << 10), randomBytes(1 << 20)} {
			d := digest.FromBytes(b)
			if err := s.Put(t.Context(), d, int64(len(b)), bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			digests = append(digests, d)
		}
		way.digest = digests[1]
		var found []blobstore.ScrubFinding
		report, err := s.Scrub(t.Context(), blobstore.ScrubDirConfig{Found: func(f blobstore.ScrubFinding) { found = append(found, f) }})
		if err != nil || report.Blobs != 2 || report.Rotten != 1 || report.Bytes != 1<<20+300<<10+1 {
			t.Errorf("%+v, %v", report, err)
		}
		if len(found) != 1 || found[0].Digest != digests[1] || found[0].Size != 300<<10 || found[0].Aside != "" {
			t.Errorf("found %+v", found)
		}
		if _, err := s.Stat(t.Context(), digests[1]); err != nil {
			t.Errorf("it is not there any more: %v", err)
		}
		rest, err := s.Scrub(t.Context(), blobstore.ScrubDirConfig{After: report.Last})
		if err != nil || rest.Blobs != 0 || rest.Rotten != 0 {
			t.Errorf("after the last: %+v, %v", rest, err)
		}
	})
}

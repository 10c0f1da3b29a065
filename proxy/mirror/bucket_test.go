package mirror

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"
	"entrepot/registry"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/opencontainers/go-digest"
)

// aBucket is a bucket, and a way to it past the store.
type aBucket struct {
	name   string
	store  *blobstore.S3
	client *minio.Client
}

func newBucket(t *testing.T) *aBucket {
	t.Helper()
	server := testenv.StartMinIO(t)
	b := &aBucket{name: server.NewBucket(t)}
	var err error
	b.store, err = blobstore.OpenS3(blobstore.S3Config{
		Endpoint: server.Endpoint, Bucket: b.name, Prefix: "mirror", Region: server.Region, AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.store.Close() })
	b.client, err = minio.New(server.Endpoint[len("http://"):], &minio.Options{Creds: credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""), Region: server.Region})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// key is that of a blob in the bucket.
func key(d digest.Digest) string {
	return "mirror/blobs/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data"
}

// blobs are the digests in the bucket, sorted.
func (b *aBucket) blobs(t *testing.T) (all []digest.Digest) {
	t.Helper()
	for info, err := range b.store.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Digest)
	}
	slices.Sort(all)
	return all
}

func TestMirrorHoldsItsContentInABucket(t *testing.T) {
	p := newProduction(t)
	first, second := p.push("app", "one"), p.push("other", "two")
	p.promote("app:v1", first)
	p.promote("other:v1", second)
	b := newBucket(t)
	others := []byte("of a node that has the same bucket")
	if err := b.store.Put(t.Context(), digest.FromBytes(others), int64(len(others)), bytes.NewReader(others)); err != nil {
		t.Fatal(err)
	}
	inBucket := func(c *Config) { c.Bucket = b.store }
	dir := t.TempDir()
	m := p.follow(t, dir, p.source(), inBucket)
	if got := sync1(t, m); got.Held != 2 || got.Fetched != 2 {
		t.Fatalf("%+v", got)
	}
	if n := len(b.blobs(t)); n != 7 { // of each image a manifest, a configuration and a layer
		t.Fatalf("%d blobs are in the bucket", n)
	}
	if s := m.Status(); s.Blobs != 6 || s.Coverage != 100 || s.Bytes < 6 {
		t.Errorf("%+v", s)
	}

	t.Run("whose directory may be lost", func(t *testing.T) {
		p.asked()
		again := p.follow(t, t.TempDir(), p.source(), inBucket)
		if got := sync1(t, again); got.Held != 2 || got.Bytes != 0 {
			t.Errorf("%+v", got)
		}
		for _, request := range p.requests {
			if strings.Contains(request, "/blobs/") {
				t.Errorf("the origin was asked for what is in the bucket: %s", request)
			}
		}
		layer := digest.FromString("one")
		blob, _, err := again.cfg.Node.Blob(t.Context(), &registry.Request{Kind: registry.KindBlob, Namespace: destination, Repository: "app", Digest: layer, N: -1})
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Content.Close()
		var served bytes.Buffer
		if _, err := blob.Content.WriteRange(t.Context(), &served, 0, -1); err != nil || served.String() != "one" {
			t.Errorf("it serves %q, %v", served.String(), err)
		}
	})
	t.Run("and verifies every byte of it", func(t *testing.T) {
		if got, err := m.Verify(t.Context(), VerifyConfig{}); err != nil || got.Right != 2 || got.Blobs != 6 || got.Findings != 0 {
			t.Fatalf("%+v, %v", got, err)
		}
		wrong, lost := digest.FromString("one"), digest.FromString("two")
		_, err := b.client.PutObject(t.Context(), b.name, key(wrong), bytes.NewReader([]byte("eno")), 3, minio.PutObjectOptions{})
		if err := errors.Join(err, b.client.RemoveObject(t.Context(), b.name, key(lost), minio.RemoveObjectOptions{})); err != nil {
			t.Fatal(err)
		}
		found := map[digest.Digest]Problem{}
		report := func(_ Verified, f *Finding) {
			if f != nil {
				found[f.Digest] = f.Problem
			}
		}
		if got, err := m.Verify(t.Context(), VerifyConfig{Report: report}); err != nil || got.Right != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		if len(found) != 2 || found[wrong] != Corrupt || found[lost] != Missing {
			t.Errorf("found %v", found)
		}
		if got, err := m.Verify(t.Context(), VerifyConfig{Repair: true}); err != nil || got.Repaired != 2 {
			t.Errorf("repair: %+v, %v", got, err)
		}
		if got, err := m.Verify(t.Context(), VerifyConfig{}); err != nil || got.Right != 2 || got.Findings != 0 {
			t.Errorf("after that: %+v, %v", got, err)
		}
	})
	t.Run("and removes what left, and nothing of others", func(t *testing.T) {
		p.promote("app:v1", "")
		dry, err := m.Sync(t.Context(), SyncConfig{DryRun: true})
		if err != nil || dry.Leaving != 3 || len(b.blobs(t)) != 7 {
			t.Errorf("dry: %+v, %v", dry, err)
		}
		if got := sync1(t, m); got.Removed != 3 || got.Names != 1 {
			t.Errorf("%+v", got)
		}
		left := b.blobs(t)
		if len(left) != 4 || !slices.Contains(left, digest.FromBytes(others)) || !slices.Contains(left, second) || slices.Contains(left, first) {
			t.Errorf("left are %v", left)
		}
		for key, err := range b.store.RecordKeys(t.Context(), heldRecords) {
			if err != nil || slices.Contains([]string{heldRecords + "/" + string(first)}, key) {
				t.Errorf("%s is still marked, %v", key, err)
			}
		}
	})
}

// What is said to be held is in the bucket, and no name counts while that is not so.
func TestMirrorHoldsNothingWhileItsBucketIsAway(t *testing.T) {
	p := newProduction(t)
	p.promote("app:v1", p.push("app", "one"))
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "away")
	}))
	defer away.Close()
	s3, err := blobstore.OpenS3(blobstore.S3Config{Endpoint: away.URL, Bucket: "bucket", Region: "us-east-1", AccessKey: "a", SecretKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Close()
	m := p.follow(t, t.TempDir(), p.source(), func(c *Config) { c.Bucket = s3 })
	if got, err := m.Sync(t.Context(), SyncConfig{}); err == nil || got.Held != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if s := m.Status(); s.Held != 0 || !m.due() {
		t.Errorf("%+v", s)
	}
}

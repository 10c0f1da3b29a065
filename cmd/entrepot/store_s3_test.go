package main

import (
	"bytes"
	"strings"
	"testing"

	"entrepot/blobstore"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

func TestStoreScrubOfABucket(t *testing.T) {
	server := testenv.S3Servers()[0].Start(t)
	bucket := server.NewBucket(t)
	s3, err := blobstore.OpenS3(blobstore.S3Config{
		Endpoint: server.Endpoint, Bucket: bucket, Prefix: "mirror", Region: server.Region,
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s3.Close()
	b := []byte("blob")
	if err := s3.Put(t.Context(), digest.FromBytes(b), int64(len(b)), bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL", server.Endpoint)
	t.Setenv("AWS_REGION", server.Region)
	t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
	stdout, stderr, status := storeRun(t, "scrub", "s3://"+bucket+"/mirror")
	if status != 0 || !strings.Contains(stdout, "1 blobs are right, 0 are wrong") {
		t.Errorf("status %d, %s%s", status, stdout, stderr)
	}
	if _, stderr, status := storeRun(t, "scrub", "s3://no-such-bucket-here/mirror"); status != 1 || stderr == "" {
		t.Errorf("a bucket that is not there: status %d, %s", status, stderr)
	}
}

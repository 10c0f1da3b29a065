package testenv

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3Server is an S3 server as its own process, on a directory of the test's.
type S3Server struct {
	Endpoint  string // base URL; stays the same when the server is stopped and started
	AccessKey string
	SecretKey string
	Region    string

	address string // host:port
	process *Process
	buckets atomic.Int64 // that NewBucket has made
}

// S3Servers lists the S3 servers that stores are tested against.
func S3Servers() []struct {
	Name  string
	Start func(t testing.TB) *S3Server
} {
	return []struct {
		Name  string
		Start func(t testing.TB) *S3Server
	}{
		{"MinIO", StartMinIO},
		{"versitygw", StartVersityGW},
	}
}

func newS3Server(t testing.TB) *S3Server {
	address := fmt.Sprintf("127.0.0.1:%d", FreePort(t))
	return &S3Server{
		Endpoint:  "http://" + address,
		AccessKey: "entrepot-test",
		SecretKey: "entrepot-test-secret",
		Region:    "us-east-1",
		address:   address,
	}
}

// StartMinIO starts an empty MinIO. It ends with the test.
func StartMinIO(t testing.TB) *S3Server {
	t.Helper()
	s := newS3Server(t)
	home := t.TempDir()
	s.process = Start(t, ProcessConfig{
		Name: "minio",
		Path: Tool(t, "minio"),
		Args: []string{"server", "--quiet", "--address", s.address, "--certs-dir", home, t.TempDir()},
		Env: append(os.Environ(), "HOME="+home, "MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey,
			"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_CALLHOME_ENABLE=off"),
		Ready: s.ready,
	})
	return s
}

// StartVersityGW starts an empty versitygw on its posix backend, which keeps
// each object as a file of its name. It ends with the test.
func StartVersityGW(t testing.TB) *S3Server {
	t.Helper()
	s := newS3Server(t)
	s.process = Start(t, ProcessConfig{
		Name: "versitygw",
		Path: Tool(t, "versitygw"),
		// Metadata beside the objects: not every file system has the extended
		// attributes in which versitygw keeps it otherwise.
		Args: []string{
			"--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region, "--port", s.address, "--quiet",
			"posix", "--sidecar", t.TempDir(), t.TempDir(),
		},
		Ready: s.ready,
	})
	return s
}

// ready says whether the server answers a request that it has to check the
// signature of.
func (s *S3Server) ready(ctx context.Context) error {
	client, err := s.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err = client.ListBuckets(ctx)
	return err
}

func (s *S3Server) client() (*minio.Client, error) {
	return minio.New(s.address, &minio.Options{
		Creds:      credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
		Region:     s.Region,
		MaxRetries: 1,
	})
}

// MakeBucket makes an empty bucket.
func (s *S3Server) MakeBucket(t testing.TB, name string) {
	t.Helper()
	client, err := s.client()
	if err == nil {
		err = client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{Region: s.Region})
	}
	if err != nil {
		t.Fatalf("making bucket %s: %v", name, err)
	}
}

// NewBucket makes an empty bucket, and returns its name.
func (s *S3Server) NewBucket(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", s.buckets.Add(1))
	s.MakeBucket(t, name)
	return name
}

// Publish lets everybody read the objects of a bucket.
func (s *S3Server) Publish(t testing.TB, bucket string) {
	t.Helper()
	policy := fmt.Sprintf(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": ["*"]},
		"Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::%s/*"]}]}`, bucket)
	if err := s.Client(t).SetBucketPolicy(t.Context(), bucket, policy); err != nil {
		t.Fatalf("publishing bucket %s: %v", bucket, err)
	}
}

// Client is a client of the server, to look into a bucket with.
func (s *S3Server) Client(t testing.TB) *minio.Client {
	t.Helper()
	client, err := s.client()
	if err != nil {
		t.Fatalf("making an S3 client: %v", err)
	}
	return client
}

// Stop stops the server: connections to it are refused.
func (s *S3Server) Stop() { s.process.Stop() }

// Start starts the server again after [S3Server.Stop], with what it held.
func (s *S3Server) Start() { s.process.Restart() }

// Process is the server's process, to kill it.
func (s *S3Server) Process() *Process { return s.process }

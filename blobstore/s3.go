package blobstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"github.com/opencontainers/go-digest"
)

// Bounds and defaults of S3Config. Sizes are bytes; those of parts are S3's.
const (
	defaultPartSize  = 16 << 20
	minPartSize      = 5 << 20
	maxPartSize      = 5 << 30
	defaultS3Timeout = 10 * time.Second
	defaultS3Region  = "us-east-1"
	maxS3Prefix      = 256
	maxS3Key         = 1024
)

// S3Config says which bucket an [S3] uses, and how.
type S3Config struct {
	// Endpoint is the base URL of the S3 server: "https://host" or
	// "http://host:port".
	Endpoint string
	// Bucket must exist. Prefix is put before every key, with a slash between;
	// slashes around it mean nothing, and empty means the top of the bucket.
	Bucket string
	Prefix string
	// Region is the one that requests are signed for. Empty means us-east-1,
	// which servers other than Amazon's take unless told otherwise.
	Region string
	// AccessKey and SecretKey sign requests. Both empty mean the credentials
	// of the surroundings: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the
	// AWS credentials file, or the role of the machine, in this order.
	AccessKey string
	SecretKey string
	// PartSize is the most that is sent in one request, in bytes: larger blobs
	// are sent in parts. 5 MiB to 5 GiB; zero means 16 MiB.
	PartSize int64
	// Timeout bounds how long the server may do nothing: neither take nor give
	// a byte, nor answer. Zero means 10 seconds.
	Timeout time.Duration
	// Transport carries the requests. Nil means one for this store alone,
	// which trusts the certificates that the system trusts.
	Transport http.RoundTripper
	// Logger is told what no caller can be. Nil discards it.
	Logger *slog.Logger
}

// S3 keeps blobs and records in a bucket, which other nodes may share.
//
// What it needs of memory does not depend on the size of a blob. It is safe
// for concurrent use.
type S3 struct {
	cfg    S3Config
	prefix string // empty, or ends in "/"
	client *minio.Client
	core   minio.Core
	own    *http.Transport // nil when the transport is the caller's
	log    *slog.Logger

	buffers     sync.Pool     // of *[]byte, cfg.PartSize long
	bufferSlots chan struct{} // bounds how many of them are in use
}

var (
	_ Store   = (*S3)(nil)
	_ Records = (*S3)(nil)
)

// OpenS3 makes a store of a bucket. It does not ask the server for anything,
// so that a node starts while its store is down: see [S3.Check].
func OpenS3(cfg S3Config) (*S3, error) {
	cfg.Region = cmp.Or(cfg.Region, defaultS3Region)
	cfg.PartSize = cmp.Or(cfg.PartSize, defaultPartSize)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultS3Timeout)
	host, secure, err := parseEndpoint(cfg.Endpoint)
	if err == nil {
		err = cfg.check()
	}
	if err != nil {
		return nil, fmt.Errorf("opening the S3 store: %w", err)
	}
	s := &S3{cfg: cfg, log: cfg.Logger, bufferSlots: make(chan struct{}, maxPartBuffers)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if prefix := strings.Trim(cfg.Prefix, "/"); prefix != "" {
		s.prefix = prefix + "/"
	}
	if cfg.Transport == nil {
		s.own = newS3Transport()
		cfg.Transport = s.own
	}
	s.client, err = minio.New(host, &minio.Options{
		Creds:     cfg.credentials(),
		Secure:    secure,
		Region:    cfg.Region, // without it, each bucket costs a request for its location
		Transport: cfg.Transport,
		// Upstream can serve what a dead store cannot: do not try for long.
		MaxRetries: 2,
	})
	if err != nil {
		return nil, fmt.Errorf("opening the S3 store: %w", err)
	}
	s.core = minio.Core{Client: s.client}
	return s, nil
}

func parseEndpoint(endpoint string) (host string, secure bool, err error) {
	u, err := url.Parse(endpoint)
	// url.Parse repeats what it was given, which may hold a password.
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", false, errors.New("the endpoint is not a URL such as https://s3.example.org or http://127.0.0.1:9000")
	}
	if u.User != nil {
		return "", false, errors.New("the endpoint holds a user name: use the access key and the secret key")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", false, fmt.Errorf("the endpoint %s has more than scheme, host and port: bucket and prefix are given apart", endpoint)
	}
	return u.Host, u.Scheme == "https", nil
}

func (c *S3Config) check() error {
	if err := s3utils.CheckValidBucketNameStrict(c.Bucket); err != nil {
		return fmt.Errorf("bucket %q: %w", c.Bucket, err)
	}
	if err := checkPrefix(strings.Trim(c.Prefix, "/")); err != nil {
		return err
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		return errors.New("one of access key and secret key is missing: give both or none")
	}
	if c.PartSize < minPartSize || c.PartSize > maxPartSize {
		return fmt.Errorf("part size %d: want %d (5 MiB) to %d (5 GiB) bytes", c.PartSize, minPartSize, maxPartSize)
	}
	if c.Timeout < 0 {
		return fmt.Errorf("timeout %v is negative", c.Timeout)
	}
	return nil
}

func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if len(prefix) > maxS3Prefix {
		return fmt.Errorf("the prefix has %d bytes, more than the %d allowed", len(prefix), maxS3Prefix)
	}
	// The rules of record keys are what every server can take.
	if checkKey(prefix) != nil {
		return fmt.Errorf(`prefix %q: want printable ASCII characters, in segments other than "." and ".." joined by "/"`, prefix)
	}
	return nil
}

func (c *S3Config) credentials() *credentials.Credentials {
	if c.AccessKey != "" {
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, "")
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
	})
}

// newS3Transport speaks HTTP/1.1: over one HTTP/2 connection, a reader that
// stalls would hold up the others.
func newS3Transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // a blob is wanted as it is stored
	}
}

// Close lets go of idle connections. The store must not be used afterwards.
func (s *S3) Close() error {
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
	return nil
}

// Check says whether the bucket is there, and whether objects can be written
// to it and deleted, by doing so.
func (s *S3) Check(ctx context.Context) error {
	err := s.call(ctx, s.cfg.Timeout, func(ctx context.Context, _ *watchdog) error {
		exists, err := s.client.BucketExists(ctx, s.cfg.Bucket)
		if err == nil && !exists {
			err = errors.New("there is no such bucket")
		}
		return err
	})
	probe := s.prefix + "check"
	if err == nil {
		if err = s.putBytes(ctx, probe, []byte("written to see whether it can be\n")); err != nil {
			err = fmt.Errorf("writing: %w", err)
		}
	}
	if err == nil {
		if err = s.remove(ctx, probe); err != nil {
			err = fmt.Errorf("deleting: %w", err)
		}
	}
	if err != nil {
		return fmt.Errorf("checking bucket %q at %s: %w", s.cfg.Bucket, s.cfg.Endpoint, err)
	}
	return nil
}

// maxPresign is the longest that a signature holds (AWS, "Authenticating
// requests: using query parameters").
const maxPresign = 7 * 24 * time.Hour

// Presign returns a URL from which anyone can read a blob for a while: one
// second to seven days. It does not ask the server for anything: whether the
// blob exists shows when the URL is used. Errors: ErrInvalidDigest.
func (s *S3) Presign(ctx context.Context, d digest.Digest, expiry time.Duration) (string, error) {
	if err := checkDigest(d); err != nil {
		return "", err
	}
	if expiry < time.Second || expiry > maxPresign {
		return "", fmt.Errorf("signing a URL for blob %s: %v is not between %v and %v", d, expiry, time.Second, maxPresign)
	}
	// Credentials may have to be fetched first.
	var signed *url.URL
	err := s.call(ctx, s.cfg.Timeout, func(ctx context.Context, _ *watchdog) (err error) {
		signed, err = s.client.PresignedGetObject(ctx, s.cfg.Bucket, s.blobKey(d), expiry, nil)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("signing a URL for blob %s: %w", d, err)
	}
	return signed.String(), nil
}

// blobKey is the object of the blob of a valid digest.
func (s *S3) blobKey(d digest.Digest) string { return s.prefix + blobPath(d) }

package ledger

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // what S3 has for a version, and no more
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"entrepot/blobstore/pause"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// S3Config says which bucket a log is in.
type S3Config struct {
	// Endpoint is "https://host" or "http://host:port". Empty means Amazon's.
	Endpoint string
	// Bucket must exist. Prefix is put before every path, with a slash between.
	Bucket, Prefix string
	// Region is the one that requests are signed for. Empty means us-east-1.
	Region string
	// AccessKey and SecretKey sign requests. Both empty mean the AWS
	// environment variables, the AWS credentials file, or the machine's role.
	AccessKey, SecretKey string
}

// S3 keeps a log in a bucket. It needs conditional writes (If-Match and
// If-None-Match on PUT), as AWS, MinIO and versitygw have them.
type S3 struct {
	core   minio.Core
	bucket string
	prefix string // empty, or ends in a slash
}

const (
	// s3Timeout bounds a request, with s3PerMiB for each MiB that it sends.
	s3Timeout  = 30 * time.Second
	s3PerMiB   = time.Second
	s3Attempts = 4
	s3Backoff  = 100 * time.Millisecond

	// tornAttempts are made again, each after tornPause, while an object is
	// being replaced or written, and shows in part.
	tornAttempts = 100
	tornPause    = 20 * time.Millisecond
)

// s3FromEnvironment is what the AWS environment variables say.
func s3FromEnvironment() (S3Config, error) {
	endpoint := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	if endpoint != "" && !strings.Contains(endpoint, "://") {
		u, err := url.Parse("https://" + endpoint)
		if err != nil {
			return S3Config{}, errors.New("AWS_ENDPOINT_URL is not a URL such as https://s3.example.org")
		}
		if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() || u.Hostname() == "localhost" {
			u.Scheme = "http"
		}
		endpoint = u.String()
	}
	return S3Config{Endpoint: endpoint, Region: cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))}, nil
}

// NewS3 is the storage of a log in a bucket. It makes no request.
func NewS3(cfg S3Config) (*S3, error) {
	u, err := url.Parse(cmp.Or(cfg.Endpoint, "https://s3.amazonaws.com"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.User != nil {
		return nil, errors.New("the endpoint of S3 is not a URL such as https://s3.example.org or http://127.0.0.1:9000")
	}
	if err := s3utils.CheckValidBucketNameStrict(cfg.Bucket); err != nil {
		return nil, fmt.Errorf("bucket %q: %w", cfg.Bucket, err)
	}
	creds := credentials.NewStaticV4(cfg.AccessKey, cfg.SecretKey, "")
	if cfg.AccessKey == "" {
		creds = credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		})
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds:      creds,
		Secure:     u.Scheme == "https",
		Region:     cmp.Or(cfg.Region, "us-east-1"), // without it, each bucket costs a request for its location
		MaxRetries: 1,                               // see try
	})
	if err != nil {
		return nil, fmt.Errorf("making the client of S3: %w", err)
	}
	s := &S3{core: minio.Core{Client: client}, bucket: cfg.Bucket}
	if prefix := strings.Trim(cfg.Prefix, "/"); prefix != "" {
		s.prefix = prefix + "/"
	}
	return s, nil
}

// Read is [Reader].
func (s *S3) Read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	for attempt := 0; ; attempt++ {
		data, version, torn, err := s.read(ctx, path, known)
		if err == nil && torn {
			if attempt < tornAttempts {
				err = pause.For(ctx, tornPause)
			} else {
				err = errors.New("S3 sends the object with the ETag of other content")
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, "", fmt.Errorf("reading %s: %w", path, err)
		}
		return data, version, nil
	}
}

// read reads an object once. It is torn when its version is that of other
// content: some servers (versitygw with metadata beside the objects) keep ETag
// and content apart, so that while an object is replaced a reader gets the old
// content by the new ETag. To swap by that would undo what was just written.
func (s *S3) read(ctx context.Context, path string, known Version) (data []byte, version Version, torn bool, err error) {
	err = s.try(ctx, 0, func(ctx context.Context) error {
		var options minio.GetObjectOptions
		if known != "" {
			if err := options.SetMatchETagExcept(string(known)); err != nil {
				return err
			}
		}
		body, info, header, err := s.core.GetObject(ctx, s.bucket, s.prefix+path, options)
		if err != nil {
			return err
		}
		defer body.Close()
		data, err = readAll(body, maxSize(path))
		version = Version(info.ETag)
		// The version of what is written once is of no interest.
		torn = err == nil && !strings.HasPrefix(path, tilePrefix) && isMD5(info.ETag, header) && md5Hex(data) != info.ETag
		return err
	})
	return data, version, torn, err
}

// isMD5 says whether an ETag is the MD5 of the object: that of what was sent in
// one part and is not encrypted by a key of the client's or of a KMS (AWS,
// "Common response headers"). Servers may also make ETags of their own.
func isMD5(etag string, header http.Header) bool {
	sum, err := hex.DecodeString(etag)
	return err == nil && len(sum) == md5.Size &&
		!strings.HasPrefix(header.Get("X-Amz-Server-Side-Encryption"), "aws:kms") &&
		header.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") == ""
}

func md5Hex(data []byte) string {
	sum := md5.Sum(data) //nolint:gosec // what S3 has for a version, and no more
	return hex.EncodeToString(sum[:])
}

// readAll reads to the end, which must come after at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, tooLarge(limit)
	}
	return data, err
}

// Create is [Storage].
func (s *S3) Create(ctx context.Context, path string, data []byte) error {
	if err := s.create(ctx, path, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

func (s *S3) create(ctx context.Context, path string, data []byte) error {
	for attempt := 0; ; attempt++ {
		err := s.put(ctx, path, "", data)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		there, _, readErr := s.Read(ctx, path, "")
		switch {
		case readErr == nil && bytes.Equal(there, data):
			return nil
		case errors.Is(readErr, ErrNotExist) && attempt < tornAttempts:
			// Somebody else is writing it, whose metadata are there already.
			if err := pause.For(ctx, tornPause); err != nil {
				return err
			}
		default:
			return errors.Join(err, readErr)
		}
	}
}

// Swap is [Storage].
func (s *S3) Swap(ctx context.Context, path string, old Version, data []byte) error {
	if err := s.put(ctx, path, old, data); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// put writes an object if it is of the old version, or if old is empty and
// there is none. Errors: ErrConflict.
func (s *S3) put(ctx context.Context, path string, old Version, data []byte) error {
	options := minio.PutObjectOptions{
		ContentType:          contentType(path),
		CacheControl:         cacheControl(path), // for buckets that are served as they are
		DisableContentSha256: true,
	}
	if old == "" {
		options.SetMatchETagExcept("*")
	} else {
		options.SetMatchETag(string(old))
	}
	// The hash in a header: trailing checksums, which minio-go prefers, are
	// refused by some servers over plain HTTP.
	sum := sha256.Sum256(data)
	return s.try(ctx, len(data), func(ctx context.Context) error {
		// A body that cannot seek: minio-go would seek in one that the transport
		// may still be reading.
		body := io.MultiReader(bytes.NewReader(data))
		_, err := s.core.PutObject(ctx, s.bucket, s.prefix+path, body, int64(len(data)), "", hex.EncodeToString(sum[:]), options)
		return err
	})
}

// try makes a request that sends some bytes, again when it fails for a reason
// that may pass. Errors: ErrNotExist, ErrNotModified, ErrConflict.
func (s *S3) try(ctx context.Context, bytes int, request func(context.Context) error) error {
	for attempt := 1; ; attempt++ {
		limited, cancel := context.WithTimeout(ctx, s3Timeout+time.Duration(bytes>>20)*s3PerMiB)
		err := request(limited)
		cancel()
		if err == nil || ctx.Err() != nil || attempt == s3Attempts || !isTemporary(err) {
			return translateS3(err)
		}
		if pause.For(ctx, s3Backoff<<(attempt-1)) != nil {
			return translateS3(err)
		}
	}
}

func translateS3(err error) error {
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return err
	}
	switch response.StatusCode {
	case http.StatusNotModified:
		return ErrNotModified
	// AWS answers 409 when another conditional write of the object is under way.
	case http.StatusPreconditionFailed, http.StatusConflict:
		return ErrConflict
	}
	// versitygw says that a path below a file is no key.
	if response.Code == minio.NoSuchKey {
		return ErrNotExist
	}
	return fmt.Errorf("S3 answered %d %s: %w", response.StatusCode, response.Code, err)
}

// isTemporary says whether a request may succeed when it is made again.
func isTemporary(err error) bool {
	if errors.Is(err, ErrCorrupt) {
		return false
	}
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return true // the network's
	}
	return response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests ||
		response.StatusCode == http.StatusRequestTimeout
}

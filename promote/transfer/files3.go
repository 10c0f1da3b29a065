package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"github.com/opencontainers/go-digest"
)

const (
	// sumMetadata is the object metadata that holds a file's sha256 in hex,
	// sent as X-Amz-Meta-Sha256.
	sumMetadata = "Sha256"
	// listPage is how many objects are listed in one go.
	listPage = 1000
	// metadataTimeout bounds asking a machine for its role.
	metadataTimeout = 5 * time.Second
)

// bucketStore is a bucket of an S3 server, or a prefix in it.
type bucketStore struct {
	client *Client
	host   *host // for pace and retries
	url    string
	bucket string
	prefix string // empty, or ends in "/"
	core   minio.Core
	// conditional says that the server heeds If-None-Match when it writes.
	conditional bool
}

func (c *Client) newBucketStore(scheme, rest string) (*bucketStore, error) {
	bucket, prefix, _ := strings.Cut(rest, "/")
	if err := s3utils.CheckValidBucketName(bucket); err != nil {
		return nil, failf(ErrUnsupported, "file store %s://%s: %w", scheme, rest, err)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		if err := checkFileName(prefix); err != nil {
			return nil, failf(ErrUnsupported, "file store %s://%s: %w", scheme, rest, err)
		}
		prefix += "/"
	}
	endpoint, err := c.bucketEndpoint(scheme)
	if err != nil {
		return nil, err
	}
	s := &bucketStore{
		client: c, host: c.hostAt(endpoint.Scheme, endpoint.Host),
		url: strings.TrimSuffix(scheme+"://"+bucket+"/"+prefix, "/"), bucket: bucket, prefix: prefix,
		// Google has conditions of its own for this, which cannot be had
		// together with the headers of S3.
		conditional: scheme == "s3",
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds:      c.bucketCredentials(scheme),
		Secure:     endpoint.Scheme == "https",
		Region:     cmp.Or(c.cfg.Getenv("AWS_REGION"), c.cfg.Getenv("AWS_DEFAULT_REGION"), "us-east-1"),
		Transport:  &countedTransport{host: s.host, next: c.network.named},
		MaxRetries: 1, // retrying is done here, with the pauses that all share
	})
	if err != nil {
		return nil, failf(ErrUnsupported, "file store %s: %w", s, err)
	}
	s.core = minio.Core{Client: client}
	return s, nil
}

// bucketEndpoint is the URL of the server of a kind of bucket.
func (c *Client) bucketEndpoint(scheme string) (*url.URL, error) {
	text := cmp.Or(c.cfg.Getenv("AWS_ENDPOINT_URL_S3"), c.cfg.Getenv("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com")
	if scheme == "gs" {
		text = cmp.Or(c.cfg.Getenv("GS_ENDPOINT_URL"), "https://storage.googleapis.com")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, failf(ErrUnsupported, "the endpoint of %s:// buckets is not a URL such as https://s3.example.org", scheme)
	}
	return u, nil
}

func (c *Client) bucketCredentials(scheme string) *credentials.Credentials {
	if scheme == "gs" {
		return fixedCredentials(c.cfg.Getenv("GS_ACCESS_KEY_ID"), c.cfg.Getenv("GS_SECRET_ACCESS_KEY"), "")
	}
	if key := c.cfg.Getenv("AWS_ACCESS_KEY_ID"); key != "" {
		return fixedCredentials(key, c.cfg.Getenv("AWS_SECRET_ACCESS_KEY"), c.cfg.Getenv("AWS_SESSION_TOKEN"))
	}
	providers := []credentials.Provider{&credentials.FileAWSCredentials{}}
	if !strings.EqualFold(c.cfg.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		providers = append(providers, &credentials.IAM{Client: &http.Client{Timeout: metadataTimeout}})
	}
	return credentials.NewChainCredentials(providers)
}

// fixedCredentials are anonymous without a key.
func fixedCredentials(key, secret, token string) *credentials.Credentials {
	if key == "" {
		return credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	}
	return credentials.NewStaticV4(key, secret, token)
}

// countedTransport tells of the requests that minio-go makes, and keeps what
// its errors do not tell.
type countedTransport struct {
	host *host
	next http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t *countedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.host.progress.Request(t.host.name, req.Method)
	resp, err := t.next.RoundTrip(req)
	if err == nil && resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests {
		t.host.well()
	}
	return resp, err
}

// String implements [FileStore].
func (s *bucketStore) String() string { return s.url }

// key is the object of a file.
func (s *bucketStore) key(name string) (string, error) {
	if err := checkFileName(name); err != nil {
		return "", err
	}
	return s.prefix + name, nil
}

// call makes requests until they are answered.
func (s *bucketStore) call(ctx context.Context, what string, request func() error) error {
	return s.host.retry(ctx, func() error {
		if err := s.host.gate.enter(ctx); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		defer s.host.gate.leave()
		return s.explain(ctx, what, request())
	})
}

// explain gives an error of minio-go its kind.
func (s *bucketStore) explain(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	what = fmt.Sprintf("%s in bucket %s at %s", what, s.bucket, s.host.name)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	if told, ok := errors.AsType[*Error](err); ok {
		again := *told
		again.Err = fmt.Errorf("%s: %w", what, told.Err)
		return &again
	}
	response, ok := errors.AsType[minio.ErrorResponse](err)
	if !ok {
		return failf(ErrRefused, "%s: %w", what, withoutURL(err))
	}
	told := statusError(&http.Response{StatusCode: response.StatusCode, Body: http.NoBody})
	if response.Code == "ConditionalRequestConflict" || response.Code == "SlowDown" {
		told.Kind = ErrUnavailable // S3's words for "again, please"
	}
	told.Err = fmt.Errorf("%s: %w, %s: %.200s", what, told.Err, response.Code, response.Message)
	return told
}

// Stat implements [FileStore]. SHA256 is known of what promotion wrote.
func (s *bucketStore) Stat(ctx context.Context, name string) (FileInfo, error) {
	key, err := s.key(name)
	if err != nil {
		return FileInfo{}, err
	}
	var object minio.ObjectInfo
	err = s.call(ctx, "asking for "+key, func() (err error) {
		object, err = s.core.StatObject(ctx, s.bucket, key, minio.StatObjectOptions{})
		return err
	})
	if err != nil {
		return FileInfo{}, err
	}
	info := FileInfo{Name: name, Size: object.Size, ModTime: object.LastModified}
	sum := digest.NewDigestFromEncoded(digest.SHA256, object.UserMetadata[sumMetadata])
	if sum.Validate() == nil {
		info.SHA256 = sum
	}
	return info, nil
}

// Open implements [FileStore].
func (s *bucketStore) Open(ctx context.Context, name string, offset int64) (io.ReadCloser, error) {
	key, err := s.key(name)
	if err != nil {
		return nil, err
	}
	var options minio.GetObjectOptions
	if offset > 0 {
		if err := options.SetRange(offset, 0); err != nil {
			return nil, failf(ErrUnsupported, "reading %s: %w", key, err)
		}
	}
	var body io.ReadCloser
	err = s.call(ctx, "reading "+key, func() (err error) {
		body, _, _, err = s.core.GetObject(ctx, s.bucket, key, options)
		return err
	})
	if told, ok := errors.AsType[*Error](err); ok && told.Status == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		return http.NoBody, nil // from the end on
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

// Delete implements [FileStore].
func (s *bucketStore) Delete(ctx context.Context, name string) error {
	// S3 deletes what is not there without a word.
	if _, err := s.Stat(ctx, name); err != nil {
		return err
	}
	key := s.prefix + name
	return s.call(ctx, "deleting "+key, func() error {
		return s.core.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{})
	})
}

// List implements [FileStore].
func (s *bucketStore) List(ctx context.Context, prefix string) iter.Seq2[FileInfo, error] {
	return func(yield func(FileInfo, error) bool) {
		for after := ""; ; {
			page, err := s.page(ctx, prefix, after)
			if err != nil {
				yield(FileInfo{}, err)
				return
			}
			for _, object := range page {
				name := strings.TrimPrefix(object.Key, s.prefix)
				if checkFileName(name) != nil {
					continue // what no name can mean, such as "directories"
				}
				if !yield(FileInfo{Name: name, Size: object.Size, ModTime: object.LastModified}, nil) {
					return
				}
			}
			if len(page) < listPage {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

// page lists objects that follow a key.
func (s *bucketStore) page(ctx context.Context, prefix, after string) ([]minio.ObjectInfo, error) {
	var page []minio.ObjectInfo
	err := s.call(ctx, "listing "+s.prefix+prefix, func() error {
		page = page[:0]
		// It ends, and its goroutine with it, when its context does.
		listCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		for object := range s.core.Client.ListObjects(listCtx, s.bucket, minio.ListObjectsOptions{
			Prefix: s.prefix + prefix, Recursive: true, StartAfter: after, MaxKeys: listPage,
		}) {
			if object.Err != nil {
				return object.Err
			}
			if page = append(page, object); len(page) == listPage {
				return nil
			}
		}
		return nil
	})
	return page, err
}

// Package registry is the OCI Distribution v1.1 surface over HTTP: it parses
// request paths once into a [Request], asks a [Backend], and writes what it
// answers with the right headers, ranges, conditions, status and error body.
// A Backend that is a [Writer] is pushed to and deleted from by whom an
// [Authorizer] lets; all others are read-only. [Readers] say who may read; without
// them all may. A [FileHandler] does the same for files by name.
//
// It promises that a body is never longer than announced, that an error after
// the first byte cuts the connection instead of adding bytes, and that nothing
// malformed reaches the backend. It stores nothing and knows no upstream:
// package proxy is the backend of a node, registry/origin that of the origin.
package registry

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestSize bounds a manifest's body, in bytes (OCI Distribution v1.1,
// "Pushing Manifests": registries should accept at least 4 MiB).
const MaxManifestSize = 4 << 20

// Kind says what a request asks for.
type Kind uint8

// The kinds of requests.
const (
	KindBase      Kind = iota // /v2/
	KindManifest              // /v2/<name>/manifests/<reference>
	KindBlob                  // /v2/<name>/blobs/<digest>
	KindTags                  // /v2/<name>/tags/list
	KindReferrers             // /v2/<name>/referrers/<digest>
	KindUpload                // /v2/<name>/blobs/uploads/[<id>]
	KindFile                  // of a [FileHandler]
)

// Request is a parsed request path and query. Its strings are parts of the
// URL: parsing allocates nothing.
type Request struct {
	Kind       Kind
	Head       bool          // HEAD: the body of the answer is not needed
	Repository string        // <name>; a first element naming an upstream is still in it
	Tag        string        // KindManifest by tag, else empty
	Digest     digest.Digest // KindManifest by digest, KindBlob, KindReferrers: valid sha256 or sha512
	Upload     string        // KindUpload: the id, empty to start one
	Namespace  string        // the query's ns: the host the client believes it talks to
	Host       string        // the Host header as sent: host or host:port

	N            int    // KindTags: most entries wanted, negative when not said
	Last         string // KindTags: the entry to go on after
	ArtifactType string // KindReferrers: filter, empty for all

	Caller *Caller // who writes; nil for what only reads
}

// Backend answers requests. A Request is lent to it: it is used again once the
// response is complete, and what outlives that takes a copy. Its methods may return an error made with
// [Errorf], whose code, status and Retry-After are sent to the client; any
// other error is a 500 whose text is logged and not sent. When an answer needs
// a name of the request's repository that is known to be absent, the code says
// so (MANIFEST_UNKNOWN, BLOB_UNKNOWN, NAME_UNKNOWN).
type Backend interface {
	// Manifest answers KindManifest.
	Manifest(ctx context.Context, req *Request) (*Manifest, CacheStatus, error)
	// Blob answers KindBlob. The caller closes Content when it is not nil.
	Blob(ctx context.Context, req *Request) (Blob, CacheStatus, error)
	// Tags answers KindTags: at most req.N tags after req.Last, and whether more follow.
	Tags(ctx context.Context, req *Request) (tags []string, more bool, cs CacheStatus, err error)
	// Referrers answers KindReferrers, filtered when req.ArtifactType is set.
	Referrers(ctx context.Context, req *Request) ([]ocispec.Descriptor, CacheStatus, error)
}

// Blob is the answer to a blob request.
type Blob struct {
	Digest    digest.Digest // the one asked for
	Size      int64         // bytes; negative when unknown, then no range can be served
	MediaType string        // "" means application/octet-stream
	Modified  time.Time     // zero when unknown
	Content   Content       // nil for HEAD, and with Redirect
	Redirect  string        // when set, the client is sent (307) to this URL
}

// Content is the bytes of a blob, some of which may still be on their way.
// It is used by one goroutine.
//
// A Content may have a method Ready(offset, length int64) bool, which says that
// WriteRange of these bytes will not wait. Where it is missing or false, the
// response's headers are sent ahead of the content, on their own.
type Content interface {
	// WriteRange writes length bytes from offset to w, waiting for those that
	// are not there yet; a negative length means to the end. Where w can take a
	// file (io.ReaderFrom), it is given one. When it returns an error, what was
	// written is right as far as it goes, and the client's transfer must not
	// be completed.
	WriteRange(ctx context.Context, w io.Writer, offset, length int64) (int64, error)
	io.Closer
}

// Outcome is how a request was served, as metrics count it.
type Outcome uint8

// The outcomes.
const (
	OutcomeNone  Outcome = iota // no cache was involved
	OutcomeHit                  // from the store
	OutcomeMiss                 // from upstream, or from a fill in progress
	OutcomeStale                // from the store, though its freshness could not be checked in time
	OutcomeError                // not served
)

// CacheStatus is where an answer came from, for the Cache-Status header
// (RFC 9211), the access log and metrics.
type CacheStatus struct {
	Outcome   Outcome
	Upstream  string        // the upstream's configured name, "" when none was involved
	FwdStatus int           // status upstream answered with, 0 when it was not asked
	Collapsed bool          // joined a fill or check that another request had started
	Stored    bool          // upstream's answer was or will be stored
	TTL       time.Duration // freshness left, negative when stale; only with HasTTL
	HasTTL    bool
	Age       time.Duration // since the name was last checked; sent as Age when HasTTL
	Detail    string        // short token, such as "upstream-down"
}

package registry

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// apiPrefix begins every path of the API (OCI Distribution v1.1, "Endpoints").
const apiPrefix = "/v2/"

// The path elements that come between a repository and a reference.
const (
	manifestsElement = "manifests"
	blobsElement     = "blobs"
	tagsElement      = "tags"
	tagsList         = "list"
	referrersElement = "referrers"
	uploadsElement   = "uploads"
)

// ParseRequest reads the path and the query of a request. Its error is an
// [*Error] whose message says what is wrong and what would be right; the
// Request then holds what was understood before.
//
// A path is taken as it was sent, but for a colon in the last element, which
// may be percent-encoded: nothing else in a valid path has a reason to be, and
// an encoded slash or dot is how a path says two things to two readers.
func ParseRequest(r *http.Request) (Request, error) {
	req, err := parse(r.URL.Path, r.URL.RawPath, r.URL.RawQuery)
	req.Head = r.Method == http.MethodHead
	req.Host = r.Host
	return req, err
}

// parse reads a path in the two forms of [url.URL]: decoded, and as sent where
// that differs from the usual encoding (else empty).
func parse(path, rawPath, query string) (Request, error) {
	req := Request{N: -1}
	if query != "" {
		// The namespace first: an error about the path echoes it.
		if err := req.parseNamespace(query); err != nil {
			return req, err
		}
	}
	if rawPath != "" && !onlyColonsEncoded(rawPath) {
		return req, Errorf(errcode.ErrorCodeNameInvalid,
			"the path %s is percent-encoded: send it plain; only the colon of a digest may be written %%3A", quote(rawPath))
	}
	if err := req.parsePath(path); err != nil {
		return req, err
	}
	if query == "" {
		return req, nil
	}
	return req, req.parseQuery(query)
}

// Path is the path of the request, as a client would send it.
func (req *Request) Path() string {
	switch req.Kind {
	case KindManifest:
		return apiPrefix + req.Repository + "/" + manifestsElement + "/" + req.reference()
	case KindBlob:
		return apiPrefix + req.Repository + "/" + blobsElement + "/" + string(req.Digest)
	case KindTags:
		return apiPrefix + req.Repository + "/" + tagsElement + "/" + tagsList
	case KindUpload:
		return apiPrefix + req.Repository + "/" + blobsElement + "/" + uploadsElement + "/" + req.Upload
	case KindReferrers:
		return apiPrefix + req.Repository + "/" + referrersElement + "/" + string(req.Digest)
	default:
		return apiPrefix
	}
}

func (req *Request) reference() string {
	if req.Digest != "" {
		return string(req.Digest)
	}
	return req.Tag
}

// parsePath reads from the end: a repository may have elements named
// "manifests" or "tags", a reference has no slash.
func (req *Request) parsePath(path string) error {
	if path == apiPrefix || path == "/v2" {
		return nil
	}
	rest, ok := strings.CutPrefix(path, apiPrefix)
	if !ok {
		return noSuchEndpoint(path)
	}
	rest, reference, ok := cutLast(rest)
	if !ok {
		return noSuchEndpoint(path)
	}
	name, element, _ := cutLast(rest)
	switch {
	case element == uploadsElement && strings.HasSuffix(name, "/"+blobsElement):
		req.Kind, name = KindUpload, name[:len(name)-len("/"+blobsElement)]
	case element == blobsElement && reference == uploadsElement:
		req.Kind, reference = KindUpload, "" // POST without the last slash is common
	case reference == "":
		return noSuchEndpoint(path)
	case element == manifestsElement:
		req.Kind = KindManifest
	case element == blobsElement:
		req.Kind = KindBlob
	case element == tagsElement && reference == tagsList:
		req.Kind = KindTags
	case element == referrersElement:
		req.Kind = KindReferrers
	default:
		return noSuchEndpoint(path)
	}
	if !validName(name) {
		return nameError(name)
	}
	req.Repository = name
	return req.parseReference(reference)
}

func (req *Request) parseReference(reference string) error {
	switch {
	case req.Kind == KindTags:
		return nil
	case req.Kind == KindUpload:
		if reference != "" && !validUploadID(reference) {
			return uploadUnknown(reference)
		}
		req.Upload = reference
		return nil
	case req.Kind == KindManifest && strings.IndexByte(reference, ':') < 0:
		if !validTag(reference) {
			return tagError(reference)
		}
		req.Tag = reference
		return nil
	default:
		if !validDigest(reference) {
			return digestError(reference)
		}
		req.Digest = digest.Digest(reference)
		return nil
	}
}

// cutLast cuts s around its last slash. Without one, all of s comes after.
func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// onlyColonsEncoded says whether all that is percent-encoded in a path is
// colons of its last element.
func onlyColonsEncoded(rawPath string) bool {
	for i := range len(rawPath) {
		if rawPath[i] != '%' {
			continue
		}
		if i+2 >= len(rawPath) || rawPath[i+1] != '3' || rawPath[i+2]|0x20 != 'a' {
			return false
		}
		if strings.IndexByte(rawPath[i:], '/') >= 0 {
			return false
		}
	}
	return true
}

func noSuchEndpoint(path string) error {
	const endpoints = "/v2/, /v2/<name>/manifests/<tag or digest>, /v2/<name>/blobs/<digest>, " +
		"/v2/<name>/tags/list and /v2/<name>/referrers/<digest>"
	if flaw := pathFlaw(path); flaw != "" {
		return Errorf(errcode.ErrorCodeNameInvalid, "the path %s has %s; there are %s", quote(path), flaw, endpoints)
	}
	e := Errorf(errcode.ErrorCodeUnsupported, "no such endpoint: %s; there are %s", quote(path), endpoints)
	switch {
	case path == apiPrefix+"_catalog":
		e = Errorf(errcode.ErrorCodeUnsupported, "there is no catalog: ask for a repository by its name, as in /v2/<name>/tags/list")
	case strings.HasSuffix(path, "/") && strings.HasPrefix(path, apiPrefix):
		e = Errorf(errcode.ErrorCodeUnsupported, "no such endpoint: %s ends in a slash; there are %s", quote(path), endpoints)
	}
	e.Status = http.StatusNotFound
	return e
}

// parseNamespace reads ns, the host that a client believes it talks to (OCI
// Distribution, "Registry Proxying").
func (req *Request) parseNamespace(query string) error {
	ns, ok, err := queryValue(query, "ns")
	if err == nil && ok && !validHost(ns) {
		err = Errorf(errcode.ErrorCodeNameInvalid, "invalid ns %s: want a host or host:port, such as docker.io", quote(ns))
	}
	if err != nil {
		return err
	}
	req.Namespace = ns
	return nil
}

// maxParameter bounds last and artifactType, in bytes: a tag has 128 at most,
// a media type 255 (RFC 6838, section 4.2).
const maxParameter = 255

// parseQuery reads the parameters that the request's kind has.
func (req *Request) parseQuery(query string) (err error) {
	switch req.Kind {
	case KindTags:
		if req.N, err = queryNumber(query); err != nil {
			return err
		}
		req.Last, err = queryText(query, "last")
	case KindReferrers:
		req.ArtifactType, err = queryText(query, "artifactType")
	default:
	}
	return err
}

// queryNumber reads n, and is negative when it is not there.
func queryNumber(query string) (int, error) {
	value, ok, err := queryValue(query, "n")
	if err != nil || !ok {
		return -1, err
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return -1, Errorf(errcode.ErrorCodePaginationNumberInvalid,
			"invalid n %s: want a whole number of entries, from 0 to 2147483647", quote(value))
	}
	return int(n), nil
}

func queryText(query, key string) (string, error) {
	value, _, err := queryValue(query, key)
	if err != nil {
		return "", err
	}
	if len(value) > maxParameter || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c >= 0x7f }) {
		return "", badQuery("invalid %s %s: want at most %d printable ASCII characters", key, quote(value), maxParameter)
	}
	return value, nil
}

// queryValue returns the first value of key, as [url.Values.Get] would, without
// the map. It allocates only for what is percent-encoded.
func queryValue(query, key string) (value string, ok bool, err error) {
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		name, value, _ := strings.Cut(pair, "=")
		if name, err := unescape(name); err != nil || name != key {
			continue
		}
		if value, err = unescape(value); err != nil {
			return "", false, badQuery("the query's %s is not percent-encoded properly: %s", key, quote(value))
		}
		return value, true, nil
	}
	return "", false, nil
}

func unescape(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	t, err := url.QueryUnescape(s)
	if err != nil {
		return s, err
	}
	return t, nil
}

func badQuery(format string, args ...any) *Error {
	e := Errorf(errcode.ErrorCodeUnsupported, format, args...)
	e.Status = http.StatusBadRequest
	return e
}

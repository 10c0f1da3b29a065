package registry

import (
	"math"
	"net/http"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// maxUploadID bounds the id of an upload, in bytes.
const maxUploadID = 128

// validUploadID says whether s can be the id of an upload.
func validUploadID(s string) bool {
	if s == "" || len(s) > maxUploadID {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' && s[i] != '_' {
			return false
		}
	}
	return true
}

func uploadUnknown(id string) error {
	return Errorf(errcode.ErrorCodeBlobUploadUnknown, "there is no upload %s: start one with POST at /v2/<name>/blobs/uploads/", quote(id))
}

// uploadQuery is what the query of an upload's request says.
type uploadQuery struct {
	digest digest.Digest // of the whole blob; "" when not said
	mount  digest.Digest // "" for no mount
	from   string        // repository to mount from; "" for any
}

// parseUploadQuery reads digest, mount and from, and checks digest-algorithm,
// which announces the algorithm of a digest that comes later: uploads are
// hashed when it is there.
func parseUploadQuery(query string) (q uploadQuery, err error) {
	if q.digest, err = queryDigest(query, "digest"); err != nil {
		return q, err
	}
	if q.mount, err = queryDigest(query, "mount"); err != nil {
		return q, err
	}
	from, _, err := queryValue(query, "from")
	if err != nil {
		return q, err
	}
	if from != "" && !validName(from) {
		return q, nameError(from)
	}
	q.from = from
	algorithm, _, err := queryValue(query, "digest-algorithm")
	if err != nil {
		return q, err
	}
	if algorithm != "" && algorithm != string(digest.SHA256) && algorithm != string(digest.SHA512) {
		return q, Errorf(errcode.ErrorCodeDigestInvalid, "the digest algorithm %s is not known here: want sha256 or sha512", quote(algorithm))
	}
	return q, nil
}

// queryDigest reads a digest, "" when it is not there.
func queryDigest(query, key string) (digest.Digest, error) {
	value, ok, err := queryValue(query, key)
	if err != nil || !ok {
		return "", err
	}
	if !validDigest(value) {
		return "", digestError(value)
	}
	return digest.Digest(value), nil
}

// queryTags reads every tag of a manifest's query, each once.
func queryTags(query string) ([]string, error) {
	var tags []string
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if name, err := unescape(name); err != nil || name != "tag" {
			continue
		}
		tag, err := unescape(value)
		if err != nil || !validTag(tag) {
			return nil, tagError(tag)
		}
		if slices.Contains(tags, tag) {
			continue
		}
		if len(tags) == MaxManifestTags {
			return nil, badQuery("the query has more than %d tags: push the manifest again with the others", MaxManifestTags)
		}
		tags = append(tags, tag)
	}
	return tags, nil
}

// parseContentRange reads the range of a chunk: "<first>-<last>" (OCI
// Distribution v1.1, "Pushing a blob in chunks"), or as RFC 9110 writes it,
// "bytes <first>-<last>/<size or *>". Its length is never 0.
func parseContentRange(values []string) (byteRange, error) {
	text := strings.Join(values, ", ")
	bad := Errorf(errcode.ErrorCodeBlobUploadInvalid, "invalid Content-Range %s: want <first byte>-<last byte>, such as 0-1023", quote(text))
	bad.Status = http.StatusBadRequest
	spec, isBytes := strings.CutPrefix(text, "bytes ")
	if isBytes {
		var size string
		var ok bool
		if spec, size, ok = strings.Cut(spec, "/"); !ok || size != "*" && !isPosition(size) {
			return byteRange{}, bad
		}
	}
	from, to, ok := strings.Cut(spec, "-")
	if !ok || !isPosition(from) || !isPosition(to) {
		return byteRange{}, bad
	}
	first, _ := parsePosition(from)
	last, _ := parsePosition(to)
	if first > last || last == math.MaxInt64 {
		return byteRange{}, bad
	}
	return byteRange{start: first, length: last - first + 1}, nil
}

// isPosition says whether s is decimal digits, at least one.
func isPosition(s string) bool {
	_, ok := parsePosition(s)
	return ok && s != ""
}

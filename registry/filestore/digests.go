package filestore

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// sha256Algorithm is the name of sha256 in digest fields (RFC 9530, section 7.2).
const sha256Algorithm = "sha-256"

// reprDigest is the value of Repr-Digest for a sha256 digest.
func reprDigest(d digest.Digest) string {
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil || d.Algorithm() != digest.SHA256 {
		return ""
	}
	return sha256Algorithm + "=:" + base64.StdEncoding.EncodeToString(raw) + ":"
}

// parseDigestField reads the sha256 of a Repr-Digest or Content-Digest field,
// "" when it has none: a dictionary of byte sequences (RFC 8941, sections 3.2
// and 3.3.5). Of a name that is given twice, the last value counts.
func parseDigestField(values []string) (digest.Digest, error) {
	var found digest.Digest
	for member := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name, value, _ := strings.Cut(strings.Trim(member, " \t"), "=")
		if name != sha256Algorithm {
			continue // of other algorithms there may be any
		}
		value, _, _ = strings.Cut(value, ";") // parameters
		value = strings.TrimRight(value, " \t")
		encoded, ok := strings.CutPrefix(value, ":")
		if ok {
			encoded, ok = strings.CutSuffix(encoded, ":")
		}
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil || len(raw) != sha256.Size {
			return "", fmt.Errorf("%.100q is not of the form %s=:<base64 of %d bytes>: that RFC 9530 has", member, sha256Algorithm, sha256.Size)
		}
		found = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(raw))
	}
	return found, nil
}

// parseQueryDigest reads a digest of the query.
func parseQueryDigest(text string) (digest.Digest, error) {
	d := digest.Digest(text)
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return "", fmt.Errorf("%.100q is not a digest: want sha256: and 64 hexadecimal digits in lower case", text)
	}
	return d, nil
}

// sentDigest is the digest that a request gives for its content, "" for none:
// by Repr-Digest, by Content-Digest, which says the same of content that is
// sent whole and not encoded, or by the query. Where several do, they agree.
func sentDigest(header http.Header, query string) (digest.Digest, error) {
	var sent digest.Digest
	var from string
	take := func(source string, d digest.Digest, err error) error {
		switch {
		case err != nil:
			return problemf(http.StatusBadRequest, codeDigestInvalid, "%s: %w", source, err)
		case d == "" || d == sent:
			return nil
		case sent != "":
			return problemf(http.StatusBadRequest, codeDigestInvalid, "%s says %s, %s says %s", from, sent, source, d)
		}
		sent, from = d, source
		return nil
	}
	for _, name := range []string{"Repr-Digest", "Content-Digest"} {
		d, err := parseDigestField(header.Values(name))
		if err := take(name, d, err); err != nil {
			return "", err
		}
	}
	if query != "" {
		d, err := parseQueryDigest(query)
		if err := take("the query's digest", d, err); err != nil {
			return "", err
		}
	}
	return sent, nil
}

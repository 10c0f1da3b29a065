package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // what some servers tell about their files; it is never all that is known
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"entrepot/proxy/upstream"

	"github.com/opencontainers/go-digest"
)

// claim is what somebody says that a file's digest is.
type claim struct {
	algorithm string // as RFC 9530 calls it: "sha-256", "sha-512"; "md5"
	want      []byte
	by        string // "Repr-Digest", "SHA256SUMS"
}

// digest is the claim as a digest, "" when it is not by sha256.
func (c *claim) digest() digest.Digest {
	if c.algorithm != sha256Name {
		return ""
	}
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(c.want))
}

const (
	sha256Name = "sha-256"
	sha512Name = "sha-512"
	md5Name    = "md5"
)

func newHash(algorithm string) hash.Hash {
	switch algorithm {
	case sha256Name:
		return sha256.New()
	case sha512Name:
		return sha512.New()
	case md5Name:
		return md5.New() //nolint:gosec // see the import
	}
	return nil
}

// claimVerifier checks bytes by a claim. It implements digest.Verifier.
type claimVerifier struct {
	hash.Hash
	claim
}

func (c claim) verifier() claimVerifier { return claimVerifier{newHash(c.algorithm), c} }

func (v claimVerifier) Verified() bool { return subtle.ConstantTimeCompare(v.Sum(nil), v.want) == 1 }

// reprDigest is a digest as the header of that name has it (RFC 9530).
func reprDigest(d digest.Digest) string {
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return ""
	}
	name := sha256Name
	if d.Algorithm() == digest.SHA512 {
		name = sha512Name
	}
	return name + "=:" + base64.StdEncoding.EncodeToString(raw) + ":"
}

// headerClaims reads what the headers of a whole answer claim: Repr-Digest (RFC
// 9530), Digest (RFC 3230) and Content-MD5 (RFC 1864). All of them are about the
// content as it is sent, with its Content-Encoding. What is malformed claims
// nothing.
func headerClaims(h http.Header) []claim {
	var claims []claim
	add := func(by, algorithm, encoded string) {
		algorithm = strings.ToLower(strings.TrimSpace(algorithm))
		made := newHash(algorithm)
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if made != nil && err == nil && len(raw) == made.Size() {
			claims = append(claims, claim{algorithm, raw, by})
		}
	}
	for member := range strings.SplitSeq(strings.Join(h["Repr-Digest"], ","), ",") {
		name, value, _ := strings.Cut(member, "=")
		value, _, _ = strings.Cut(value, ";")
		value = strings.TrimSpace(value)
		if len(value) >= 2 && value[0] == ':' && value[len(value)-1] == ':' {
			add("Repr-Digest", name, value[1:len(value)-1])
		}
	}
	for member := range strings.SplitSeq(strings.Join(h["Digest"], ","), ",") {
		name, value, _ := strings.Cut(member, "=")
		add("Digest", name, strings.TrimSpace(value))
	}
	add("Content-MD5", md5Name, h.Get("Content-MD5"))
	return claims
}

// maxSidecar bounds, in bytes, a file of digests.
const maxSidecar = 4 << 20

// sidecarClaim asks upstream for what the files beside a file claim; ok is false
// when there are none. They are asked for anew with each version of the file: an
// older one would contradict it.
func sidecarClaim(ctx context.Context, up *upstreamState, escaped string) (c claim, ok bool, err error) {
	name, err := url.PathUnescape(path.Base(escaped))
	if err != nil {
		name = path.Base(escaped)
	}
	for _, at := range up.files.sidecarsOf(escaped) {
		b, err := readSidecar(ctx, up, at)
		if isRefusal(err) {
			continue
		}
		if err != nil {
			return claim{}, false, fmt.Errorf("fetching %s, by which %s is verified: %w", at, escaped, err)
		}
		algorithm := sha256Name
		if strings.HasSuffix(at, ".sha512") {
			algorithm = sha512Name
		}
		want, found := findSum(b, name, newHash(algorithm).Size(), !strings.HasSuffix(at, sumsFile))
		if found {
			return claim{algorithm, want, path.Base(at)}, true, nil
		}
	}
	return claim{}, false, nil
}

func readSidecar(ctx context.Context, up *upstreamState, escaped string) ([]byte, error) {
	resp, err := up.client.Do(ctx, &upstream.Request{Method: http.MethodGet, Path: escaped, Small: true})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxSidecar+1))
	if err == nil && len(b) > maxSidecar {
		err = &upstream.Error{Kind: upstream.Invalid, Err: errors.New("it is too large for a file of digests")}
	}
	return b, err
}

// findSum finds a file's digest of size bytes in lines of the forms "<hex>",
// where alone lets them count, "<hex>  <name>" and "<hex> *<name>".
func findSum(b []byte, name string, size int, alone bool) (sum []byte, ok bool) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		encoded, rest, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		raw, err := hex.DecodeString(encoded)
		if err != nil || len(raw) != size {
			continue
		}
		of := strings.TrimPrefix(strings.TrimPrefix(strings.TrimLeft(rest, " "), "*"), "./")
		if of == name || alone && (of == "" || path.Base(of) == name) {
			return raw, true
		}
	}
	return nil, false
}

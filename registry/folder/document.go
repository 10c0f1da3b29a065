package folder

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"maps"
	"net/http"
	"strings"
	"time"
)

// GeneratedHeader is sent, as "true", with a checksum file that was generated, so
// that whoever promotes one of that name sees that there is none yet.
const GeneratedHeader = "Entrepot-Generated"

// Document is what is sent: a page, or checksums.
type Document struct {
	// Header has Content-Type, Etag, Cache-Control and what else describes the
	// body, but no lengths.
	Header http.Header
	Body   []byte
}

func newDocument(body []byte, contentType string) *Document {
	sum := sha256.Sum256(body)
	return &Document{Body: body, Header: http.Header{
		"Content-Type":           {contentType},
		"Etag":                   {`"` + hex.EncodeToString(sum[:16]) + `"`},
		"Cache-Control":          {"no-cache"}, // names move; the entity tag makes asking cheap
		"X-Content-Type-Options": {"nosniff"},
		"Vary":                   {"Accept"},
	}}
}

// ETag is the document's entity tag, with its quotes.
func (d *Document) ETag() string { return d.Header.Get("Etag") }

// ServeHTTP answers a GET or HEAD, with conditions and ranges.
func (d *Document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	maps.Copy(w.Header(), d.Header)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.Body))
}

// RootURL is the URL by which the client of a request knows a path, such as
// "/files/", percent-encoded. Behind a proxy that ends TLS, X-Forwarded-Proto
// says https: who makes that up misleads nobody else.
func RootURL(r *http.Request, path string) string {
	scheme := "http"
	forwarded, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Proto"), ",")
	if r.TLS != nil || strings.EqualFold(strings.TrimSpace(forwarded), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host + path
}

// securityPolicy lets a page use its own style and nothing else.
func securityPolicy(style string) string {
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

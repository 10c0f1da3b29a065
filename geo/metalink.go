package geo

import (
	"encoding/xml"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"entrepot/geo/choice"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// The elements of a Metalink (RFC 5854, section 4) that there are here.
type (
	metalinkDocument struct {
		XMLName   xml.Name       `xml:"urn:ietf:params:xml:ns:metalink metalink"`
		Generator string         `xml:"generator"`
		Origin    metalinkOrigin `xml:"origin"`
		File      metalinkFile   `xml:"file"`
	}
	metalinkOrigin struct {
		Dynamic bool   `xml:"dynamic,attr"`
		URL     string `xml:",chardata"`
	}
	metalinkFile struct {
		Name  string        `xml:"name,attr"`
		Size  int64         `xml:"size,omitempty"`
		Hash  metalinkHash  `xml:"hash"`
		Links []metalinkURL `xml:"url"`
	}
	metalinkHash struct {
		Type  string `xml:"type,attr"`
		Value string `xml:",chardata"`
	}
	metalinkURL struct {
		Location string `xml:"location,attr,omitempty"`
		Priority int    `xml:"priority,attr"`
		URL      string `xml:",chardata"`
	}
)

// metalink answers with the places of a file and what it is checked by.
func (x *exchange) metalink(f *found, choices []choice.Choice) error {
	if f.digest == "" {
		e := registry.Errorf(errcode.ErrorCodeNameUnknown,
			"there is no Metalink of %s: its digest is not known here, as it is of promoted files only", f.name)
		e.Status = http.StatusNotFound
		return e
	}
	places := x.places(choices, maxChoices)
	if len(places) == 0 {
		_, _, err := x.location(nil)
		if err == nil {
			err = registry.Errorf(errcode.ErrorCodeUnavailable, "no mirror is fit to serve this now")
		}
		return err
	}
	d := metalinkDocument{
		Generator: "entrepot",
		Origin:    metalinkOrigin{Dynamic: true, URL: x.here(f) + metalinkSuffix},
		File: metalinkFile{
			Name: path.Base(f.name), Size: max(0, f.size),
			Hash: metalinkHash{Type: hashName(f.digest), Value: f.digest.Encoded()},
		},
	}
	for i, p := range places {
		d.File.Links = append(d.File.Links, metalinkURL{Location: strings.ToLower(p.mirror.Country.String()), Priority: i + 1, URL: p.url})
	}
	body, err := xml.MarshalIndent(&d, "", "  ")
	if err != nil {
		return err
	}
	header := x.w.Header()
	// A client that was given it in place of the file is to keep the two apart.
	header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": d.File.Name + metalinkSuffix}))
	header.Set("Vary", "Accept")
	x.document(metalinkType, append([]byte(xml.Header), append(body, '\n')...))
	return nil
}

// hashName is an algorithm as IANA's "Hash Function Textual Names" has it.
func hashName(d digest.Digest) string {
	if d.Algorithm() == digest.SHA512 {
		return "sha-512"
	}
	return "sha-256"
}

// here is the file's URL at this router, as the client knows it.
func (x *exchange) here(f *found) string {
	scheme := "http://"
	if x.query.Secure {
		scheme = "https://"
	}
	return scheme + x.r.Host + f.up.prefix() + f.path
}

// document sends what is for this client alone.
func (x *exchange) document(contentType string, body []byte) {
	header := x.w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "private, no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	x.obs.Status = http.StatusOK
	if x.r.Method != http.MethodHead {
		_, _ = x.w.Write(body) // who left does not read it
	}
}

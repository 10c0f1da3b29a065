package filestore

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// Bounds of names, in bytes.
const (
	maxPath    = 4096
	maxElement = 255
)

// blobsElement is the folder of content by digest. No file can be named
// "blobs/sha256:…".
const blobsElement = "blobs"

// Path is the name of a file, or of a folder: elements joined by "/", neither
// at the start nor at the end. The root folder is "". It is canonical: there is
// no other spelling of it.
type Path string

// ParsePath reads the name of a file, such as "release/v1.36.0/kubectl". Its
// elements are UTF-8 of 1 to 255 bytes, without control characters and
// backslashes, and not "." or "..".
func ParsePath(text string) (Path, error) {
	if text == "" {
		return "", errors.New("it is empty")
	}
	if len(text) > maxPath {
		return "", fmt.Errorf("it has %d bytes, more than the %d allowed", len(text), maxPath)
	}
	for element := range strings.SplitSeq(text, "/") {
		if err := checkElement(element); err != nil {
			return "", err
		}
	}
	if isBlobPath(text) {
		return "", fmt.Errorf("names of the form %s/sha256:… are those of content by its digest", blobsElement)
	}
	return Path(text), nil
}

func checkElement(element string) error {
	switch {
	case element == "":
		return errors.New("it has an empty element: no name begins or ends with a slash, or has two in a row")
	case element == "." || element == "..":
		return fmt.Errorf("it has an element %q: want the path without it", element)
	case len(element) > maxElement:
		return fmt.Errorf("its element %.40q… has %d bytes, more than the %d allowed", element, len(element), maxElement)
	case !utf8.ValidString(element):
		return fmt.Errorf("its element %q is not UTF-8", element)
	}
	for _, r := range element {
		switch {
		case unicode.IsControl(r):
			return fmt.Errorf("its element %q has a control character", element)
		case r == '\\':
			return fmt.Errorf("its element %q has a backslash, which some systems take for a slash", element)
		case r == '/': // that was written %2F
			return fmt.Errorf("its element %q has an encoded slash", element)
		}
	}
	return nil
}

func isBlobPath(text string) bool {
	rest, ok := strings.CutPrefix(text, blobsElement+"/")
	return ok && strings.HasPrefix(rest, string(digest.SHA256)+":")
}

// parent is the folder that a path lies in, and its last element.
func (p Path) parent() (folder Path, name string) {
	at := strings.LastIndexByte(string(p), '/')
	if at < 0 {
		return "", string(p)
	}
	return p[:at], string(p[at+1:])
}

// child is a name in a folder.
func (p Path) child(name string) Path {
	if p == "" {
		return Path(name)
	}
	return p + "/" + Path(name)
}

// targetKind is what a request's path names.
type targetKind uint8

const (
	targetFile targetKind = iota
	targetFolder
	targetBlob
)

// target is a parsed request path.
type target struct {
	kind   targetKind
	path   Path          // of the file or folder
	digest digest.Digest // of the blob
}

// parseTarget reads the path of a request, percent-encoded as it was sent: an
// encoded slash is no separator.
func parseTarget(escaped, prefix string) (target, error) {
	rest, ok := strings.CutPrefix(escaped, prefix+"/")
	if !ok {
		return target{}, problemf(http.StatusNotFound, codeNameInvalid, "there is nothing here: files lie below %s/", prefix)
	}
	if len(rest) > 3*maxPath {
		return target{}, problemf(http.StatusRequestURITooLong, codeNameInvalid, "the name has more than %d bytes", maxPath)
	}
	folder := rest == "" || strings.HasSuffix(rest, "/")
	rest = strings.TrimSuffix(rest, "/")
	if folder && rest == "" && escaped == prefix+"/" {
		return target{kind: targetFolder}, nil
	}
	elements := strings.Split(rest, "/")
	for i, element := range elements {
		text, err := url.PathUnescape(element)
		if err == nil {
			err = checkElement(text)
		}
		if err != nil {
			return target{}, nameInvalid(rest, err)
		}
		elements[i] = text
	}
	text := strings.Join(elements, "/")
	if !folder && isBlobPath(text) {
		d := digest.Digest(elements[1])
		if err := d.Validate(); err != nil || len(elements) > 2 {
			return target{}, problemf(http.StatusBadRequest, codeDigestInvalid, "%.100q is not a digest: want sha256: and 64 hexadecimal digits in lower case", text)
		}
		return target{kind: targetBlob, digest: d}, nil
	}
	path, err := ParsePath(text)
	if err != nil {
		return target{}, nameInvalid(rest, err)
	}
	if folder {
		return target{kind: targetFolder, path: path}, nil
	}
	return target{path: path}, nil
}

func nameInvalid(escaped string, err error) error {
	return problemf(http.StatusBadRequest, codeNameInvalid, "the name %.200q is not one that a file can have: %w", escaped, err)
}

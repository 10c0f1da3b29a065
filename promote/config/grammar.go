package config

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Bounds of names, in bytes.
const (
	maxRepository = 255  // OCI Distribution v1.1: clients limit host and name together to it
	maxTag        = 128  // OCI Distribution v1.1, "Pulling manifests"
	maxFileName   = 1024 // of an S3 key
)

// grammar holds the compiled patterns of one run; a run uses them concurrently.
type grammar struct{ domain, path *regexp.Regexp }

func newGrammar() *grammar {
	return &grammar{
		domain: regexp.MustCompile(`^(?:` + reference.DomainRegexp.String() + `)$`),
		path:   regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`),
	}
}

// registry reads what a registries list names: a host, and a path below it or
// none. A slash at the end is dropped.
func (g *grammar) registry(s string) (string, error) {
	s = strings.TrimSuffix(s, "/")
	host, below, found := strings.Cut(s, "/")
	switch {
	case s == "":
		return "", errors.New("is empty")
	case strings.Contains(s, "://"):
		return "", fmt.Errorf("has a scheme; want it without %q", s[:strings.Index(s, "://")+3])
	case len(s) > maxRepository:
		return "", fmt.Errorf("has %d bytes; want at most %d", len(s), maxRepository)
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return "", fmt.Errorf("does not begin with a registry's host: %s has no dot and no port", quote(host))
	case !g.domain.MatchString(host):
		return "", fmt.Errorf("begins with %s, which is no host name", quote(host))
	case found:
		if err := g.repository(below); err != nil {
			return "", err
		}
	}
	return s, nil
}

// repository checks the path of a repository, without a host.
func (g *grammar) repository(s string) error {
	if s != "" && len(s) <= maxRepository && g.path.MatchString(s) {
		return nil
	}
	flaw := "has a character that is not allowed, or a separator at an end"
	switch {
	case s == "":
		flaw = "is empty"
	case len(s) > maxRepository:
		flaw = fmt.Sprintf("has %d bytes, more than %d", len(s), maxRepository)
	case strings.ToLower(s) != s:
		flaw = "has an upper-case letter"
	case strings.Contains("/"+s+"/", "//"):
		flaw = "has an empty element: a slash at an end, or two in a row"
	case strings.Contains(s, "@"):
		flaw = "has a digest in it; digests are the keys of dmap"
	case strings.Contains(s, ":"):
		flaw = "has a colon; tags are the values of dmap"
	case strings.Contains("/"+s+"/", "/../"):
		flaw = `has ".." as an element`
	}
	return errors.New(flaw + "; want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/'")
}

// checkTag says whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func checkTag(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxTag:
		return fmt.Errorf("has %d bytes; a tag has at most %d", len(s), maxTag)
	case s[0] == '.' || s[0] == '-':
		return fmt.Errorf("begins with %q; a tag begins with a letter, a digit or '_'", s[:1])
	}
	for _, c := range s {
		if !isAlnum(c) && !strings.ContainsRune("_.-", c) {
			return fmt.Errorf("has %q in it; a tag has letters, digits, '_', '.' and '-'", c)
		}
	}
	return nil
}

func isAlnum(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// parseDigest reads a digest that stores can keep.
func parseDigest(s string) (digest.Digest, error) {
	algorithm, hex, found := strings.Cut(s, ":")
	if !found {
		return "", errors.New("has no algorithm; want sha256: and 64 hex digits")
	}
	var digits int
	switch algorithm {
	case "sha256":
		digits = 64
	case "sha512":
		digits = 128
	default:
		return "", fmt.Errorf("has the algorithm %s; want sha256 or sha512", quote(algorithm))
	}
	if err := checkHex(hex, digits); err != nil {
		return "", err
	}
	return digest.Digest(s), nil
}

// parseSHA256 reads the sha256 of a file: 64 hex digits, without "sha256:".
func parseSHA256(s string) (digest.Digest, error) {
	if strings.HasPrefix(s, "sha256:") {
		return "", errors.New("begins with sha256:; want the 64 hex digits alone")
	}
	if err := checkHex(s, 64); err != nil {
		return "", err
	}
	return digest.Digest("sha256:" + s), nil
}

func checkHex(hex string, digits int) error {
	for _, c := range hex {
		switch {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f':
		case 'A' <= c && c <= 'F':
			return fmt.Errorf("has the upper-case digit %q; want lower case", c)
		default:
			return fmt.Errorf("has %q, which is no hex digit", c)
		}
	}
	if len(hex) != digits {
		return fmt.Errorf("has %d hex digits; want %d", len(hex), digits)
	}
	return nil
}

// checkFileName says whether s can be the name of a file below every store.
func checkFileName(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxFileName:
		return fmt.Errorf("has %d bytes; want at most %d", len(s), maxFileName)
	case !utf8.ValidString(s):
		return errors.New("is not UTF-8")
	case strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return errors.New("has a control character in it")
	case strings.Contains(s, `\`):
		return errors.New(`has "\" in it; want "/" between folders`)
	case strings.HasPrefix(s, "/"):
		return errors.New("begins with a slash; want it relative to the stores' base")
	case strings.HasSuffix(s, "/"):
		return errors.New("ends with a slash; want a file, not a folder")
	}
	for element := range strings.SplitSeq(s, "/") {
		if element == "" || element == "." || element == ".." {
			return fmt.Errorf("has %q as an element of its path", element)
		}
	}
	return nil
}

// hasCredentials says whether a registry's name or a URL has an "@" where a host
// stands.
func hasCredentials(s string) bool {
	host, _, _ := strings.Cut(strings.TrimPrefix(s, schemeOf(s)), "/")
	return strings.Contains(host, "@")
}

// parseStore reads the base of a file store. Slashes at the end are dropped.
func parseStore(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		if why, ok := errors.AsType[*url.Error](err); ok {
			err = why.Err // the rest repeats the URL
		}
		return "", fmt.Errorf("is no URL: %w", err)
	}
	known := []string{"s3", "gs", "https", "http", "file"}
	switch {
	case u.Scheme == "":
		return "", errors.New("has no scheme; want s3://, gs://, https:// or file://")
	case !slices.Contains(known, u.Scheme):
		return "", fmt.Errorf("has the scheme %s; want s3, gs, https or file", quote(u.Scheme))
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return "", errors.New("has a query or fragment; want a base that names are appended to")
	case u.Opaque != "":
		return "", fmt.Errorf("has no %s:// before its path", u.Scheme)
	case u.Scheme == "file" && u.Host != "":
		return "", errors.New("names the host " + quote(u.Host) + "; want three slashes: file:///folder")
	case u.Scheme == "file" && !strings.HasPrefix(u.Path, "/"):
		return "", errors.New("has no path; want file:///folder")
	case u.Scheme != "file" && u.Host == "":
		return "", errors.New("names no bucket or host")
	}
	trimmed := strings.TrimRight(u.Path, "/")
	if trimmed != "" && path.Clean(trimmed) != trimmed {
		return "", errors.New(`has "//", "." or ".." in its path`)
	}
	if u.Scheme == "file" && trimmed == "" {
		return "", errors.New("is the root of the file system; want a folder")
	}
	return strings.TrimRight(s, "/"), nil
}

// quote quotes what a file says, cut to what a person reads.
func quote(s string) string {
	const limit = 120 // bytes; a sha256 digest has 71
	if len(s) > limit {
		return strconv.Quote(s[:limit]) + "…"
	}
	return strconv.Quote(s)
}

// short is a digest as messages show it where it is beside the point.
func short(d digest.Digest) string {
	const shown = len("sha256:") + 12
	if len(d) > shown {
		return string(d[:shown]) + "…"
	}
	return string(d)
}

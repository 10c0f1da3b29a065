package registry

import (
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// The bounds of names and tags, in bytes (OCI Distribution v1.1, "Pulling
// manifests"; the length of names is what clients limit them to).
const (
	maxName = 255
	maxTag  = 128
	maxHost = 255
)

// validName says whether s is a repository name:
//
//	name    = [ host "/" ] element *( "/" element )
//	element = alnum *( separator alnum )     ; lower case
//	separator = "." / "_" / "__" / 1*"-"
//
// A host may come first because a node takes the upstream's name there, and
// may have what an element has not: a port, or an IPv6 address in brackets.
func validName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for first := true; ; first = false {
		element, rest, more := strings.Cut(s, "/")
		if !validElement(element) && (!first || !more || !lowerCaseHost(element)) {
			return false
		}
		if !more {
			return true
		}
		s = rest
	}
}

func validElement(s string) bool {
	i := 0
	for {
		start := i
		for i < len(s) && isLowerAlnum(s[i]) {
			i++
		}
		if i == start {
			return false // no letter or digit where one must be
		}
		if i == len(s) {
			return true
		}
		switch s[i] {
		case '.':
			i++
		case '_':
			i++
			if i < len(s) && s[i] == '_' {
				i++
			}
		case '-':
			for i < len(s) && s[i] == '-' {
				i++
			}
		default:
			return false
		}
	}
}

// validTag says whether s is a tag: [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func validTag(s string) bool {
	if s == "" || len(s) > maxTag || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// validDigest says whether s is a sha256 or sha512 digest in lower-case
// hexadecimal. [digest.Digest.Validate] agrees, but goes through a regular
// expression.
func validDigest(s string) bool {
	algorithm, hex, _ := strings.Cut(s, ":")
	if (algorithm != "sha256" || len(hex) != 64) && (algorithm != "sha512" || len(hex) != 128) {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// validHost says whether s is a host name, an IPv4 address or an IPv6 address
// in brackets, with or without a port.
func validHost(s string) bool {
	if s == "" || len(s) > maxHost {
		return false
	}
	if address, ok := strings.CutPrefix(s, "["); ok {
		address, port, ok := strings.Cut(address, "]")
		if !ok || !validIPv6(address) {
			return false
		}
		if port == "" {
			return true
		}
		port, ok = strings.CutPrefix(port, ":")
		return ok && validPort(port)
	}
	host, port, found := strings.Cut(s, ":")
	if found && !validPort(port) {
		return false
	}
	for {
		label, rest, more := strings.Cut(host, ".")
		if !validLabel(label) {
			return false
		}
		if !more {
			return true
		}
		host = rest
	}
}

func lowerCaseHost(s string) bool {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			return false
		}
	}
	return validHost(s)
}

func validLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// validIPv6 is as strict as it has to be for a name: what is not an address
// matches no upstream.
func validIPv6(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != ':' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return strings.Count(s, ":") >= 2
}

func validPort(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n > 0 && n <= 65535
}

func isLowerAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isAlnum(c byte) bool { return isLowerAlnum(c) || 'A' <= c && c <= 'Z' }

// nameError tells what keeps name from being a repository name.
func nameError(name string) error {
	const want = "want lower-case letters and digits, joined by '.', '_', '__' or dashes, in elements separated by '/', such as library/nginx"
	if name == "" {
		return Errorf(errcode.ErrorCodeNameInvalid, "the path has no repository name: %s", want)
	}
	if len(name) > maxName {
		return Errorf(errcode.ErrorCodeNameInvalid, "the repository name %s is too long: it has %d bytes, want at most %d",
			quote(name), len(name), maxName)
	}
	flaw := pathFlaw(name)
	if flaw == "" {
		flaw = nameFlaw(name)
	}
	return Errorf(errcode.ErrorCodeNameInvalid, "invalid repository name %s: it has %s; %s", quote(name), flaw, want)
}

// pathFlaw names what no valid path or name has, or is empty.
func pathFlaw(path string) string {
	control := func(c rune) bool { return c < ' ' || c == 0x7f }
	switch {
	case strings.ContainsFunc(path, control):
		return "a control character"
	case strings.Contains(path, "%"):
		return "a percent sign: send the path plain, and encode it not at all"
	case strings.Contains(path, "//"):
		return "an empty element: two slashes in a row"
	case strings.Contains("/"+path+"/", "/../"), strings.Contains("/"+path+"/", "/./"):
		return `"." or ".." as an element`
	default:
		return ""
	}
}

// nameFlaw names the first element that is wrong.
func nameFlaw(name string) string {
	for i, element := range strings.Split(name, "/") {
		switch {
		case validElement(element), i == 0 && lowerCaseHost(element) && element != name:
			continue
		case element == "":
			return "an empty element: a slash at its start or end"
		case strings.ToLower(element) != element:
			return "an upper-case letter, in " + quote(element)
		case i == 0 && strings.Contains(element, ":"):
			return "a colon, in " + quote(element) + ", which is not a host:port before a repository"
		case strings.ContainsFunc(element, func(c rune) bool {
			return c >= 0x80 || !isAlnum(byte(c)) && !strings.ContainsRune("._-", c)
		}):
			return "a character that is not allowed, in " + quote(element)
		default:
			return "a separator at an end, or two in a row, in " + quote(element)
		}
	}
	return "a wrong element"
}

func tagError(tag string) error {
	const want = "want a letter, digit or '_', then up to 127 letters, digits, '_', '.' or '-'"
	if len(tag) > maxTag {
		return Errorf(errcode.ErrorCodeTagInvalid, "the tag %s is too long: it has %d bytes, want at most %d", quote(tag), len(tag), maxTag)
	}
	return Errorf(errcode.ErrorCodeTagInvalid, "invalid tag %s: %s; a digest is written sha256:<hex>", quote(tag), want)
}

func digestError(s string) error {
	algorithm, hex, found := strings.Cut(s, ":")
	flaw := "it has no colon between algorithm and hexadecimal"
	switch want := map[string]int{"sha256": 64, "sha512": 128}[algorithm]; {
	case !found:
	case want == 0:
		flaw = "its algorithm is not known here"
	case len(hex) != want:
		flaw = "it has " + strconv.Itoa(len(hex)) + " characters after the colon, not " + strconv.Itoa(want)
	case strings.ToLower(hex) != hex:
		flaw = "it has upper-case letters"
	default:
		flaw = "it has characters that are not hexadecimal"
	}
	return Errorf(errcode.ErrorCodeDigestInvalid,
		"invalid digest %s: %s; want sha256: and 64, or sha512: and 128 hexadecimal digits in lower case", quote(s), flaw)
}

// quote quotes what a client sent, cut to what a person reads.
func quote(s string) string {
	const limit = 80
	if len(s) > limit {
		return strconv.QuoteToASCII(s[:limit]) + "…"
	}
	return strconv.QuoteToASCII(s)
}

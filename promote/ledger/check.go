package ledger

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// check says what is wrong with an entry by itself. known says that its
// destinations were checked before.
func (e *Entry) check(known bool) error {
	if err := checkText("name", e.Name); err != nil {
		return err
	}
	for _, text := range [...]string{e.MediaType, e.Project, e.Revision, e.Reason} {
		if !utf8.ValidString(text) {
			return fmt.Errorf("text %q is not UTF-8", text)
		}
	}
	if e.Size < 0 || e.Size > maxInteger {
		return fmt.Errorf("a size of %d bytes", e.Size)
	}
	if e.Previous != "" && !validDigest(e.Previous) {
		return fmt.Errorf("previous digest %q: want sha256 or sha512 and lower-case hex digits", e.Previous)
	}
	if e.Kind != Image && e.Kind != File && (e.Kind != "" || e.Action == Set || e.Action == Adopt || e.Action == Delete) {
		return fmt.Errorf("kind %q: want %q or %q", e.Kind, Image, File)
	}
	switch e.Action {
	case Set, Adopt:
		if !validDigest(e.Digest) {
			return fmt.Errorf("digest %q: want sha256 or sha512 and lower-case hex digits", e.Digest)
		}
		return e.checkDestinations(known)
	case Delete:
		if e.Digest != "" {
			return fmt.Errorf("digest %q: what was deleted is the previous digest", e.Digest)
		}
		return e.checkDestinations(known)
	case Revoke, Unrevoke:
		if !validDigest(e.Digest) || e.Name != string(e.Digest) {
			return fmt.Errorf("name %q and digest %q: of a revocation, both are the valid digest", e.Name, e.Digest)
		}
		if len(e.Destinations) > 0 {
			return fmt.Errorf("%d destinations: a revocation has none", len(e.Destinations))
		}
		return nil
	default:
		return fmt.Errorf("there is no action %q", e.Action)
	}
}

func (e *Entry) checkDestinations(known bool) error {
	if known {
		return nil
	}
	if len(e.Destinations) == 0 {
		return errors.New("no destinations")
	}
	for i, destination := range e.Destinations {
		if err := checkText("destination", destination); err != nil {
			return err
		}
		if strings.HasSuffix(destination, "/") {
			return fmt.Errorf("destination %q ends in a slash", destination)
		}
		if i > 0 && e.Destinations[i-1] >= destination {
			return fmt.Errorf("destinations %q and %q are not sorted, or not different", e.Destinations[i-1], destination)
		}
	}
	return nil
}

// checkText checks part of a full name.
func checkText(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("no %s", what)
	case s[0] == '/':
		return fmt.Errorf("%s %q begins with a slash", what, s)
	case !utf8.ValidString(s):
		return fmt.Errorf("%s %q is not UTF-8", what, s)
	case hasControl(s):
		return fmt.Errorf("%s %q has a control character", what, s)
	}
	return nil
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// validDigest is Validate of a digest that is sha256 or sha512, without its
// regular expressions.
func validDigest(d digest.Digest) bool {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	size := 64
	if !ok {
		hex, ok = strings.CutPrefix(string(d), "sha512:")
		size = 128
	}
	if !ok || len(hex) != size {
		return false
	}
	for i := range len(hex) {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// sortedSet is a destination set in its one order.
func sortedSet(destinations []string) []string {
	if slices.IsSorted(destinations) {
		return destinations
	}
	return slices.Sorted(slices.Values(destinations))
}

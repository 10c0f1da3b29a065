package filestore

import (
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
)

// conditions are what has to hold for a name to be written (RFC 9110, section
// 13.1), and whether it may then replace other content.
type conditions struct {
	ifMatch, ifNoneMatch []string
	overwrite            bool
}

// check evaluates If-Match and If-None-Match for what a name points to, nil
// for nothing.
func (c *conditions) check(p Path, present *file) error {
	failed := func(format string, args ...any) error {
		e := problemf(http.StatusPreconditionFailed, codePrecondition, format, args...)
		if present != nil {
			e.detail = &digests{Present: present.Digest}
		}
		return e
	}
	if len(c.ifMatch) > 0 {
		if present == nil {
			return failed("If-Match: there is no file %s", p)
		}
		if !anyTag(c.ifMatch) && !hasTag(c.ifMatch, present.Digest) {
			return failed("If-Match: file %s has entity tag %s", p, entityTag(present.Digest))
		}
	}
	if len(c.ifNoneMatch) > 0 && present != nil && (anyTag(c.ifNoneMatch) || hasTag(c.ifNoneMatch, present.Digest)) {
		return failed("If-None-Match: there is a file %s, with entity tag %s", p, entityTag(present.Digest))
	}
	return nil
}

// judgePut says what is to be done with a name that is to point to content.
func (c *conditions) judgePut(p Path, present *file, want digest.Digest) (verdict, *file, error) {
	if err := c.check(p, present); err != nil {
		return 0, nil, err
	}
	switch {
	case present == nil:
		return verdictCreate, nil, nil
	case present.Digest == want:
		return verdictNothing, present, nil
	case c.overwrite || hasTag(c.ifMatch, present.Digest):
		return verdictReplace, present, nil
	}
	e := problemf(http.StatusConflict, codeExists,
		"file %s has digest %s, not %s: to replace it, put it with ?overwrite=1 or with If-Match: %s",
		p, present.Digest, want, entityTag(present.Digest))
	e.detail = &digests{Present: present.Digest, Sent: want}
	return 0, nil, e
}

// anyTag says whether a list of entity tags is "*".
func anyTag(values []string) bool {
	return len(values) == 1 && strings.Trim(values[0], " \t") == "*"
}

// hasTag says whether a list has the entity tag of a digest, strong. A digest
// has no comma, so that one within quotes does not matter.
func hasTag(values []string, d digest.Digest) bool {
	for _, list := range values {
		for tag := range strings.SplitSeq(list, ",") {
			if strings.Trim(tag, " \t") == entityTag(d) {
				return true
			}
		}
	}
	return false
}

package registry

import (
	"net/http"
	"strings"
	"time"
)

// precondition evaluates the conditions of a GET or HEAD in the order of RFC
// 9110, section 13.2.2, for what has the entity tag `"opaque"` and was modified
// at a time, zero when unknown. It returns 0, 304 or 412.
func precondition(h http.Header, opaque string, modified time.Time) int {
	if values := h["If-Match"]; values != nil {
		if !matchesETag(values, opaque, false) {
			return http.StatusPreconditionFailed
		}
	} else if t, ok := httpTime(h["If-Unmodified-Since"]); ok && !modified.IsZero() {
		if modified.Truncate(time.Second).After(t) {
			return http.StatusPreconditionFailed
		}
	}
	if values := h["If-None-Match"]; values != nil {
		if matchesETag(values, opaque, true) {
			return http.StatusNotModified
		}
		return 0
	}
	if t, ok := httpTime(h["If-Modified-Since"]); ok && !modified.IsZero() {
		if !modified.Truncate(time.Second).After(t) {
			return http.StatusNotModified
		}
	}
	return 0
}

// rangeApplies evaluates If-Range (RFC 9110, section 13.1.5): the strong
// entity tag, or the very date that was sent as Last-Modified.
func rangeApplies(h http.Header, opaque string, modified time.Time) bool {
	values := h["If-Range"]
	switch {
	case len(values) == 0:
		return true
	case len(values) > 1:
		return false
	case strings.HasPrefix(values[0], `"`):
		return isETag(values[0], opaque)
	}
	t, ok := httpTime(values)
	return ok && !modified.IsZero() && t.Equal(modified.Truncate(time.Second))
}

// matchesETag says whether one of a list of entity tags is `"opaque"`, or the
// list is "*". Weak tags match only in a weak comparison. There, a tag that
// lacks its quotes matches too: registry clients send bare digests.
func matchesETag(values []string, opaque string, weak bool) bool {
	for _, list := range values {
		if strings.Trim(list, " \t") == "*" {
			return true
		}
		// A comma within quotes is not told from one between tags: no tag of
		// ours has one, and who sends a tag that holds ours means no harm.
		for tag := range strings.SplitSeq(list, ",") {
			tag = strings.Trim(tag, " \t")
			if weak {
				tag = strings.TrimPrefix(tag, "W/")
				if tag == opaque {
					return true
				}
			}
			if isETag(tag, opaque) {
				return true
			}
		}
	}
	return false
}

func isETag(tag, opaque string) bool {
	return len(tag) == len(opaque)+2 && tag[0] == '"' && tag[len(tag)-1] == '"' && tag[1:len(tag)-1] == opaque
}

func httpTime(values []string) (time.Time, bool) {
	if len(values) != 1 {
		return time.Time{}, false
	}
	t, err := http.ParseTime(values[0])
	return t, err == nil
}

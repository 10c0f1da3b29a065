package peers

import (
	"net/http"
	"strings"
)

// cdnID is how nodes call themselves in CDN-Loop (RFC 8586, section 2); the
// parameter id tells them from each other.
const cdnID = "entrepot"

// loopEntry is what the node with an id adds to CDN-Loop.
func loopEntry(id string) string { return cdnID + "; id=" + id }

// loopIDs are the ids of the nodes that a request has passed, the newest last.
func loopIDs(h http.Header) []string {
	var ids []string
	for entry := range strings.SplitSeq(strings.Join(h["Cdn-Loop"], ","), ",") {
		name, params, _ := strings.Cut(entry, ";")
		if !strings.EqualFold(strings.TrimSpace(name), cdnID) {
			continue
		}
		for param := range strings.SplitSeq(params, ";") {
			key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
			if strings.EqualFold(key, "id") {
				ids = append(ids, strings.Trim(value, `"`))
			}
		}
	}
	return ids
}

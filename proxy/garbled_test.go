package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A disk or a bucket gives back anything for a record, and upstream has nothing: it
// is an answer that a client can do something with, or an error.
func TestNoRecordOfAStoreIsAnAnswerThatIsNone(t *testing.T) {
	d := string(digest.FromString("x"))
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	n := startNode(t, t.TempDir(), []string{empty.URL})
	for i, text := range []string{
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + d + `","size":1,"checked":"2026-11-23T12:00:00Z"}`,
		`{"mediaType":"a\r\nb","digest":"` + d + `","size":1,"checked":"9999-11-23T12:00:00Z"}`,
		`{"items":["v1","","../v2"],"checked":"2026-11-23T12:00:00Z"}`,
		`{"items":[{"mediaType":"a","digest":"` + d + `","size":-1,"annotations":{"":""}}],"checked":"2026-11-23T12:00:00Z"}`,
		`{"size":1,"since":"2026-11-23T12:00:00Z"}`, `{`, `[]`, `null`, ``,
	} {
		repo := fmt.Sprint("app", i) // that nothing is remembered of
		in := "/docker.io/" + repo + "/"
		for record, path := range map[string]string{
			tagRecords + in + "v1":    "manifests/v1",
			manifestRecords + in + d:  "manifests/" + d,
			listRecords + in + "tags": "tags/list",
			referrerRecords + in + d:  "referrers/" + d,
			holderRecords + in + d:    "blobs/" + d,
		} {
			if err := n.dir.PutRecord(t.Context(), record, []byte(text)); err != nil {
				t.Fatal(err)
			}
			switch g := n.get(t, "/v2/"+repo+"/"+path); {
			case g.err != nil, g.status != 200 && g.status < 400:
				t.Errorf("%s: %q as its record gives %d, %v", path, text, g.status, g.err)
			case g.status == 200 && !json.Valid(g.body), g.status == 200 && strings.HasPrefix(path, "blobs/"):
				t.Errorf("%s: %q as its record gives %q", path, text, g.body)
			}
			if h := n.head(t, "/v2/"+repo+"/"+path); h.err != nil {
				t.Errorf("HEAD %s: %q as its record gives %v", path, text, h.err)
			}
		}
	}
}

package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"
	"entrepot/registry"

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

// FuzzRecordsOfAStore has anything for the record of a name of each kind.
func FuzzRecordsOfAStore(f *testing.F) {
	d := digest.FromString("x")
	local, err := blobstore.OpenDir(f.TempDir(), blobstore.DirConfig{})
	if err != nil {
		f.Fatal(err)
	}
	defer local.Close()
	memory, err := blobstore.NewMemory(1 << 20)
	if err != nil {
		f.Fatal(err)
	}
	defer memory.Close()
	n, err := New(Config{
		Local: local, Memory: memory, Default: "docker.io",
		Upstreams: []UpstreamConfig{{Config: upstream.Config{Name: "docker.io", Offline: true}}},
		Files:     []FileUpstreamConfig{{Config: upstream.Config{Name: "up", Offline: true}}},
	})
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = n.Close(context.Background()) }()
	images, files := registry.NewHandler(registry.Config{Backend: n}), registry.NewFileHandler(n, registry.Config{})
	for _, text := range []string{
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(d) + `","size":1,"checked":"2026-11-23T12:00:00Z"}`,
		`{"path":"a","digest":"` + string(d) + `","meta":{"header":{"Etag":["\"a\""],"A\r\nB":["c"]},"date":"2026-11-23T12:00:00Z","size":1},"checked":"2026-11-23T12:00:00Z","aged":-1,"fresh":99999999999,"said":true}`,
		`{"items":["v1",""],"checked":"2026-11-23T12:00:00Z"}`, `{"items":[{},null],"checked":"9999-12-31T23:59:59Z"}`, `{"size":-1}`, `null`, ``,
	} {
		f.Add([]byte(text))
	}
	var names atomic.Int64
	f.Fuzz(func(t *testing.T, text []byte) {
		repo := fmt.Sprint("app", names.Add(1)) // that nothing is remembered of
		in := "/docker.io/" + repo + "/"
		for record, path := range map[string]string{
			tagRecords + in + "v1":                                        "/v2/" + repo + "/manifests/v1",
			manifestRecords + in + string(d):                              "/v2/" + repo + "/manifests/" + string(d),
			listRecords + in + "tags":                                     "/v2/" + repo + "/tags/list",
			referrerRecords + in + string(d):                              "/v2/" + repo + "/referrers/" + string(d),
			fileRecordKey(nameKey{up: n.fileUpstreams["up"], repo: repo}): "/up/" + repo,
		} {
			if err := local.PutRecord(t.Context(), record, text); err != nil {
				t.Fatal(err)
			}
			h := http.Handler(images)
			if strings.HasPrefix(path, "/up/") {
				h = files
			}
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
				switch {
				case w.Code != http.StatusOK && w.Code < 400:
					t.Errorf("%s: %q as its record gives %d", path, text, w.Code)
				case w.Code == http.StatusOK && method == http.MethodGet && !json.Valid(w.Body.Bytes()):
					t.Errorf("%s: %q as its record gives %q", path, text, w.Body)
				}
			}
		}
	})
}

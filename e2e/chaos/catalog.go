package main

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// item is something that clients ask for, and what they have to get.
type item struct {
	path   string // at a node
	routed string // at the router; empty where that does not know it
	body   []byte
	name   bool // it is asked for by a name, and not by its digest
}

// catalog is what there is by now.
type catalog struct {
	mu     sync.Mutex
	listed []item
	known  map[string]bool
}

func (c *catalog) add(items ...item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[string]bool{}
	}
	for _, i := range items {
		if !c.known[i.path] {
			c.known[i.path] = true
			c.listed = append(c.listed, i)
		}
	}
}

func (c *catalog) items() []item {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.listed)
}

func (c *catalog) pick(random *rand.Rand) item {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listed[random.IntN(len(c.listed))]
}

// acceptAll is the types of manifests that clients take.
var acceptAll = strings.Join([]string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest}, ", ")

// imageItems are the names and contents of an image at the registry it was pushed
// to, as nodes have them for an upstream.
func (w *world) imageItems(from, upstream string, a testenv.Artifact) []item {
	w.t.Helper()
	repository := "/v2/" + a.Repository
	entry := func(path string, d digest.Digest, name bool) item {
		i := item{path: "/v2/" + upstream + strings.TrimPrefix(path, "/v2"), body: w.pushed(from+path, d), name: name}
		if upstream == testenv.WorldImages {
			i.routed = path
		}
		return i
	}
	items := []item{entry(repository+"/manifests/"+a.Tag, a.Root.Digest, true)}
	for _, d := range a.Manifests {
		items = append(items, entry(repository+"/manifests/"+string(d), d, false))
	}
	for _, b := range a.Blobs {
		items = append(items, entry(repository+"/blobs/"+string(b.Digest), b.Digest, false))
	}
	return items
}

func fileItem(name, content string) item {
	path := "/release/" + name
	return item{path: "/" + testenv.WorldFiles + path, routed: path, body: []byte(content), name: true}
}

// pushed is what was pushed, from where no fault is.
func (w *world) pushed(url string, want digest.Digest) []byte {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", acceptAll)
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatalf("reading what was pushed: %v", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || digest.FromBytes(body) != want {
		w.t.Fatalf("%s: %s, %d bytes that are not %s, %v", url, response.Status, len(body), want, err)
	}
	return body
}

// prepare pushes what is pulled and promoted later: the first release, which is
// promoted before anything fails, and one more for each promotion of the plan.
func (w *world) prepare(promotions int) {
	w.t.Helper()
	staging := w.Staging.Host()
	var release testenv.Release
	for i := range 4 {
		name := fmt.Sprintf("library/app%d", i)
		release.Images = append(release.Images, testenv.PushIndex(w.t, staging, name, "1.0"))
	}
	release.Images = append(release.Images, testenv.PushBigImage(w.t, staging, "library/big", "1.0", 12<<20))
	release.Files = map[string]string{"v1.0.0/bin/tool": strings.Repeat("a tool of some size\n", 1<<17), "v1.0.0/README": "read me\n"}
	w.releases = append(w.releases, release)
	for i := range promotions {
		next := testenv.Release{Images: slices.Clone(release.Images), Files: map[string]string{}}
		maps.Copy(next.Files, release.Files)
		version := fmt.Sprintf("v1.0.%d", i+1)
		next.Images = append(next.Images, testenv.PushFile(w.t, staging, "library/tool", version, 300_000))
		next.Files[version+"/bin/tool"] = strings.Repeat("the tool of "+version+"\n", 1<<14)
		w.releases = append(w.releases, next)
		release = next
	}
	w.Promote(w.releases[0])
	w.next = 1
	var all []item
	for n := range w.releases {
		all = append(all, w.releaseItems(n)...)
	}
	w.liar.stock(w.Staging.URL(), all)
	w.catalog.add(w.releaseItems(0)...)
	plain := testenv.PushIndex(w.t, w.registry.Host(), "plain/app", "1.0")
	w.catalog.add(w.imageItems(w.registry.URL(), registryName, plain)...)
}

// releaseItems are what a release added to the one before.
func (w *world) releaseItems(n int) []item {
	release, known := w.releases[n], testenv.Release{}
	if n > 0 {
		known = w.releases[n-1]
	}
	var items []item
	for _, a := range release.Images[len(known.Images):] {
		items = append(items, w.imageItems(w.Staging.URL(), testenv.WorldImages, a)...)
	}
	for name, content := range release.Files {
		if _, ok := known.Files[name]; !ok {
			items = append(items, fileItem(name, content))
		}
	}
	slices.SortFunc(items, func(a, b item) int { return strings.Compare(a.path, b.path) })
	return items
}

// hex is the digest of the item's content, without its algorithm.
func (i item) hex() string { return digest.FromBytes(i.body).Encoded() }

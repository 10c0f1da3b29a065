package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// aRelease is a release as Kubernetes has them: programs for several systems, each
// with its checksums and signature, a pointer, and images.
func aRelease(t *testing.T, staging, version string, programs, images int) testenv.Release {
	t.Helper()
	r := testenv.Release{Files: map[string]string{"stable.txt": version + "\n", "stable-1.txt": version + "\n"}}
	systems := []string{"linux/amd64", "linux/arm64", "darwin/arm64", "windows/amd64", "linux/s390x"}
	for i := range programs {
		name := fmt.Sprintf("%s/bin/%s/program-%02d", version, systems[i%len(systems)], i/len(systems))
		content := strings.Repeat(name+"\n", 400*(i+1))
		r.Files[name] = content
		r.Files[name+".sha256"] = digest.FromString(content).Encoded()
		r.Files[name+".sha512"] = digest.SHA512.FromString(content).Encoded()
		r.Files[name+".sig"] = "a signature of " + name
	}
	for i := range images {
		r.Images = append(r.Images, testenv.PushFile(t, staging, fmt.Sprintf("release/image-%02d", i), version, 32<<10))
	}
	return r
}

// and is two releases, of which the later says what names of both are.
func and(a, b testenv.Release) testenv.Release {
	all := testenv.Release{Images: append(append([]testenv.Artifact{}, a.Images...), b.Images...), Files: map[string]string{}}
	for _, r := range []testenv.Release{a, b} {
		maps.Copy(all.Files, r.Files)
	}
	return all
}

func TestAWholeReleaseThroughTheOneName(t *testing.T) {
	w := testenv.StartWorld(t, testenv.WorldConfig{Here: "eu"})
	router := w.Router.URL()
	former := aRelease(t, w.Staging.Host(), "v1.0.0", 2, 1)
	w.Promote(former)
	recorded := w.Recorded()
	release := aRelease(t, w.Staging.Host(), "v1.1.0", 50, 40)
	w.Promote(and(former, release))
	eventually(t, router+"/release/stable.txt", http.StatusOK, "v1.1.0\n")
	for _, base := range []string{router + "/release/", w.Regions[1].Node.URL() + "/" + testenv.WorldFiles + "/release/"} {
		for name := range release.Files { // entries reach who follows the ledger in several steps
			if file, ok := strings.CutPrefix(name, "v1.1.0/"); ok {
				eventually(t, base+"v1.1.0/SHA256SUMS?recursive=1", http.StatusOK, "  "+file+"\n")
			}
		}
	}

	t.Run("listed alike by router, node and origin", func(t *testing.T) {
		bases := map[string]string{
			"router": router + "/release/", "origin": w.Origin.URL() + "/release/",
			"node": w.Regions[1].Node.URL() + "/" + testenv.WorldFiles + "/release/",
		}
		for _, folder := range []string{"", "v1.1.0/", "v1.1.0/bin/linux/amd64/"} {
			var first string
			for who, base := range bases {
				page := entriesOf(t, base+folder)
				if first == "" {
					first = page
				}
				if page != first || len(page) < 10 {
					t.Errorf("%s of %s is\n%s\nelsewhere\n%s", folder, who, page, first)
				}
			}
		}
	})
	t.Run("downloaded and checked with sha256sum", func(t *testing.T) {
		dir := t.TempDir()
		sums := fetchFile(t, router+"/release/v1.1.0/SHA256SUMS?recursive=1").body
		writeFile(t, filepath.Join(dir, "SHA256SUMS"), sums)
		var urls strings.Builder
		for line := range strings.Lines(sums) {
			name := strings.TrimSpace(line[66:])
			fmt.Fprintf(&urls, "url = %q\noutput = %q\n", router+"/release/v1.1.0/"+name, name)
		}
		if n := strings.Count(sums, "\n"); n != 200 {
			t.Fatalf("SHA256SUMS has %d lines, want 200", n)
		}
		writeFile(t, filepath.Join(dir, "urls"), urls.String())
		runClient(t, dir, testenv.Debian(t, "curl", "curl"), "-fsSL", "--parallel", "--create-dirs", "-K", "urls")
		said := runClient(t, dir, "sha256sum", "-c", "SHA256SUMS")
		if n := strings.Count(said, ": OK\n"); n != 200 {
			t.Errorf("sha256sum says %s", said)
		}
		program := "bin/linux/amd64/program-00"
		sum, err := os.ReadFile(filepath.Join(dir, program+".sha256"))
		if err != nil || !strings.Contains(sums, string(sum)) {
			t.Errorf("the sidecar says %s, %v", sum, err)
		}
	})
	t.Run("every image is there", func(t *testing.T) {
		for _, a := range release.Images {
			eventually(t, router+"/v2/"+a.Repository+"/manifests/"+a.Tag, http.StatusOK, string(a.Blobs[0].Digest))
		}
		puller{"crane", testenv.Crane{}, release.Images[:3]}.pull(t, w.Router.Source(testenv.WorldImages))
	})
	t.Run("shown by a browser, every link of which leads somewhere", func(t *testing.T) { pagesInABrowser(t, w) })
	t.Run("rolled back", func(t *testing.T) {
		w.Rollback(recorded)
		eventually(t, router+"/release/stable.txt", http.StatusOK, "v1.0.0\n")
		eventually(t, router+"/release/v1.1.0/bin/linux/amd64/program-00", http.StatusNotFound, "")
		eventually(t, router+"/v2/release/image-00/manifests/v1.1.0", http.StatusNotFound, "")
		eventually(t, router+"/release/v1.0.0/bin/linux/amd64/program-00", http.StatusOK, "program-00\n")
		var page string
		for start := time.Now(); time.Since(start) < visible; time.Sleep(20 * time.Millisecond) {
			if page = entriesOf(t, router+"/release/"); !strings.Contains(page, "v1.1.0") && strings.Contains(page, "v1.0.0/") {
				return
			}
		}
		t.Errorf("the folder is\n%s", page)
	})
}

// entriesOf is the entries of a folder: all that its pages in JSON say of them.
func entriesOf(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"?n=1000", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var page struct {
		Entries []map[string]any `json:"entries"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		t.Fatalf("%s: %s, %v\n%s", url, response.Status, err, body)
	}
	for _, e := range page.Entries {
		delete(e, "modified") // the origin's own time, or the ledger's
		delete(e, "contentType")
	}
	text, err := json.MarshalIndent(page.Entries, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

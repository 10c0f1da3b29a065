package e2e

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// The official suite in its read-only mode: the data lies upstream, and the
// node is asked for all of it. Only what a node does not do is switched off:
// pushing and deleting.
func TestConformanceReadOnly(t *testing.T) {
	const name = "conformance/repo1"
	registry := testenv.StartRegistry(t)
	host := registry.Host()
	image := testenv.PushIndex(t, host, name, "image")
	file := testenv.PushFile(t, host, name, "file", 64<<10)
	// The suite's listing test needs several tags, and pages through them.
	referrers := testenv.PushReferrers(t, host, file)
	signature := testenv.PushCosignSignature(t, host, image)

	var tags, manifests, blobs []string
	for _, a := range append([]testenv.Artifact{image, file, signature}, referrers...) {
		tags = append(tags, a.Tag)
		for _, manifest := range a.Manifests {
			manifests = append(manifests, manifest.String())
		}
		for _, blob := range a.Blobs {
			blobs = append(blobs, blob.Digest.String())
		}
	}
	tags, manifests, blobs = unique(tags), unique(manifests), unique(blobs)
	node := startNode(t, registry.URL(), testenv.NodeConfig{})

	cmd := exec.CommandContext(t.Context(), testenv.Tool(t, "conformance"))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(),
		"OCI_REGISTRY="+node.Address(), "OCI_TLS=disabled", "OCI_REPO1="+name, "OCI_VERSION=1.1",
		"OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false", "OCI_API_TAGS_DELETE=false",
		"OCI_RO_DATA_TAGS="+strings.Join(tags, " "),
		"OCI_RO_DATA_MANIFESTS="+strings.Join(manifests, " "),
		"OCI_RO_DATA_BLOBS="+strings.Join(blobs, " "),
		"OCI_RO_DATA_REFERRERS="+file.Root.Digest.String()+" "+image.Root.Digest.String(),
	)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// The status says nothing in this mode: the suite prints its results, and
	// then panics as it writes a report of the tests that were switched off.
	runErr := cmd.Run()

	results := conformanceResults(t, output.Bytes())
	wantPasses := map[string]int{
		"ping":                                   1,
		"empty/tag list":                         1,
		"empty/referrers":                        1,
		"read-only/tag-list":                     1,
		"read-only/head/manifest-head-by-tag":    len(tags),
		"read-only/head/manifest-head-by-digest": len(manifests),
		"read-only/head/blob-head":               len(blobs),
		"read-only/pull/manifest-by-tag":         len(tags),
		"read-only/pull/manifest-by-digest":      len(manifests),
		"read-only/pull/blob-get":                len(blobs),
		"read-only/referrers":                    1,
		"missing-manifest/by-digest":             1,
		"missing-manifest/by-tag":                1,
		"invalid-digest-format/manifest-get":     1,
	}
	for test, want := range wantPasses {
		if got := results[test]; len(got) != 1 || got["Pass"] != want {
			t.Errorf("%s: %v, want Pass %d times and nothing else", test, got, want)
		}
	}
	for test, statuses := range results {
		if statuses["FAIL"]+statuses["Error"] > 0 {
			t.Errorf("%s: %v", test, statuses)
		}
	}
	if t.Failed() {
		t.Logf("the suite ended with %v and said:\n%s", runErr, &output)
	}
}

var conformanceLine = regexp.MustCompile(`^ *OCI Conformance Test/(.+): (Pass|Skip|Disabled|FAIL|Error|Unknown)$`)

// conformanceResults counts the statuses of each test in the suite's output.
func conformanceResults(t *testing.T, output []byte) map[string]map[string]int {
	t.Helper()
	results := map[string]map[string]int{}
	lines := bufio.NewScanner(bytes.NewReader(output))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		match := conformanceLine.FindStringSubmatch(lines.Text())
		if match == nil {
			continue
		}
		if results[match[1]] == nil {
			results[match[1]] = map[string]int{}
		}
		results[match[1]][match[2]]++
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("reading the suite's results: %v", err)
	}
	return results
}

// unique sorts a list and removes what is there twice.
func unique(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

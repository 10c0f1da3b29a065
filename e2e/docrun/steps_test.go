package docrun

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStepsAreScriptsAndNamedFilesInTheirOrder(t *testing.T) {
	page := "# A page\n\n```sh\necho 1\n```\n\nWrite:\n\n```yaml\n# conf/a.yaml\nb: 1\n```\n\n```yaml\nnot: named\n```\n" +
		"\n<!-- not run: needs a cluster -->\n```sh\nkubectl apply\n```\n1. In a list:\n   ```sh\n   echo 2\n   ```\n```mermaid\nx\n```\n" +
		"<!-- given: a production -->\n<!-- run: entrepot serve -->\n```json\n// /etc/docker/daemon.json\n{}\n```\n<!-- answer: y -->\n```sh\nentrepot mirror init\n```\n"
	got, err := Steps(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []Step{
		{Line: 3, Text: "echo 1\n"},
		{Line: 9, File: "conf/a.yaml", Text: "# conf/a.yaml\nb: 1\n"},
		{Line: 19, Text: "kubectl apply\n", Apart: "needs a cluster"},
		{Line: 23, Text: "echo 2\n"},
		{Line: 29, Given: "a production"},
		{Line: 30, Text: "entrepot serve\n"},
		{Line: 31, File: "/etc/docker/daemon.json", Text: "{}\n"},
		{Line: 36, Text: "entrepot mirror init\n", Answer: "y"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if _, err := Steps("```sh\necho\n"); err == nil {
		t.Error("a block without an end is taken")
	}
}

func TestServersAreTold(t *testing.T) {
	for line, want := range map[string]bool{
		"entrepot serve": true, "entrepot serve --config a.yaml   # a node": true, "A=b entrepot serve": true,
		"minio server /data": true, "entrepot config check a.yaml": false, "echo entrepot serve": false, "entrepot": false, "": false,
	} {
		if got := Server(line); got != want {
			t.Errorf("Server(%q) is %v", line, got)
		}
	}
}

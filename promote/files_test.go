package promote_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"entrepot/promote"

	"github.com/opencontainers/go-digest"
)

// fileWorld promotes files from a directory to two others.
type fileWorld struct {
	*world
	staging, first, second string
}

func newFileWorld(t *testing.T) *fileWorld {
	dir := t.TempDir()
	return &fileWorld{newWorld(t), filepath.Join(dir, "staging"), filepath.Join(dir, "first"), filepath.Join(dir, "second")}
}

// stage writes files into staging, and lists them.
func (w *fileWorld) stage(contents map[string]string) {
	w.t.Helper()
	for name, content := range contents {
		write(w.t, filepath.Join(w.staging, name), content)
	}
	w.list(contents)
}

func (w *fileWorld) list(contents map[string]string, more ...string) {
	w.t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "filestores:\n- base: file://%s\n  src: true\n- base: file://%s\n- base: file://%s\n%sfiles:\n", w.staging, w.first, w.second, w.extra)
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		fmt.Fprintf(&text, "- name: %s\n  sha256: %s\n", name, digest.FromString(contents[name]).Encoded())
	}
	write(w.t, w.file, text.String()+strings.Join(more, ""))
}

// has checks what both destinations have under a name; "" is nothing.
func (w *fileWorld) has(name, content string) {
	w.t.Helper()
	for _, dir := range []string{w.first, w.second} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if content == "" && !os.IsNotExist(err) || content != "" && string(got) != content {
			w.t.Errorf("%s has %q, %v in %s, want %q", dir, got, err, name, content)
		}
	}
}

func TestFilesArePromotedToEachDestinationOnce(t *testing.T) {
	w := newFileWorld(t)
	w.stage(map[string]string{"v1/tool": "a tool", "v1/README": "read me"})
	expect(t, w.promoted().Done, "create v1/tool", "create v1/README")
	w.has("v1/tool", "a tool")
	w.has("v1/README", "read me")
	expect(t, w.plan().Items)
	if got, want := w.wrote(0), []string{"set v1/README", "set v1/tool"}; !slices.Equal(got, want) {
		t.Errorf("the ledger says %q, want %q", got, want)
	}
	for e := range w.open().State().Entries(0) {
		if e.Size == 0 || len(e.Destinations) != 2 {
			t.Errorf("the ledger has %s with %d bytes at %q", e.Name, e.Size, e.Destinations)
		}
	}
	w.agree()
}

func TestAFileThatIsThereIsAdoptedByItsHashAndNotItsSize(t *testing.T) {
	w := newFileWorld(t)
	write(t, filepath.Join(w.first, "v1/tool"), "a tool")
	write(t, filepath.Join(w.second, "v1/tool"), "b tool") // as long
	w.stage(map[string]string{"v1/tool": "a tool"})
	plan := w.plan()
	expect(t, plan.Items, "adopt v1/tool", "move v1/tool (conflict)")
	w.apply(plan)
	if got, err := os.ReadFile(filepath.Join(w.second, "v1/tool")); err != nil || string(got) != "b tool" {
		t.Errorf("the other file is %q, %v", got, err)
	}
}

func TestAFileMovesOnlyWhereTheConfigurationLetsIt(t *testing.T) {
	w := newFileWorld(t)
	w.extra = "mutable_tags: [\"stable.txt\"]\n"
	w.stage(map[string]string{"v1/tool": "a tool", "stable.txt": "v1"})
	w.promoted()
	w.stage(map[string]string{"v1/tool": "another", "stable.txt": "v2"})
	plan := w.plan()
	expect(t, plan.Items, "move v1/tool (conflict)", "move stable.txt")
	expect(t, w.apply(plan).Done, "move stable.txt")
	w.has("v1/tool", "a tool")
	w.has("stable.txt", "v2")
	w.agree()
}

func TestAFileThatIsTakenAfterThePlanIsNotOverwritten(t *testing.T) {
	w := newFileWorld(t)
	w.stage(map[string]string{"v1/tool": "a tool"})
	plan := w.plan()
	for _, dir := range []string{w.first, w.second} {
		write(t, filepath.Join(dir, "v1/tool"), "somebody's")
	}
	expect(t, w.apply(plan).Failed, "create v1/tool (conflict)")
	w.has("v1/tool", "somebody's")
}

func TestAFileThatChangedInStagingAfterReviewIsNotPromoted(t *testing.T) {
	w := newFileWorld(t)
	w.stage(map[string]string{"v1/tool": "a tool", "v1/README": "read me"})
	write(t, filepath.Join(w.staging, "v1/tool"), "evil!!") // as long
	report := w.apply(w.plan())
	expect(t, report.Done, "create v1/README")
	expect(t, report.Failed, "create v1/tool (failed)")
	w.has("v1/tool", "")
	w.agree()
}

func TestAFileThatStagingHasNotIsLostAndStopsNoOther(t *testing.T) {
	w := newFileWorld(t)
	w.stage(map[string]string{"v1/tool": "a tool"})
	w.list(map[string]string{"v1/tool": "a tool", "v1/none": "nobody has it"})
	plan := w.plan()
	expect(t, plan.Items, "create v1/tool", "create v1/none (lost)")
	expect(t, w.apply(plan).Done, "create v1/tool")
	w.agree()
}

func TestFilesAreRemovedAndPruned(t *testing.T) {
	w := newFileWorld(t)
	w.stage(map[string]string{"v1/tool": "a tool", "v2/tool": "a newer tool", "v3/tool": "the newest"})
	w.promoted()
	write(t, filepath.Join(w.first, "foreign"), "somebody's")
	w.list(map[string]string{"v2/tool": "a newer tool", "v3/tool": "the newest"}, "- removed: v1/tool\n  reason: wrong\n")
	expect(t, w.promoted().Done, "delete v1/tool")
	w.has("v1/tool", "")
	w.extra = "prune: true\n"
	w.list(map[string]string{"v3/tool": "the newest"}, "- removed: v1/tool\n  reason: wrong\n")
	expect(t, w.promoted().Done, "delete v2/tool")
	w.has("v2/tool", "")
	w.has("v3/tool", "the newest")
	expect(t, w.plan().Items)
	if _, err := os.Stat(filepath.Join(w.first, "foreign")); err != nil {
		t.Error(err)
	}
}

func TestAnAuditOfFilesNamesEachDifference(t *testing.T) {
	w := newFileWorld(t)
	w.stage(map[string]string{"v1/tool": "a tool", "v2/tool": "a newer tool", "v3/tool": "the newest"})
	w.promoted()
	if got := w.audit(true, w.tree()); len(got) != 0 {
		t.Fatalf("found %q before anything was done", got)
	}
	write(t, filepath.Join(w.first, "foreign"), "somebody's")
	write(t, filepath.Join(w.first, "v1/tool"), "b tool")
	if err := os.Remove(filepath.Join(w.second, "v2/tool")); err != nil {
		t.Fatal(err)
	}
	if got, want := w.audit(true, nil), []string{"added foreign", "missing v2/tool", "moved v1/tool"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestARollbackOfFilesWhoseContentIsGoneSaysSo(t *testing.T) {
	w := newFileWorld(t)
	w.extra = "mutable_tags: [\"stable.txt\"]\n"
	w.stage(map[string]string{"stable.txt": "v1"})
	w.promoted()
	w.stage(map[string]string{"stable.txt": "v2", "v2/tool": "a newer tool"})
	w.promoted()
	plan := w.rollback("", to(0))
	expect(t, plan.Items, "move stable.txt (lost)", "delete v2/tool")
	expect(t, w.apply(plan).Done, "delete v2/tool")
	w.has("stable.txt", "v2")
	w.has("v2/tool", "")
}

// An older plan must not undo what a newer one did to a file.
func TestAnOlderPlanOfAFileChangesNothingThatANewerOneHasChanged(t *testing.T) {
	w := newFileWorld(t)
	w.extra = "mutable_tags: [\"stable.txt\"]\n"
	w.stage(map[string]string{"stable.txt": "v1"})
	w.promoted()
	w.stage(map[string]string{"stable.txt": "v2"})
	older := w.plan()
	w.stage(map[string]string{"stable.txt": "v3"})
	w.promoted()
	report := w.apply(older)
	if len(report.Failed) != 1 || report.Failed[0].Action != promote.Move {
		t.Errorf("done %q, failed %q", told(report.Done...), told(report.Failed...))
	}
	w.has("stable.txt", "v3")
	w.agree()
}

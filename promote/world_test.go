package promote_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
)

// world is what a promotion happens in: staging, one production or two, a
// ledger, and a configuration.
type world struct {
	t              testing.TB
	staging, prod  *server
	other          *server // a second destination; nil is none
	ledgerDir, key string
	file           string // a plain file of images
	extra          string // keys of that file, as lines
	maxDeletes     int
	clock          func() time.Time // of the ledger; nil is the real one
}

func newWorld(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	w := &world{
		t: t, staging: newServer(t), prod: newServer(t), maxDeletes: 20,
		ledgerDir: filepath.Join(dir, "ledger"), key: filepath.Join(dir, "key"), file: filepath.Join(dir, "app.yaml"),
	}
	if err := ledger.GenerateKey("production.test/ledger", w.key); err != nil {
		t.Fatal(err)
	}
	return w
}

// push makes an image of one small layer in staging, below its name there.
func (w *world) push(image, version string) digest.Digest {
	w.t.Helper()
	return testenv.PushFile(w.t, w.staging.host, "staging/"+image, version, 1<<10).Root.Digest
}

// images are the tags of digests by image.
type images map[string]map[digest.Digest][]string

// list writes the configuration; more are items of its list.
func (w *world) list(list images, more ...string) {
	w.t.Helper()
	var text strings.Builder
	fmt.Fprintf(&text, "registries:\n- name: %s/staging\n  src: true\n- name: %s/app\n", w.staging.host, w.prod.host)
	if w.other != nil {
		fmt.Fprintf(&text, "- name: %s/app\n", w.other.host)
	}
	text.WriteString(w.extra + "images:\n")
	for _, name := range slices.Sorted(maps.Keys(list)) {
		fmt.Fprintf(&text, "- name: %s\n  dmap:\n", name)
		for _, d := range slices.Sorted(maps.Keys(list[name])) {
			quoted := []string{}
			for _, tag := range list[name][d] {
				quoted = append(quoted, fmt.Sprintf("%q", tag))
			}
			fmt.Fprintf(&text, "    %q: [%s]\n", d, strings.Join(quoted, ", "))
		}
	}
	for _, item := range more {
		text.WriteString(item)
	}
	write(w.t, w.file, text.String())
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// client is that of a new run; it gives up soon, and waits little before.
func (w *world) client(change ...func(*transfer.Config)) *transfer.Client {
	w.t.Helper()
	cfg := transfer.Config{
		DockerConfig: filepath.Join(w.t.TempDir(), "none.json"), FirstBackoff: time.Millisecond, Attempts: 3,
		Getenv: func(string) string { return "" },
	}
	for _, c := range change {
		c(&cfg)
	}
	client, err := transfer.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := client.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return client
}

// open opens the ledger, as a new run does.
func (w *world) open() *ledger.Log {
	w.t.Helper()
	key, err := ledger.LoadKey(w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := ledger.New(w.t.Context(), ledger.NewDir(w.ledgerDir), ledger.Config{Key: key, Now: w.clock})
	if err != nil {
		w.t.Fatal(err)
	}
	return log
}

func (w *world) tree() *config.Tree {
	w.t.Helper()
	tree, err := config.Read([]string{w.file}, config.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	return tree
}

// plan is what a new run plans.
func (w *world) plan() *promote.Plan {
	w.t.Helper()
	planner := promote.Planner{Client: w.client(), MaxDeletes: w.maxDeletes}
	plan, err := planner.Plan(w.t.Context(), w.tree(), w.open().State())
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

// apply has a new run carry a plan out.
func (w *world) apply(plan *promote.Plan) *promote.Report {
	w.t.Helper()
	report, err := w.try(w.t.Context(), plan)
	if err != nil {
		w.t.Fatal(err)
	}
	return report
}

func (w *world) try(ctx context.Context, plan *promote.Plan) (*promote.Report, error) {
	w.t.Helper()
	return (&promote.Applier{Client: w.client(), Ledger: w.open(), Revision: "r1"}).Apply(ctx, plan)
}

// promoted plans and applies, and fails the test when not all of it can be.
func (w *world) promoted() *promote.Report {
	w.t.Helper()
	report := w.apply(w.plan())
	if !report.Sound() {
		w.t.Fatalf("failed %v, blocked %v", told(report.Failed...), told(report.Blocked...))
	}
	return report
}

// told says what items are: "create tool:v1", "move tool:v1 (conflict)".
func told(items ...*promote.Item) []string {
	list := []string{}
	for _, i := range items {
		text := string(i.Action) + " " + i.Name
		if i.Obstacle != "" {
			text += " (" + string(i.Obstacle) + ")"
		}
		list = append(list, text)
	}
	slices.Sort(list)
	return list
}

// expect compares items with what told would say of them.
func expect(t testing.TB, items []*promote.Item, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := told(items...); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
		for _, i := range items {
			if i.Detail != "" {
				t.Logf("%s: %s", i.Name, i.Detail)
			}
		}
	}
}

// wrote says what the ledger's entries are from a sequence on:
// "set tool:v1".
func (w *world) wrote(from uint64) []string {
	w.t.Helper()
	list := []string{}
	for e := range w.open().State().Entries(from) {
		list = append(list, string(e.Action)+" "+e.Name)
	}
	slices.Sort(list)
	return list
}

// size is how many entries the ledger has.
func (w *world) size() uint64 { return w.open().State().Len() }

// agree checks that the ledger is whole and that production is what it says.
func (w *world) agree() {
	w.t.Helper()
	log := w.open()
	key, err := ledger.LoadKey(w.key + ".pub")
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := ledger.Verify(w.t.Context(), ledger.NewDir(w.ledgerDir), ledger.Config{Key: key}); err != nil {
		w.t.Error(err)
	}
	found, err := (&promote.Auditor{Client: w.client(), Deep: true}).Audit(w.t.Context(), log.State(), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range found {
		w.t.Errorf("%s %s/%s: want %s, have %s: %s", f.Difference, f.Destination, f.Name, f.Want, f.Have, f.Detail)
	}
}

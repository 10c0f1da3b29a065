package promote_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// rollback is what a new run plans to go back to a state.
func (w *world) rollback(project string, then func(*ledger.State) *ledger.State) *promote.Plan {
	w.t.Helper()
	now := w.open().State()
	planner := promote.Planner{Client: w.client(), MaxDeletes: w.maxDeletes}
	plan, err := planner.Rollback(w.t.Context(), now, then(now), project, "it broke")
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

func to(sequence uint64) func(*ledger.State) *ledger.State {
	return func(s *ledger.State) *ledger.State { return s.AsOf(sequence) }
}

// rolledWorld has a history: v1 and stable, then v2 and stable moved to it,
// then v1 removed. Each is an hour after the other.
func rolledWorld(t *testing.T) (w *world, a, b digest.Digest, start time.Time) {
	w = newWorld(t)
	w.extra = "mutable_tags: [\"stable\"]\n"
	start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	now := start
	w.clock = func() time.Time { return now }
	a, b = w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1", "stable"}}})
	w.promoted()
	now = now.Add(time.Hour)
	w.list(images{"tool": {a: {"v1"}, b: {"v2", "stable"}}})
	w.promoted()
	now = now.Add(time.Hour)
	w.list(images{"tool": {b: {"v2", "stable"}}}, "- removed: tool:v1\n  reason: wrong\n")
	w.promoted()
	now = now.Add(time.Hour)
	return w, a, b, start
}

func TestARollbackGivesNamesBackWhatTheyWere(t *testing.T) {
	for name, then := range map[string]func(start time.Time) func(*ledger.State) *ledger.State{
		"by sequence": func(time.Time) func(*ledger.State) *ledger.State { return to(1) },
		"by time": func(start time.Time) func(*ledger.State) *ledger.State {
			return func(s *ledger.State) *ledger.State { return s.AsOfTime(start.Add(59 * time.Minute)) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, a, _, start := rolledWorld(t)
			// Staging does not have it any more, and is not asked.
			w.staging.misbehave(failing)
			plan := w.rollback("", then(start))
			expect(t, plan.Items, "create tool:v1", "move tool:stable", "delete tool:v2")
			expect(t, w.apply(plan).Done, "create tool:v1", "move tool:stable", "delete tool:v2")
			if got := w.prod.tags(t, "app/tool"); !slices.Equal(got, []string{"stable", "v1"}) || w.prod.has("app/tool", "stable") != a || w.prod.has("app/tool", "v1") != a {
				t.Errorf("there are %q, stable is %s", got, w.prod.has("app/tool", "stable"))
			}
			for e := range w.open().State().Entries(5) {
				if e.Reason != "it broke" {
					t.Errorf("the ledger says %s %s because %q", e.Action, e.Name, e.Reason)
				}
			}
			w.agree()
			expect(t, w.rollback("", then(start)).Items)
		})
	}
}

func TestARollbackIsRolledBackItself(t *testing.T) {
	w, _, b, _ := rolledWorld(t)
	before := w.size() - 1
	w.apply(w.rollback("", to(1)))
	expect(t, w.apply(w.rollback("", to(before))).Done, "delete tool:v1", "move tool:stable", "create tool:v2")
	if w.prod.has("app/tool", "stable") != b || w.prod.has("app/tool", "v2") != b || w.prod.has("app/tool", "v1") != "" {
		t.Error("production is not as it was before the first rollback")
	}
	expect(t, w.plan().Items) // it is what the configuration says
	w.agree()
}

func TestARollbackOfOneProjectLeavesTheOthers(t *testing.T) {
	w := newWorld(t)
	w.extra = "mutable_tags: [\"*\"]\n"
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	c, d := w.push("else", "rc1"), w.push("else", "rc2")
	second := *w
	second.file = strings.Replace(w.file, "app.yaml", "second.yaml", 1)
	w.list(images{"tool": {a: {"v1"}}})
	w.promoted()
	second.list(images{"else": {c: {"v1"}}})
	second.promoted()
	w.list(images{"tool": {b: {"v1"}}})
	w.promoted()
	second.list(images{"else": {d: {"v1"}}})
	second.promoted()
	expect(t, w.apply(w.rollback("second", to(1))).Done, "move else:v1")
	if w.prod.has("app/tool", "v1") != b || w.prod.has("app/else", "v1") != c {
		t.Error("the other project was rolled back, or its own was not")
	}
	w.agree()
}

func TestARollbackDeletesNoMoreThanItMay(t *testing.T) {
	w, _, _, _ := rolledWorld(t)
	w.maxDeletes = 0
	plan := w.rollback("", to(1))
	expect(t, plan.Items, "create tool:v1", "move tool:stable", "delete tool:v2 (withheld)")
	w.apply(plan)
	if w.prod.has("app/tool", "v2") == "" {
		t.Error("v2 was deleted")
	}
}

func TestARollbackToContentThatIsGoneIsLostAndStopsNoOther(t *testing.T) {
	w, a, _, _ := rolledWorld(t)
	w.prod.lose(t, "app/tool/manifests/"+string(a))
	plan := w.rollback("", to(1))
	expect(t, plan.Items, "create tool:v1 (lost)", "move tool:stable (lost)", "delete tool:v2")
	expect(t, w.apply(plan).Done, "delete tool:v2")
}

func TestARollbackNeverDeletesWhatPromotionOnlyAdopted(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1"}}})
	w.promoted()
	w.ledgerDir += "-new"
	w.list(images{"else": {w.push("else", "rc1"): {"v1"}}})
	w.promoted()
	w.list(images{"tool": {a: {"v1"}, b: {"v2"}}})
	expect(t, w.promoted().Done, "adopt tool:v1", "create tool:v2")
	plan := w.rollback("", to(0))
	expect(t, plan.Items, "delete tool:v2", "delete tool:v1 (withheld)")
	expect(t, w.apply(plan).Done, "delete tool:v2")
	if w.prod.has("app/tool", "v1") != a {
		t.Error("a name that was there before promotion is gone")
	}
	w.agree()
}

func TestARollbackKeepsWhatIsRevokedRevoked(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1"}}})
	w.promoted()
	w.list(images{"tool": {a: {"v1"}}}, fmt.Sprintf("- revoked: %q\n  reason: leaks a key\n", b))
	w.promoted()
	expect(t, w.rollback("", to(0)).Items)
	if _, is := w.open().State().Revoked(b); !is {
		t.Error("it is not revoked any more")
	}
}

// audit is what a new run finds.
func (w *world) audit(deep bool, tree *config.Tree) []string {
	w.t.Helper()
	auditor := promote.Auditor{Client: w.client(), Deep: deep}
	found, err := auditor.Audit(w.t.Context(), w.open().State(), tree)
	if err != nil {
		w.t.Fatal(err)
	}
	list := []string{}
	for _, f := range found {
		list = append(list, string(f.Difference)+" "+f.Name)
	}
	slices.Sort(list)
	return list
}

func TestAnAuditNamesWhatWasDoneBehindPromotionsBack(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	c, gone := w.push("else", "rc1"), w.push("gone", "rc1")
	w.list(images{"tool": {a: {"v1", "v2"}, b: {"v3"}}, "else": {c: nil}, "gone": {gone: {"v1"}}})
	w.promoted()
	w.list(images{"tool": {a: {"v1", "v2"}, b: {"v3"}}, "else": {c: nil}}, "- removed: gone\n  reason: wrong\n")
	w.promoted()
	if got := w.audit(true, w.tree()); len(got) != 0 {
		t.Fatalf("found %q before anything was done", got)
	}

	put := func(image, tag string, d digest.Digest) {
		t.Helper()
		r := w.prod.get(http.MethodGet, "/v2/app/"+image+"/manifests/"+string(d))
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+w.prod.host+"/v2/app/"+image+"/manifests/"+tag, r.Body)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", r.Header().Get("Content-Type"))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusCreated {
			t.Fatal(response.Status)
		}
	}
	put("tool", "v1", b)
	put("tool", "new", b)
	put("gone", "v1", gone) // a name that promotion had deleted is back
	w.prod.lose(t, "app/tool/manifests/v2")
	want := []string{"added gone:v1", "added tool:new", "missing tool:v2", "moved tool:v1"}
	if got := w.audit(false, nil); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	w.list(images{"tool": {a: {"v1", "v2", "v9"}, b: {"v3"}}})
	if got, want := w.audit(false, w.tree()), append(want, "unapplied tool:v9"); !slices.Equal(got, want) {
		t.Errorf("found %q with the configuration, want %q", got, want)
	}
}

func TestADeepAuditNamesContentThatIsCorruptOrIncomplete(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.push("tool", "rc1"), w.push("tool", "rc2"), w.push("tool", "rc3")
	w.list(images{"tool": {a: {"v1"}, b: {"v2"}, c: {"v3"}}})
	w.promoted()
	w.prod.corrupt(t, layer(t, w.prod, a))
	w.prod.lose(t, "app/tool/blobs/"+string(layer(t, w.prod, b)))
	if got := w.audit(false, nil); len(got) != 0 {
		t.Errorf("found %q without looking deep", got)
	}
	if got, want := w.audit(true, nil), []string{"corrupt tool:v1", "corrupt tool:v2"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestAnAuditOfARegistryThatIsDownSaysThatItDoesNotKnow(t *testing.T) {
	w := newWorld(t)
	w.list(images{"tool": {w.push("tool", "rc1"): {"v1"}}})
	w.promoted()
	w.prod.misbehave(failing)
	if got := w.audit(false, nil); !slices.Contains(got, "unknown tool:v1") {
		t.Errorf("found %q", got)
	}
}

package promote_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
	"entrepot/promote"

	"github.com/opencontainers/go-digest"
)

func TestASecondPlanFindsNothingAndAsksNobody(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1", "stable"}, b: nil}})
	plan := w.plan()
	expect(t, plan.Items, "create tool:v1", "create tool:stable", "create tool@"+string(b))
	for _, i := range plan.Items {
		if i.Size <= 1<<10 {
			t.Errorf("%s is said to have %d bytes, and has a layer of 1024", i.Name, i.Size)
		}
	}
	expect(t, w.apply(plan).Done, "create tool:v1", "create tool:stable", "create tool@"+string(b))
	w.agree()

	w.staging.forget()
	w.prod.forget()
	plan = w.plan()
	if len(plan.Items) != 0 || plan.Unchanged != 3 || !plan.Sound() {
		t.Errorf("planned %q, %d unchanged; want nothing, and 3 unchanged", told(plan.Items...), plan.Unchanged)
	}
	if asked := slices.Concat(w.prod.asked(), w.staging.asked()); len(asked) != 0 {
		t.Errorf("asked %v", asked)
	}
	if report := w.apply(plan); len(report.Done) != 0 || len(w.prod.asked()) != 0 {
		t.Errorf("did %v, asked %v", report.Done, w.prod.asked())
	}
}

func TestAFirstRunAdoptsTheNamesThatAreRightAlready(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1", "v2", "v3"}, b: {"v4"}}})
	w.promoted()
	// Whoever starts with a ledger now has production already.
	w.ledgerDir += "-new"
	w.prod.lose(t, "app/tool/manifests/v3")
	plan := w.plan()
	expect(t, plan.Items, "adopt tool:v1", "adopt tool:v2", "create tool:v3", "adopt tool:v4")
	w.prod.forget()
	expect(t, w.apply(plan).Done, "adopt tool:v1", "adopt tool:v2", "create tool:v3", "adopt tool:v4")
	if writes := w.prod.writes(); len(writes) != 1 {
		t.Errorf("%v was written, want the tag v3 alone", writes)
	}
	if want, got := []string{"adopt tool:v1", "adopt tool:v2", "adopt tool:v4", "set tool:v3"}, w.wrote(0); !slices.Equal(got, want) {
		t.Errorf("the ledger says %q, want %q", got, want)
	}
	w.agree()
}

func TestATagMovesOnlyWhereTheConfigurationLetsIt(t *testing.T) {
	w := newWorld(t)
	w.extra = "mutable_tags: [\"stable*\"]\n"
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1", "stable"}}})
	w.promoted()
	w.list(images{"tool": {b: {"v1", "stable"}}})
	plan := w.plan()
	expect(t, plan.Items, "move tool:stable", "move tool:v1 (conflict)")
	for _, i := range plan.Items {
		if i.Previous != a || i.Digest != b || i.Position.Line == 0 || i.Position.File != w.file {
			t.Errorf("the item %+v does not say from what, to what, and on whose word", i)
		}
	}
	report := w.apply(plan)
	expect(t, report.Done, "move tool:stable")
	expect(t, report.Blocked, "move tool:v1 (conflict)")
	if report.Sound() || plan.Sound() {
		t.Error("a conflict is taken for sound")
	}
	if w.prod.has("app/tool", "v1") != a || w.prod.has("app/tool", "stable") != b {
		t.Error("v1 has moved, or stable has not")
	}
	w.agree()
}

func TestANameThatSomebodyElsePushedIsAConflict(t *testing.T) {
	w := newWorld(t)
	testenv.PushFile(t, w.prod.host, "app/tool", "v1", 1<<10)
	w.list(images{"tool": {w.push("tool", "rc1"): {"v1"}}})
	expect(t, w.plan().Items, "move tool:v1 (conflict)")
}

func TestContentThatNobodyHasIsLostAndStopsNoOther(t *testing.T) {
	w := newWorld(t)
	nobodys := digest.FromString("nobody has it")
	w.list(images{"tool": {w.push("tool", "rc1"): {"v1"}, nobodys: {"v2"}}, "none": {nobodys: {"v1"}}})
	plan := w.plan()
	expect(t, plan.Items, "create tool:v1", "create tool:v2 (lost)", "create none:v1 (lost)")
	report := w.apply(plan)
	expect(t, report.Done, "create tool:v1")
	if report.Sound() {
		t.Error("lost content is taken for sound")
	}
	for _, i := range report.Blocked {
		if !strings.Contains(i.Detail, w.staging.host+"/staging/") || !strings.Contains(i.Detail, string(nobodys)) {
			t.Errorf("%s: %s does not say what is lost where", i.Name, i.Detail)
		}
	}
}

func TestContentThatStagingLostIsTaggedWhereProductionHasIt(t *testing.T) {
	w := newWorld(t)
	a := w.push("tool", "rc1")
	w.list(images{"tool": {a: {"v1"}}})
	w.promoted()
	w.staging.lose(t, "staging/tool/manifests/"+string(a))
	w.list(images{"tool": {a: {"v1", "v1.0"}}})
	expect(t, w.promoted().Done, "create tool:v1.0")
	w.agree()
}

func TestStagingThatIsDownIsNotTakenForLost(t *testing.T) {
	w := newWorld(t)
	a := w.push("tool", "rc1")
	w.staging.misbehave(failing)
	w.list(images{"tool": {a: {"v1"}}})
	expect(t, w.plan().Items, "create tool:v1 (failed)")
	w.staging.misbehave(nil)
	expect(t, w.promoted().Done, "create tool:v1")
}

func TestWhatLeavesTheConfigurationIsDeletedOnlyIfItPrunes(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1"}, b: {"v2"}}})
	w.promoted()
	w.list(images{"tool": {a: {"v1"}}})
	expect(t, w.plan().Items)
	w.extra = "prune: true\n"
	w.list(images{"tool": {a: {"v1"}}})
	expect(t, w.promoted().Done, "delete tool:v2")
	if got := w.prod.tags(t, "app/tool"); !slices.Equal(got, []string{"v1"}) {
		t.Errorf("there are %q", got)
	}
	expect(t, w.plan().Items)
	w.agree()
}

func TestPruningLeavesAloneWhatPromotionDidNotWrite(t *testing.T) {
	w := newWorld(t)
	w.extra = "prune: true\n"
	a, b, c := w.push("tool", "rc1"), w.push("tool", "rc2"), w.push("tool", "rc3")
	w.list(images{"tool": {a: {"v1"}, b: {"v2"}}})
	w.promoted()
	w.ledgerDir += "-new"
	testenv.PushFile(t, w.prod.host, "app/tool", "foreign", 1<<10)
	w.list(images{"tool": {a: {"v1"}, b: {"v2"}, c: {"v3"}}})
	w.promoted() // v1 and v2 are adopted
	w.list(images{"tool": {a: {"v1"}}})
	expect(t, w.plan().Items, "delete tool:v3")
}

func TestRemovalsDeleteATagADigestOrAWholeImage(t *testing.T) {
	setUp := func(t *testing.T) (w *world, a, b digest.Digest) {
		w = newWorld(t)
		a, b = w.push("tool", "rc1"), w.push("tool", "rc2")
		w.list(images{"tool": {a: {"v1", "v1.0"}, b: {"v2"}}})
		w.promoted()
		return w, a, b
	}
	removed := func(what string) string { return fmt.Sprintf("- removed: %q\n  reason: it was wrong\n", what) }
	check := func(t *testing.T, w *world, want ...string) {
		t.Helper()
		plan := w.plan()
		expect(t, plan.Items, want...)
		for _, i := range plan.Items {
			if i.Action == promote.Delete && (i.Reason != "it was wrong" || i.Position.Line == 0) {
				t.Errorf("%s does not say why: %q, line %d", i.Name, i.Reason, i.Position.Line)
			}
		}
		expect(t, w.apply(plan).Done, want...)
		expect(t, w.plan().Items)
		w.agree()
	}
	t.Run("a tag", func(t *testing.T) {
		w, a, b := setUp(t)
		w.list(images{"tool": {a: {"v1"}, b: {"v2"}}}, removed("tool:v1.0"))
		check(t, w, "delete tool:v1.0")
		if w.prod.has("app/tool", "v1.0") != "" || w.prod.has("app/tool", "v1") != a {
			t.Error("v1.0 is still there, or v1 is not")
		}
	})
	t.Run("a digest, and with it its tags", func(t *testing.T) {
		w, a, b := setUp(t)
		w.list(images{"tool": {b: {"v2"}}}, removed("tool@"+string(a)))
		check(t, w, "delete tool:v1", "delete tool:v1.0", "delete tool@"+string(a))
		if w.prod.has("app/tool", string(a)) != "" || w.prod.has("app/tool", "v2") != b {
			t.Error("the digest is still there, or v2 is not")
		}
	})
	t.Run("a whole image", func(t *testing.T) {
		w, _, _ := setUp(t)
		w.list(images{"else": {w.push("else", "rc1"): {"v1"}}}, removed("tool"))
		check(t, w, "create else:v1", "delete tool:v1", "delete tool:v1.0", "delete tool:v2")
		if got := w.prod.tags(t, "app/tool"); len(got) != 0 {
			t.Errorf("there are %q", got)
		}
	})
}

func TestMoreDeletionsThanAllowedAreAllWithheld(t *testing.T) {
	w := newWorld(t)
	w.extra = "prune: true\n"
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1", "v2", "v3"}}})
	w.promoted()
	w.list(images{"tool": {b: {"v4"}}})
	w.maxDeletes = 2
	plan := w.plan()
	expect(t, plan.Items, "create tool:v4", "delete tool:v1 (withheld)", "delete tool:v2 (withheld)", "delete tool:v3 (withheld)")
	if plan.Sound() {
		t.Error("withheld deletions are taken for sound")
	}
	expect(t, w.apply(plan).Done, "create tool:v4")
	w.maxDeletes = 3
	expect(t, w.promoted().Done, "delete tool:v1", "delete tool:v2", "delete tool:v3")
	w.agree()
}

func TestADigestIsRevokedAndAllowedAgain(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	revoked := fmt.Sprintf("- revoked: %q\n  reason: leaks a key\n", b)
	w.list(images{"tool": {a: {"v1"}}}, revoked)
	w.prod.forget()
	expect(t, w.promoted().Done, "create tool:v1", "revoke "+string(b))
	if e, is := w.open().State().Revoked(b); !is || e.Reason != "leaks a key" || e.Project != "app" {
		t.Errorf("the ledger says %+v, %v", e, is)
	}
	expect(t, w.plan().Items)

	w.list(images{"tool": {a: {"v1"}}})
	expect(t, w.plan().Items) // without prune, absence means nothing
	w.extra = "prune: true\n"
	w.list(images{"tool": {a: {"v1"}}})
	expect(t, w.promoted().Done, "unrevoke "+string(b))
	if _, is := w.open().State().Revoked(b); is {
		t.Error("it is revoked still")
	}
	expect(t, w.plan().Items)
}

func TestRequestsAreAsManyAsTheChangeNeedsAndNotTheTree(t *testing.T) {
	const many = 60
	w := newWorld(t)
	one := w.push("tool", "rc1")
	tree := images{"tool": {one: nil}}
	for n := range many {
		tree["tool"][one] = append(tree["tool"][one], fmt.Sprintf("v%d", n))
	}
	w.list(tree)
	w.promoted()
	w.staging.forget()
	w.prod.forget()
	added := w.push("tool", "rc2")
	w.staging.forget()
	tree["tool"][added] = []string{"v1000"}
	w.list(tree)
	expect(t, w.promoted().Done, "create tool:v1000")
	// The tag is asked for, the image read, its parts looked for and sent.
	const enough = 24
	if n := len(w.prod.asked()) + len(w.staging.asked()); n > enough {
		t.Errorf("%d requests for one name, want at most %d: %v\n%v", n, enough, w.prod.asked(), w.staging.asked())
	}
}

func TestEachDestinationGetsWhatItLacks(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("tool", "rc1"), w.push("tool", "rc2")
	w.list(images{"tool": {a: {"v1"}}})
	w.promoted()

	// A destination is added, where somebody has put one of the names before.
	w.other = newServer(t)
	w.list(images{"tool": {a: {"v1"}, b: {"v2", "v3"}}})
	alone := *w
	alone.prod, alone.other, alone.ledgerDir, alone.file = w.other, nil, w.ledgerDir+"-alone", w.file+"-alone.yaml"
	alone.list(images{"tool": {b: {"v3"}}})
	alone.promoted()

	plan := w.plan()
	expect(t, plan.Items, "create tool:v1", "create tool:v2", "create tool:v3", "adopt tool:v3")
	for _, i := range plan.Items {
		var want []string
		for _, s := range []*server{w.prod, w.other} {
			switch {
			case i.Name == "tool:v1" && s == w.prod:
			case i.Name == "tool:v3" && (i.Action == promote.Adopt) != (s == w.other):
			default:
				want = append(want, s.host+"/app")
			}
		}
		slices.Sort(want)
		if got := slices.Sorted(slices.Values(i.Destinations)); !slices.Equal(got, want) {
			t.Errorf("%s %s at %q, want %q", i.Action, i.Name, got, want)
		}
	}
	if plan.Unchanged != 0 {
		t.Errorf("%d names are said to be unchanged", plan.Unchanged)
	}
	w.apply(plan)
	for _, s := range []*server{w.prod, w.other} {
		if got := s.tags(t, "app/tool"); !slices.Equal(got, []string{"v1", "v2", "v3"}) {
			t.Errorf("%s has %q", s.host, got)
		}
	}
	w.prod.forget()
	w.other.forget()
	expect(t, w.plan().Items)
	if asked := slices.Concat(w.prod.asked(), w.other.asked()); len(asked) != 0 {
		t.Errorf("asked %v", asked)
	}
	w.agree()
}

func TestADestinationThatIsDownDoesNotKeepTheOtherFromItsNames(t *testing.T) {
	w := newWorld(t)
	w.other = newServer(t)
	a := w.push("tool", "rc1")
	w.list(images{"tool": {a: {"v1"}}})
	w.other.misbehave(failing)
	plan := w.plan()
	expect(t, plan.Items, "create tool:v1", "create tool:v1 (failed)")
	expect(t, w.apply(plan).Done, "create tool:v1")
	if w.prod.has("app/tool", "v1") != a {
		t.Error("the destination that is up has not got it")
	}
	w.other.misbehave(nil)
	plan = w.plan()
	if expect(t, plan.Items, "create tool:v1"); !slices.Equal(plan.Items[0].Destinations, []string{w.other.host + "/app"}) {
		t.Errorf("planned for %q", plan.Items[0].Destinations)
	}
	w.apply(plan)
	w.agree()
}

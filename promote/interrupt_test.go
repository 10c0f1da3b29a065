package promote_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"entrepot/e2e/testenv"
	"entrepot/promote"

	"github.com/opencontainers/go-digest"
)

// interruptedWorld has images of every kind to promote: with several tags,
// without any, with referrers and a signature.
func interruptedWorld(t *testing.T) (w *world, untagged testenv.Artifact, names []string) {
	w = newWorld(t)
	app := testenv.PushFile(t, w.staging.host, "staging/app", "rc1", 1<<10)
	testenv.PushReferrers(t, w.staging.host, app)
	testenv.PushCosignSignature(t, w.staging.host, app)
	untagged = testenv.PushFile(t, w.staging.host, "staging/bare", "rc1", 1<<10)
	testenv.PushReferrers(t, w.staging.host, untagged)
	w.list(images{"app": {app.Root.Digest: {"v1", "stable"}}, "bare": {untagged.Root.Digest: nil}, "tool": {w.push("tool", "rc1"): {"v1"}}})
	return w, untagged, []string{"app:v1", "app:stable", "tool:v1", "bare@" + string(untagged.Root.Digest)}
}

// whole checks all that interruptedWorld promotes.
func (w *world) whole(untagged testenv.Artifact) {
	w.t.Helper()
	if n := len(w.prod.referrers(w.t, "app/bare", untagged.Root.Digest)); n != 2 {
		w.t.Errorf("the untagged image has %d referrers, want 2", n)
	}
	app := w.prod.has("app/app", "v1")
	if n := len(w.prod.referrers(w.t, "app/app", app)); n != 2 {
		w.t.Errorf("the tagged image has %d referrers, want 2", n)
	}
	if w.prod.has("app/app", "sha256-"+app.Encoded()+".sig") == "" {
		w.t.Error("the tagged image has no signature")
	}
	w.agree()
}

func TestAnApplyThatIsInterruptedAnywhereIsFinishedByTheNext(t *testing.T) {
	// How many requests one takes that is not interrupted.
	w, untagged, names := interruptedWorld(t)
	plan := w.plan()
	w.prod.forget()
	w.apply(plan)
	w.whole(untagged)
	total := len(w.prod.asked())

	for n := 1; n < total; n += 1 + total/16 {
		t.Run(fmt.Sprintf("after %d requests", n), func(t *testing.T) {
			w, untagged, _ := interruptedWorld(t)
			plan := w.plan()
			w.prod.forget()
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			answered := 0
			w.prod.watch(func(request) {
				if answered++; answered == n {
					interrupt()
				}
			})
			report, err := w.try(ctx, plan)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if got := len(report.Done) + len(report.Failed); got != len(names) {
				t.Errorf("%d of %d items are told of: done %q, failed %q", got, len(names), told(report.Done...), told(report.Failed...))
			}
			w.prod.watch(nil)
			for _, name := range names {
				repository, tag, _ := cut(name)
				if tag == "" || w.prod.has(repository, tag) == "" {
					continue
				}
				if missing := w.prod.lacks(repository, tag); len(missing) > 0 {
					t.Errorf("%s is there without %q", name, missing)
				}
			}
			w.promoted()
			w.whole(untagged)
			for blob, n := range w.prod.uploads() {
				if n > 1 {
					t.Errorf("%s was sent %d times", blob, n)
				}
			}
			if got := w.size(); got != uint64(len(names)) {
				t.Errorf("the ledger has %d entries, want %d: %q", got, len(names), w.wrote(0))
			}
			w.prod.forget()
			expect(t, w.plan().Items)
			if asked := w.prod.asked(); len(asked) != 0 {
				t.Errorf("a third run asks %v", asked)
			}
		})
	}
}

// cut takes the name of an image apart: its repository in production, and its
// tag or digest.
func cut(name string) (repository, tag string, d digest.Digest) {
	for i, r := range name {
		switch r {
		case ':':
			return "app/" + name[:i], name[i+1:], ""
		case '@':
			return "app/" + name[:i], "", digest.Digest(name[i+1:])
		}
	}
	return "app/" + name, "", ""
}

func TestTwoAppliesOfTheSamePlanWriteEachChangeOnce(t *testing.T) {
	w := newWorld(t)
	tree := images{}
	const many = 12
	for n := range many {
		name := fmt.Sprintf("tool%d", n)
		tree[name] = map[digest.Digest][]string{w.push(name, "rc1"): {"v1", "v2"}}
	}
	w.list(tree)
	plans := []*promote.Plan{w.plan(), w.plan()}
	appliers := []promote.Applier{{Client: w.client(), Ledger: w.open()}, {Client: w.client(), Ledger: w.open()}}
	var group sync.WaitGroup
	for i := range plans {
		group.Go(func() {
			report, err := appliers[i].Apply(t.Context(), plans[i])
			if err != nil {
				t.Error(err)
				return
			}
			if len(report.Done) != 2*many || !report.Sound() {
				t.Errorf("done %q, failed %q", told(report.Done...), told(report.Failed...))
			}
		})
	}
	group.Wait()
	if got := w.size(); got != 2*many {
		t.Errorf("the ledger has %d entries, want %d: %q", got, 2*many, w.wrote(0))
	}
	w.agree()
	expect(t, w.plan().Items)
}

func TestTwoAppliesThatDisagreeLeaveWhatTheLedgerSays(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			w := newWorld(t)
			w.extra = "mutable_tags: [\"*\"]\n"
			const many = 8
			first, second := images{}, images{}
			for n := range many {
				name := fmt.Sprintf("tool%d", n)
				first[name] = map[digest.Digest][]string{w.push(name, "rc1"): {"v1"}}
				second[name] = map[digest.Digest][]string{w.push(name, "rc2"): {"v1"}}
			}
			var plans []*promote.Plan
			for _, list := range []images{first, second} {
				w.list(list)
				plans = append(plans, w.plan())
			}
			appliers := []promote.Applier{{Client: w.client(), Ledger: w.open()}, {Client: w.client(), Ledger: w.open()}}
			reports := make([]*promote.Report, 2)
			var group sync.WaitGroup
			for i := range plans {
				group.Go(func() {
					var err error
					if reports[i], err = appliers[i].Apply(t.Context(), plans[i]); err != nil {
						t.Error(err)
					}
				})
			}
			group.Wait()
			if t.Failed() {
				return
			}
			if done := len(reports[0].Done) + len(reports[1].Done); done != many || w.size() != many {
				t.Errorf("%d items are done, and the ledger has %d entries; want %d: one of two each", done, w.size(), many)
			}
			w.agree()
		})
	}
}

func TestADeletionThatTwoAppliesDoIsWrittenOnce(t *testing.T) {
	w := newWorld(t)
	a := w.push("tool", "rc1")
	w.list(images{"tool": {a: {"v1", "v2"}}})
	w.promoted()
	w.list(images{"tool": {a: {"v1"}}}, "- removed: tool:v2\n  reason: wrong\n")
	first, second := w.plan(), w.plan()
	for _, plan := range []*promote.Plan{first, second} {
		expect(t, w.apply(plan).Done, "delete tool:v2")
	}
	if got := w.wrote(2); len(got) != 1 {
		t.Errorf("the ledger says %q, want one deletion", got)
	}
	w.agree()
}

// A plan that was made before another was carried out must not undo that.
func TestAnOlderPlanChangesNothingThatANewerOneHasChanged(t *testing.T) {
	// then is what the newer configuration makes of tool:v1, which exists.
	for _, c := range []struct {
		name         string
		older, newer func(w *world, a, b, c digest.Digest)
		want         func(a, b, c digest.Digest) digest.Digest
	}{
		{
			"both move the tag",
			func(w *world, _, b, _ digest.Digest) { w.list(images{"tool": {b: {"v1"}}}) },
			func(w *world, _, _, c digest.Digest) { w.list(images{"tool": {c: {"v1"}}}) },
			func(_, _, c digest.Digest) digest.Digest { return c },
		},
		{
			"the newer deletes what the older moves",
			func(w *world, _, b, _ digest.Digest) { w.list(images{"tool": {b: {"v1"}}}) },
			func(w *world, a, _, _ digest.Digest) {
				w.list(images{"tool": {a: {"kept"}}}, "- removed: tool:v1\n  reason: wrong\n")
			},
			func(_, _, _ digest.Digest) digest.Digest { return "" },
		},
		{
			"the newer moves what the older deletes",
			func(w *world, a, _, _ digest.Digest) {
				w.list(images{"tool": {a: {"kept"}}}, "- removed: tool:v1\n  reason: wrong\n")
			},
			func(w *world, _, _, c digest.Digest) { w.list(images{"tool": {c: {"v1"}}}) },
			func(_, _, c digest.Digest) digest.Digest { return c },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.extra = "mutable_tags: [\"*\"]\n"
			first, second, third := w.push("tool", "rc1"), w.push("tool", "rc2"), w.push("tool", "rc3")
			w.list(images{"tool": {first: {"v1", "kept"}}})
			w.promoted()
			c.older(w, first, second, third)
			older := w.plan()
			c.newer(w, first, second, third)
			w.promoted()
			report := w.apply(older)
			if len(report.Done) != 0 || len(report.Failed) != 1 {
				t.Errorf("done %q, failed %q; want one that failed", told(report.Done...), told(report.Failed...))
			}
			if got, want := w.prod.has("app/tool", "v1"), c.want(first, second, third); got != want {
				t.Errorf("v1 is %q, want %q", got, want)
			}
			w.agree()
		})
	}
}

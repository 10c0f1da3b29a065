package promote_test

import (
	"testing"

	"entrepot/e2e/testenv"
	"entrepot/promote"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
)

// attaching plans with a look at what is attached in some projects.
func (w *world) attaching(projects func(string) bool) *promote.Plan {
	w.t.Helper()
	planner := &promote.Planner{Client: w.client(), MaxDeletes: 20, Attachments: projects}
	plan, err := planner.Plan(w.t.Context(), w.tree(), w.open().State())
	if err != nil {
		w.t.Fatal(err)
	}
	return plan
}

func everyProject(string) bool { return true }

func TestWhatIsAttachedAfterAPromotionIsBroughtWhenItIsAskedFor(t *testing.T) {
	w := newWorld(t)
	multi := testenv.PushIndex(t, w.staging.host, "staging/multi", "rc1")
	w.list(images{
		"multi": {multi.Root.Digest: {"v1", "stable"}},
		"tool":  {w.push("tool", "rc1"): {"v1"}},
	})
	w.promoted()
	size := w.size()
	expect(t, w.attaching(everyProject).Items) // nothing was attached yet

	testenv.PushReferrers(t, w.staging.host, multi)
	testenv.PushCosignSignature(t, w.staging.host, multi)
	// Signed again for one platform of it.
	platform := multi
	platform.Root.Digest = multi.Manifests[0]
	testenv.PushCosignSignature(t, w.staging.host, platform)
	expect(t, w.plan().Items) // nobody asked
	expect(t, w.attaching(func(string) bool { return false }).Items)

	plan := w.attaching(everyProject)
	expect(t, plan.Items, "attach multi@"+string(multi.Root.Digest))
	if want := "staging has 4 more signatures or referrers of it"; plan.Items[0].Reason != want {
		t.Errorf("the plan says %q, want %q", plan.Items[0].Reason, want)
	}
	expect(t, w.apply(plan).Done, "attach multi@"+string(multi.Root.Digest))
	if n := len(w.prod.referrers(t, "app/multi", multi.Root.Digest)); n != 2 {
		t.Errorf("the image has %d referrers, want 2", n)
	}
	for _, d := range []digest.Digest{multi.Root.Digest, platform.Root.Digest} {
		if w.prod.has("app/multi", "sha256-"+d.Encoded()+".sig") == "" {
			t.Errorf("%s has no signature", d)
		}
	}
	if got := w.size(); got != size {
		t.Errorf("the ledger has %d entries, want %d as before: no name changed", got, size)
	}
	w.agree()
	expect(t, w.attaching(everyProject).Items)
}

func TestAttachmentsOfAnImageThatProductionLostAreAFailureOfThatImageAlone(t *testing.T) {
	w := newWorld(t)
	app := testenv.PushFile(t, w.staging.host, "staging/app", "rc1", 1<<10)
	tool := testenv.PushFile(t, w.staging.host, "staging/tool", "rc1", 1<<10)
	w.list(images{"app": {app.Root.Digest: {"v1"}}, "tool": {tool.Root.Digest: {"v1"}}})
	w.promoted()
	testenv.PushReferrers(t, w.staging.host, app)
	testenv.PushReferrers(t, w.staging.host, tool)
	w.prod.lose(t, "app/app/manifests/"+string(app.Root.Digest))
	plan := w.attaching(everyProject)
	expect(t, plan.Changes(), "attach tool@"+string(tool.Root.Digest))
	expect(t, plan.Blocked(), "attach app@"+string(app.Root.Digest)+" (failed)")
	w.apply(plan)
	if n := len(w.prod.referrers(t, "app/tool", tool.Root.Digest)); n != 2 {
		t.Errorf("the other image has %d referrers, want 2", n)
	}
}

func TestUnattachedOfAnImageThatIsNotThereSaysSo(t *testing.T) {
	w := newWorld(t)
	d := w.push("tool", "rc1")
	from, err := transfer.ParseRepository(w.staging.host + "/staging/tool")
	if err != nil {
		t.Fatal(err)
	}
	to, err := transfer.ParseRepository(w.prod.host + "/app/tool")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.client().Unattached(t.Context(), from, to, d); err == nil {
		t.Errorf("%d attachments, and no error", n)
	}
}

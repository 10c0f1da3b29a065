package promote_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"entrepot/e2e/testenv"
	"entrepot/promote"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
)

// failing answers everything with 500.
func failing(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusInternalServerError)
	return true
}

func TestWhatStagingLosesAfterThePlanIsNamedAndStopsNoOther(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.push("tool", "rc1"), w.push("tool", "rc2"), w.push("else", "rc1")
	w.list(images{"tool": {a: {"v1"}, b: {"v2"}}, "else": {c: {"v1"}}})
	plan := w.plan()
	w.staging.lose(t, "staging/tool/manifests/"+string(b))
	report := w.apply(plan)
	expect(t, report.Done, "create tool:v1", "create else:v1")
	expect(t, report.Failed, "create tool:v2 (lost)")
	if report.Sound() {
		t.Error("what was lost is taken for sound")
	}
	if detail := report.Failed[0].Detail; !strings.Contains(detail, w.prod.host+"/app/tool:v2") || !strings.Contains(detail, string(b)) {
		t.Errorf("it is not said what is lost: %s", detail)
	}
	if got := w.prod.has("app/tool", "v2"); got != "" {
		t.Errorf("v2 is %s", got)
	}
	if got, want := w.wrote(0), []string{"set else:v1", "set tool:v1"}; !slices.Equal(got, want) {
		t.Errorf("the ledger says %q, want %q", got, want)
	}
	w.agree()
}

func TestABlobThatIsMissingOrCorruptInStagingNeverGetsItsTag(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, s *server, layer digest.Digest)
		want   string
	}{
		{"corrupt", func(t *testing.T, s *server, layer digest.Digest) { s.corrupt(t, layer) }, "failed"},
		{"missing", func(t *testing.T, s *server, layer digest.Digest) { s.lose(t, "staging/tool/blobs/"+string(layer)) }, "lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.push("tool", "rc1")
			bad := testenv.PushFile(t, w.staging.host, "staging/tool", "rc2", 1<<10)
			w.list(images{"tool": {a: {"v1"}, bad.Root.Digest: {"v2", "v2.0"}}})
			plan := w.plan()
			c.damage(t, w.staging, bad.Blobs[0].Digest)
			report := w.apply(plan)
			expect(t, report.Done, "create tool:v1")
			expect(t, report.Failed, "create tool:v2 ("+c.want+")", "create tool:v2.0 ("+c.want+")")
			for _, i := range report.Failed {
				if !strings.Contains(i.Detail, string(bad.Blobs[0].Digest)) {
					t.Errorf("it is not said what is wrong: %s", i.Detail)
				}
			}
			if got := w.prod.tags(t, "app/tool"); !slices.Equal(got, []string{"v1"}) {
				t.Errorf("production has %q", got)
			}
			if w.prod.has("app/tool", string(bad.Root.Digest)) != "" {
				t.Error("the manifest is there without its blob")
			}
			w.agree()
		})
	}
}

func TestAProductionThatIsBusyOrFailingForAWhileIsWaitedFor(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter)
	}{
		{"429 with Retry-After", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}},
		{"500", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }},
		{"a cut connection", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.push("tool", "rc1")
			app := testenv.PushReferrers(t, w.staging.host, testenv.PushFile(t, w.staging.host, "staging/else", "rc1", 1<<10))
			w.list(images{"tool": {a: {"v1", "v2"}}, "else": {app[0].Root.Digest: {"v1"}}})
			plan := w.plan()
			// Every third thing that is asked fails; asked again, it is answered, so
			// that three attempts are enough.
			var mu sync.Mutex
			asked := map[string]bool{}
			w.prod.misbehave(func(rw http.ResponseWriter, r *http.Request) bool {
				mu.Lock()
				what := r.Method + " " + r.URL.Path
				known := asked[what]
				asked[what] = true
				n := len(asked)
				mu.Unlock()
				if known || n%3 != 1 || n > 12 {
					return false
				}
				c.answer(rw)
				return true
			})
			report := w.apply(plan)
			expect(t, report.Failed)
			expect(t, report.Done, "create tool:v1", "create tool:v2", "create else:v1")
			w.agree()
		})
	}
}

func TestAProductionThatKeepsFailingIsGivenUpAndALaterRunFinishes(t *testing.T) {
	w := newWorld(t)
	a, b := w.push("good", "rc1"), w.push("bad", "rc1")
	w.list(images{"good": {a: {"v1"}}, "bad": {b: {"v1"}}})
	plan := w.plan()
	w.prod.misbehave(func(rw http.ResponseWriter, r *http.Request) bool {
		return strings.HasPrefix(r.URL.Path, "/v2/app/bad/") && r.Method == http.MethodPut && failing(rw, r)
	})
	report := w.apply(plan)
	expect(t, report.Done, "create good:v1")
	expect(t, report.Failed, "create bad:v1 (failed)")
	w.prod.misbehave(nil)
	expect(t, w.promoted().Done, "create bad:v1")
	w.agree()
}

func TestATagIsNeverVisibleBeforeItsContent(t *testing.T) {
	w := newWorld(t)
	index := testenv.PushIndex(t, w.staging.host, "staging/multi", "rc1")
	testenv.PushReferrers(t, w.staging.host, index)
	signature := testenv.PushCosignSignature(t, w.staging.host, index)
	a := w.push("tool", "rc1")
	w.list(images{"multi": {index.Root.Digest: {"v1", "stable"}}, "tool": {a: {"v1"}}})
	plan := w.plan()
	seen := false
	w.prod.watch(func(request) {
		for _, name := range []struct{ repository, tag string }{{"app/multi", "v1"}, {"app/multi", "stable"}, {"app/tool", "v1"}} {
			if w.prod.has(name.repository, name.tag) == "" {
				continue
			}
			seen = true
			if missing := w.prod.lacks(name.repository, name.tag); len(missing) > 0 {
				t.Errorf("%s:%s is there without %q", name.repository, name.tag, missing)
			}
			if name.repository != "app/multi" {
				continue
			}
			if n := len(w.prod.referrers(t, name.repository, index.Root.Digest)); n != 2 || w.prod.has(name.repository, signature.Tag) == "" {
				t.Errorf("%s:%s is there with %d referrers and the signature %q, want 2 and one", name.repository, name.tag, n, w.prod.has(name.repository, signature.Tag))
			}
		}
	})
	report := w.apply(plan)
	w.prod.watch(nil)
	expect(t, report.Done, "create multi:v1", "create multi:stable", "create tool:v1")
	if !seen {
		t.Error("no tag was seen: the test looked at nothing")
	}
	w.agree()
}

func TestImagesOfOneRegistryAreMountedAndNotSent(t *testing.T) {
	w := newWorld(t)
	w.staging = w.prod
	a := w.push("tool", "rc1")
	w.list(images{"tool": {a: {"v1"}}})
	plan := w.plan()
	w.prod.forget()
	expect(t, w.apply(plan).Done, "create tool:v1")
	if sent := w.prod.uploads(); len(sent) != 0 {
		t.Errorf("sent %v", sent)
	}
	w.agree()
}

func TestProgressHearsOfEachItemAfterTheLedgerHasIt(t *testing.T) {
	w := newWorld(t)
	nobodys := w.push("tool", "rc2")
	w.list(images{"tool": {w.push("tool", "rc1"): {"v1", "v2"}, nobodys: {"v3"}}})
	plan := w.plan()
	w.staging.lose(t, "staging/tool/manifests/"+string(nobodys))
	var heard []string
	applier := promote.Applier{Client: w.client(), Ledger: w.open(), Progress: func(r promote.Result) {
		heard = append(heard, r.Item.Name)
		has := slices.Contains(w.wrote(0), "set "+r.Item.Name)
		if has != (r.Err == nil) || has != (len(r.Done) == 1) {
			t.Errorf("heard of %s, done %q, %v; the ledger has it: %v", r.Item.Name, r.Done, r.Err, has)
		}
	}}
	if _, err := applier.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	if slices.Sort(heard); !slices.Equal(heard, []string{"tool:v1", "tool:v2", "tool:v3"}) {
		t.Errorf("heard of %q", heard)
	}
}

func TestAHostThatAsksForALongPauseFailsItsItemsAndNotTheOthers(t *testing.T) {
	w := newWorld(t)
	w.other = newServer(t)
	a := w.push("tool", "rc1")
	w.list(images{"tool": {a: {"v1"}}})
	plan := w.plan()
	w.other.misbehave(func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Retry-After", "3600")
		rw.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	client := w.client(func(c *transfer.Config) { c.MaxPause = 2 * time.Second })
	report, err := (&promote.Applier{Client: client, Ledger: w.open()}).Apply(t.Context(), plan)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, report.Failed, "create tool:v1 (failed)")
	if want := []string{w.other.host + "/app"}; len(report.Failed) == 1 && !slices.Equal(report.Failed[0].Destinations, want) {
		t.Errorf("failed at %q, want %q", report.Failed[0].Destinations, want)
	}
	if w.prod.has("app/tool", "v1") != a {
		t.Error("the other destination has not got it")
	}
	w.other.misbehave(nil)
	expect(t, w.promoted().Done, "create tool:v1")
	w.agree()
}

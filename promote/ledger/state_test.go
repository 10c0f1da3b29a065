package ledger

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// stateOf is the state of entries that are appended one second apart.
func stateOf(t testing.TB, entries ...Entry) *State {
	t.Helper()
	b := new(State).extend()
	for i, e := range entries {
		if _, err := b.addEntry(e, someTime.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return b.state
}

// at is an entry about a name at destinations.
func at(action Action, name, content string, destinations ...string) Entry {
	e := Entry{Kind: Image, Action: action, Name: name, Destinations: destinations}
	if content != "" {
		e.Digest = testDigest(content)
	}
	return e
}

func TestTheNewestEntryAboutANameCounts(t *testing.T) {
	s := stateOf(t,
		at(Set, "a:1", "one", "r.example.org"),
		at(Set, "a:1", "two", "r.example.org"),
		at(Set, "a:2", "one", "r.example.org"),
		at(Delete, "a:2", "", "r.example.org"),
		at(Set, "a:3", "one", "r.example.org"),
		at(Delete, "a:3", "", "r.example.org"),
		at(Set, "a:3", "three", "r.example.org"),
	)
	for name, want := range map[string]string{"a:1": "two", "a:2": "", "a:3": "three"} {
		e, ok := s.LookupFull("r.example.org/" + name)
		if !ok || e.Exists() != (want != "") || want != "" && e.Digest != testDigest(want) {
			t.Errorf("%s is %+v, %v, want %q", name, e, ok, want)
		}
	}
	for _, unknown := range []string{"r.example.org/a:4", "r.example.org", "a:1", "", "/", "other.example.org/a:1", "r.example.org//a:1"} {
		if e, ok := s.LookupFull(unknown); ok {
			t.Errorf("%q, which nobody named, is %+v", unknown, e)
		}
	}
	if history := s.History("r.example.org", "a:3"); len(history) != 3 || history[1].Action != Delete {
		t.Errorf("the history of a:3 is %+v", history)
	}
}

// A region that is added, and one that is named alone, do not disturb what the
// others have.
func TestSetsThatOverlapAreOneNamespace(t *testing.T) {
	s := stateOf(t,
		at(Set, "a:1", "one", "eu.example.org", "us.example.org"),
		at(Set, "a:1", "two", "us.example.org"),
		at(Set, "a:2", "one", "us.example.org", "eu.example.org"), // in another order
		at(Delete, "a:2", "", "ap.example.org", "eu.example.org", "us.example.org"),
	)
	for full, want := range map[string]string{
		"eu.example.org/a:1": "one", "us.example.org/a:1": "two", "eu.example.org/a:2": "", "us.example.org/a:2": "", "ap.example.org/a:2": "",
	} {
		e, ok := s.LookupFull(full)
		if !ok || e.Exists() != (want != "") || want != "" && e.Digest != testDigest(want) {
			t.Errorf("%s is %+v, %v, want %q", full, e, ok, want)
		}
	}
	var names []string
	for e := range s.Names() {
		names = append(names, fmt.Sprint(e.Sequence, e.Name, e.Destinations))
	}
	if want := []string{"0a:1[eu.example.org]", "1a:1[us.example.org]"}; !slices.Equal(names, want) {
		t.Errorf("names are %q, want %q", names, want)
	}
	if len(s.sets) != 3 {
		t.Errorf("%d sets, want 3", len(s.sets))
	}
}

// registry.k8s.io and registry.k8s.io/coredns are both destinations of real
// trees: what is below both is one name.
func TestDestinationsBelowOthersShareNames(t *testing.T) {
	for name, entries := range map[string][]Entry{
		"the outer first": {at(Set, "sub/a:1", "one", "r.example.org"), at(Set, "a:1", "two", "r.example.org/sub")},
		"the inner first": {at(Set, "a:1", "one", "r.example.org/sub"), at(Set, "sub/a:1", "two", "r.example.org")},
	} {
		t.Run(name, func(t *testing.T) {
			s := stateOf(t, entries...)
			for _, e := range entries {
				got, ok := s.Lookup(e.Destinations[0], e.Name)
				if !ok || got.Digest != testDigest("two") {
					t.Errorf("%s at %s is %+v", e.Name, e.Destinations[0], got)
				}
			}
			if names := slices.Collect(s.Names()); len(names) != 1 || names[0].Sequence != 1 {
				t.Errorf("names are %+v, want only the second", names)
			}
			if history := s.History("r.example.org", "sub/a:1"); len(history) != 2 {
				t.Errorf("%d entries in the history, want 2", len(history))
			}
		})
	}
}

func TestAStateIsWhatItWasAtATime(t *testing.T) {
	s := stateOf(t,
		at(Set, "a:1", "one", "r.example.org"),
		at(Set, "a:1", "two", "r.example.org"),
		Entry{Action: Revoke, Name: string(testDigest("one")), Digest: testDigest("one"), Reason: "CVE-2026-1"},
		at(Delete, "a:1", "", "r.example.org"),
	)
	content := func(s *State) string {
		e, _ := s.LookupFull("r.example.org/a:1")
		_, revoked := s.Revoked(testDigest("one"))
		return fmt.Sprintf("%d %s moved:%v revoked:%v", s.Len(), e.Action, e.Digest == testDigest("two"), revoked)
	}
	for sequence, want := range []string{"1 set moved:false revoked:false", "2 set moved:true revoked:false", "3 set moved:true revoked:true", "4 delete moved:false revoked:true"} {
		if got := content(s.AsOf(uint64(sequence))); got != want {
			t.Errorf("as of %d: %s, want %s", sequence, got, want)
		}
		at := someTime.Add(time.Duration(sequence) * time.Second)
		for _, at := range []time.Time{at, at.Add(999 * time.Millisecond)} {
			if got := content(s.AsOfTime(at)); got != want {
				t.Errorf("as of %v: %s, want %s", at, got, want)
			}
		}
	}
	if n := s.AsOfTime(someTime.Add(-1)).Len(); n != 0 {
		t.Errorf("%d entries before the first", n)
	}
	if got := content(s.AsOf(1000)); got != "4 delete moved:false revoked:true" {
		t.Errorf("as of a sequence to come: %s", got)
	}
}

func TestARevocationHoldsUntilItIsTakenBack(t *testing.T) {
	bad, worse := testDigest("bad"), testDigest("worse")
	entry := func(action Action, of string, reason string) Entry {
		return Entry{Action: action, Name: string(testDigest(of)), Digest: testDigest(of), Reason: reason}
	}
	s := stateOf(t, entry(Revoke, "worse", "malware"), entry(Revoke, "bad", "CVE-2026-1"), entry(Unrevoke, "bad", "mistaken"))
	if e, ok := s.Revoked(worse); !ok || e.Reason != "malware" {
		t.Errorf("the revocation is %+v, %v", e, ok)
	}
	if e, ok := s.Revoked(bad); ok {
		t.Errorf("what was taken back is revoked: %+v", e)
	}
	if all := slices.Collect(s.Revocations()); len(all) != 1 || all[0].Digest != worse {
		t.Errorf("revocations are %+v", all)
	}
}

func TestPromotionOwnsOnlyWhatItWrote(t *testing.T) {
	s := stateOf(t,
		at(Set, "a:set", "one", "r.example.org"),
		at(Adopt, "a:adopted", "one", "r.example.org"),
		at(Set, "a:set-then-adopted", "one", "r.example.org"),
		at(Adopt, "a:set-then-adopted", "one", "r.example.org"),
		at(Set, "a:replaced-by-others", "one", "r.example.org"),
		at(Adopt, "a:replaced-by-others", "two", "r.example.org"),
		at(Set, "a:deleted", "one", "r.example.org"),
		at(Delete, "a:deleted", "", "r.example.org"),
	)
	for name, want := range map[string]bool{
		"a:set": true, "a:adopted": false, "a:set-then-adopted": true, "a:replaced-by-others": false, "a:deleted": false, "a:unknown": false,
	} {
		if got := s.Wrote("r.example.org", name); got != want {
			t.Errorf("Wrote(%s) = %v, want %v", name, got, want)
		}
	}
}

// A state that others go on from stays as it is.
func TestAnExtendedStateDoesNotChange(t *testing.T) {
	old := stateOf(t, at(Set, "a:1", "one", "eu.example.org", "us.example.org"), at(Adopt, "a:2", "one", "eu.example.org"))
	b := old.extend()
	for _, e := range []Entry{
		at(Set, "a:1", "two", "eu.example.org", "us.example.org"),
		at(Set, "a:1", "three", "ap.example.org", "us.example.org"),
		at(Delete, "a:2", "", "eu.example.org"),
		{Action: Revoke, Name: string(testDigest("one")), Digest: testDigest("one")},
	} {
		if _, err := b.addEntry(e, someTime); err != nil {
			t.Fatal(err)
		}
	}
	if e, _ := old.LookupFull("us.example.org/a:1"); old.Len() != 2 || e.Digest != testDigest("one") {
		t.Errorf("a:1 became %+v", e)
	}
	if e, _ := old.LookupFull("eu.example.org/a:2"); !e.Exists() {
		t.Errorf("a:2 became %+v", e)
	}
	if _, ok := old.Revoked(testDigest("one")); ok {
		t.Error("a digest was revoked")
	}
	if _, ok := old.LookupFull("ap.example.org/a:1"); ok {
		t.Error("a destination came to be")
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	s := stateOf(t, at(Set, "sub/a:1", "one", "r.example.org"), at(Set, "a:1", "two", "r.example.org/sub"))
	if n := testing.AllocsPerRun(100, func() {
		if _, ok := s.LookupFull("r.example.org/sub/a:1"); !ok {
			t.Fatal("not found")
		}
	}); n != 0 {
		t.Errorf("LookupFull allocates %v times", n)
	}
}

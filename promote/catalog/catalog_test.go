package catalog_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"entrepot/promote/catalog"
	"entrepot/promote/ledger"
	"entrepot/registry/folder"

	"github.com/opencontainers/go-digest"
)

const (
	here  = "https://dl.example.org"
	there = "s3://bucket/prefix"
)

// production is a log that is appended to.
type production struct {
	t   testing.TB
	log *ledger.Log
}

func newProduction(t testing.TB) *production {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := ledger.GenerateKey("origin.example.org/ledger", file); err != nil {
		t.Fatal(err)
	}
	key, err := ledger.LoadKey(file)
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.New(t.Context(), ledger.NewDir(t.TempDir()), ledger.Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return &production{t, log}
}

func (p *production) record(entries ...ledger.Entry) {
	p.t.Helper()
	if _, err := p.log.Append(p.t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return entries, nil }); err != nil {
		p.t.Fatal(err)
	}
}

// set is the entry of a file whose content is its name, at destinations.
func set(name string, destinations ...string) ledger.Entry {
	return ledger.Entry{
		Kind: ledger.File, Action: ledger.Set, Name: name, Destinations: destinations,
		Digest: digest.FromString(name), Size: int64(len(name)), MediaType: "text/plain",
	}
}

func remove(name string, destinations ...string) ledger.Entry {
	return ledger.Entry{Kind: ledger.File, Action: ledger.Delete, Name: name, Destinations: destinations, Previous: digest.FromString(name)}
}

// list is all names in a folder, page by page.
func list(t testing.TB, c *catalog.Catalog, path string) string {
	t.Helper()
	var names []string
	for after := ""; ; {
		entries, next, err := c.List(t.Context(), path, after, 2)
		if err != nil {
			return err.Error()
		}
		for _, e := range entries {
			names = append(names, e.Name)
		}
		if next == "" {
			return strings.Join(names, " ")
		}
		after = next
	}
}

func TestCatalogFollowsTheLedger(t *testing.T) {
	p := newProduction(t)
	c := catalog.New(p.log.State, here)
	if got := list(t, c, ""); got != "" {
		t.Errorf("of an empty ledger: %s", got)
	}
	image := ledger.Entry{Kind: ledger.Image, Action: ledger.Set, Name: "image:v1", Destinations: []string{here}, Digest: digest.FromString("i")}
	for _, step := range []struct {
		entries    []ledger.Entry
		root, v1   string
		whatHappen string
	}{
		{[]ledger.Entry{set("v1/b", here), set("v1/a", here, there), set("stable.txt", here)}, "stable.txt v1/", "a b", "new files"},
		{[]ledger.Entry{set("elsewhere", there), image}, "stable.txt v1/", "a b", "what is not ours"},
		{[]ledger.Entry{remove("v1/a", here)}, "stable.txt v1/", "b", "a deletion"},
		{[]ledger.Entry{remove("v1/b", here), set("v1/c/d", here)}, "stable.txt v1/", "c/", "another"},
		{[]ledger.Entry{remove("v1/c/d", here)}, "stable.txt", "v1/ does not exist", "the last of a folder"},
		{[]ledger.Entry{set("v1/a", here)}, "stable.txt v1/", "a", "a file that is back"},
	} {
		p.record(step.entries...)
		if got := list(t, c, ""); got != step.root {
			t.Errorf("after %s the root has %s, want %s", step.whatHappen, got, step.root)
		}
		if got := list(t, c, "v1"); got != step.v1 {
			t.Errorf("after %s v1 has %s, want %s", step.whatHappen, got, step.v1)
		}
	}
	if late := catalog.New(p.log.State, here); list(t, late, "") != "stable.txt v1/" || list(t, late, "v1") != "a" {
		t.Errorf("whoever comes later is told %s, and of v1 %s", list(t, late, ""), list(t, late, "v1"))
	}
	if _, _, err := c.List(t.Context(), "v2", "", 2); !errors.Is(err, folder.ErrNotExist) {
		t.Errorf("of no folder: %v", err)
	}
}

func TestEntrySaysWhatTheLedgerKnows(t *testing.T) {
	p := newProduction(t)
	c := catalog.New(p.log.State, here)
	empty, unsized, other := set("b-empty", here), set("c-unsized", here), set("d-sha512", here)
	empty.Size, empty.Digest = 0, digest.FromString("")
	unsized.Size = 0
	other.Digest = digest.SHA512.FromString("x")
	p.record(set("a", here), empty, unsized, other)
	entries, _, err := c.List(t.Context(), "", "", 10)
	if err != nil || len(entries) != 4 {
		t.Fatalf("%v, %v", entries, err)
	}
	appended, _ := p.log.State().LookupFull(here + "/a")
	want := folder.Entry{Name: "a", SHA256: digest.FromString("a").Encoded(), Size: 1, Modified: appended.Time, ContentType: "text/plain"}
	if entries[0] != want {
		t.Errorf("got %+v, want %+v", entries[0], want)
	}
	if entries[1].Size != 0 || entries[2].Size != -1 || entries[3].SHA256 != "" {
		t.Errorf("got %+v", entries[1:])
	}
}

func TestRevokedFilesAreNotListed(t *testing.T) {
	p := newProduction(t)
	c := catalog.New(p.log.State, here)
	for _, name := range []string{"a", "b", "c", "d"} {
		p.record(set(name, here))
	}
	revocation := ledger.Entry{Action: ledger.Revoke, Kind: ledger.File, Name: string(digest.FromString("b")), Digest: digest.FromString("b"), Reason: "bad"}
	p.record(revocation)
	if got := list(t, c, ""); got != "a c d" {
		t.Errorf("got %s", got)
	}
	d, err := folder.Sums(t.Context(), c, &folder.Request{})
	if err != nil || strings.Contains(string(d.Body), digest.FromString("b").Encoded()) {
		t.Errorf("the sums are\n%s%v", d.Body, err)
	}
	revocation.Action = ledger.Unrevoke
	p.record(revocation)
	if got := list(t, c, ""); got != "a b c d" {
		t.Errorf("taken back: %s", got)
	}
}

func TestNamesAreThoseBelowTheDestinationsInTheirOrder(t *testing.T) {
	p := newProduction(t)
	c := catalog.New(p.log.State, here+"/files", there)
	p.record(
		set("deeper", here+"/files/v1"), set("same", here+"/files"), set("files/shallower", here), set("files2/x", here), set("x", here+"/filesystem"),
		set("second", there), set("both", here+"/files"), set("both", there), set("deleted", here+"/files"), set("deleted", there),
	)
	p.record(remove("deleted", here+"/files"), remove("both", there))
	if got := list(t, c, ""); got != "both same second shallower v1/" {
		t.Errorf("got %s", got)
	}
	if got := list(t, c, "v1"); got != "deeper" {
		t.Errorf("got %s", got)
	}
	// By its first destination it was deleted: nodes say so, whatever the second has.
	p.record(remove("both", here+"/files"))
	if got := list(t, c, ""); got != "same second shallower v1/" {
		t.Errorf("got %s", got)
	}
}

func TestPathsThatNoURLLeadsToAreNotListed(t *testing.T) {
	p := newProduction(t)
	c := catalog.New(p.log.State, here)
	for _, name := range []string{"a/../b", "./x", "a//b", "..", "fine/...", "folder/"} {
		e := set(name, here)
		// The ledger itself may refuse some.
		_, _ = p.log.Append(t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return []ledger.Entry{e}, nil })
	}
	if got := list(t, c, "") + " " + list(t, c, "fine"); got != "fine/ ..." {
		t.Errorf("got %s", got)
	}
}

func TestManyMayAskWhileTheLedgerGrows(t *testing.T) {
	p := newProduction(t)
	c := catalog.New(p.log.State, here)
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for last := 0; last < 50; {
				entries, _, err := c.List(t.Context(), "f", "", 100)
				if err != nil && !errors.Is(err, folder.ErrNotExist) || len(entries) < last {
					t.Errorf("%d entries after %d: %v", len(entries), last, err)
					return
				}
				last = len(entries)
			}
		})
	}
	for i := range 50 {
		p.record(set(fmt.Sprintf("f/%d", i), here))
	}
	asking.Wait()
}

// BenchmarkCatalog has 100,000 files in 500 folders, each at 22 destinations.
func BenchmarkCatalog(b *testing.B) {
	p := newProduction(b)
	destinations := []string{here}
	for i := range 21 {
		destinations = append(destinations, fmt.Sprintf("s3://mirror-%d/release", i+10))
	}
	var entries []ledger.Entry
	for i := range 100000 {
		name := fmt.Sprintf("v1.%d.0/bin/linux/component-%d.tar.gz", i/200, i%200)
		if i >= 95000 {
			name = fmt.Sprintf("v2.0.0/component-%d.tar.gz", i)
		}
		entries = append(entries, set(name, destinations...))
	}
	p.record(entries...)
	b.Run("built", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := catalog.New(p.log.State, here).List(b.Context(), "", "", 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("5000 entries", func(b *testing.B) {
		c := catalog.New(p.log.State, here)
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := c.List(b.Context(), "v2.0.0", "", 5000); err != nil {
				b.Fatal(err)
			}
		}
	})
}

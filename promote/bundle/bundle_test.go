package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func blobOf(n int) []byte { return bytes.Repeat([]byte{byte(n), byte(n >> 8)}, 700*(n+1)) }

func add(t *testing.T, w *Writer, n int) {
	t.Helper()
	b := blobOf(n)
	if err := w.Add(digest.FromBytes(b), int64(len(b)), copyTo(b)); err != nil {
		t.Fatal(err)
	}
}

// What a crash can leave of a bundle, cut at any byte, is gone on with, and comes to the
// same bytes.
func TestBundleIsGoneOnWithWhereverItWasCut(t *testing.T) {
	for _, split := range []int64{0, 4096, 5000} {
		write := func(path string) {
			w, err := Create(t.Context(), path, split)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 6 {
				add(t, w, n)
			}
			if err := w.Finish(t.Context(), new(Contents), nil, ledger.Checkpoint{}); err != nil {
				t.Fatal(err)
			}
		}
		whole := filepath.Join(t.TempDir(), "bundle.tar")
		write(whole)
		want := bytesOf(t, whole, split)
		for cut := 0; cut < len(want); cut += 997 {
			path := filepath.Join(t.TempDir(), "bundle.tar")
			v := &volume{path: path, split: split}
			if _, err := v.Write(want[:cut]); err != nil {
				t.Fatal(err)
			}
			if err := v.close(); err != nil {
				t.Fatal(err)
			}
			write(path)
			if got := bytesOf(t, path, split); !bytes.Equal(got, want) {
				t.Fatalf("split at %d and cut at %d: %d bytes, want %d", split, cut, len(got), len(want))
			}
			r, err := Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			for n := range 6 {
				section, ok := r.Content(digest.FromBytes(blobOf(n)))
				if !ok {
					t.Fatalf("blob %d is not there", n)
				}
				if got, err := io.ReadAll(section); err != nil || !bytes.Equal(got, blobOf(n)) {
					t.Fatalf("blob %d: %d bytes, %v", n, len(got), err)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Create(t.Context(), whole, split); !errors.Is(err, fs.ErrExist) {
			t.Errorf("a bundle that is complete: %v", err)
		}
	}
}

func bytesOf(t *testing.T, path string, split int64) []byte {
	t.Helper()
	v, err := openVolume(path, split)
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	b, err := io.ReadAll(io.NewSectionReader(v, 0, v.size))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBlobThatChangedOnTheDiskIsNotKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle.tar")
	w, err := Create(t.Context(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 1)
	add(t, w, 2)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-600] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if w, err = Create(t.Context(), path, 0); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if !w.Has(digest.FromBytes(blobOf(1))) || w.Has(digest.FromBytes(blobOf(2))) {
		t.Errorf("held: %v", w.held)
	}
}

func TestContentThatIsNotWhatItShouldBeIsTakenAwayAgain(t *testing.T) {
	w, err := Create(t.Context(), filepath.Join(t.TempDir(), "bundle.tar"), 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	before := w.vol.size
	right := blobOf(3)
	for what, b := range map[string][]byte{"other bytes": bytes.Repeat([]byte("x"), len(right)), "too few": right[:100], "too many": append(slices.Clip(right), 'x')} {
		if err := w.Add(digest.FromBytes(right), int64(len(right)), copyTo(b)); err == nil || w.vol.size != before {
			t.Errorf("%s: %v, and %d bytes more", what, err, w.vol.size-before)
		}
	}
	add(t, w, 3)
}

func TestBundleBegunWithAnotherSplitIsToldApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle.tar")
	w, err := Create(t.Context(), path, 2000)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 3)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(t.Context(), path, 1500); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with smaller parts: %v", err)
	}
	if _, err := Create(t.Context(), path, 4000); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with larger parts: %v", err)
	}
}

// digestOf is that of blobOf.
func digestOf(n int) digest.Digest { return digest.FromBytes(blobOf(n)) }

// entryOf is an entry about an image at registry.test.
func entryOf(action ledger.Action, name string, n int) ledger.Entry {
	e := ledger.Entry{Kind: ledger.Image, Action: action, Name: name, Destinations: []string{"registry.test"}, Digest: digestOf(n)}
	if action == ledger.Delete {
		e.Digest = ""
	}
	return e
}

// stateOf is that of a ledger with some entries.
func stateOf(t *testing.T, entries ...ledger.Entry) *ledger.State {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := ledger.GenerateKey("origin.test/ledger", file); err != nil {
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
	if _, err := log.Append(t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return entries, nil }); err != nil {
		t.Fatal(err)
	}
	return log.State()
}

// calls is what an importer knows the ledger to call each upstream.
func calls(names ...string) func(ledger.Kind, string) []string {
	return func(ledger.Kind, string) []string { return names }
}

func TestContentsAreHeldAgainstTheLedger(t *testing.T) {
	state := stateOf(t,
		entryOf(ledger.Set, "app:v1", 1), entryOf(ledger.Set, "app:moved", 1), entryOf(ledger.Set, "app:moved", 2),
		entryOf(ledger.Set, "app:gone", 1), entryOf(ledger.Delete, "app:gone", 0), entryOf(ledger.Set, "app:bad", 3),
		ledger.Entry{Action: ledger.Revoke, Name: digestOf(3).String(), Digest: digestOf(3), Reason: "it is bad"},
	)
	for _, row := range []struct {
		tag     string
		n       int
		unknown bool
		right   bool
	}{
		{"v1", 1, false, true},
		{"v1", 2, false, false},
		{"v1", 2, true, false}, // what the ledger knows otherwise is never taken
		{"moved", 2, false, true},
		{"moved", 1, false, false}, // in the log, and not the newest
		{"gone", 1, true, false},
		{"bad", 3, true, false},
		{"never", 1, false, false},
		{"never", 1, true, true},
	} {
		c := Contents{Images: []Image{{Upstream: "near.test", Repository: "app", Tag: row.tag, Root: ocispec.Descriptor{Digest: digestOf(row.n)}}}}
		err := c.Check(state, calls("registry.test"), row.unknown)
		if (err == nil) != row.right || err != nil && !errors.Is(err, ErrUnproven) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

// Nothing signs entrepot.json: whoever carries a bundle could have sandbox/app:v1 prove what
// app:v1 is.
func TestBundleIsNotBelievedAboutWhatTheLedgerCallsAnUpstream(t *testing.T) {
	state := stateOf(t, entryOf(ledger.Set, "app:v1", 1), entryOf(ledger.Set, "sandbox/app:v1", 2))
	c, err := parseContents(fmt.Appendf(nil, `{"version": 1,
		"upstreams": [{"name": "registry.test", "kind": "image", "names": ["registry.test/sandbox"]}],
		"images": [{"upstream": "registry.test", "repository": "app", "tag": "v1", "root": {"digest": %q}}]}`, digestOf(2)))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		called  []string
		unknown bool
		right   bool
	}{
		{[]string{"registry.test"}, false, false},
		{[]string{"registry.test"}, true, false},
		{nil, false, false}, // an upstream without a ledger: nothing proves its names
		{nil, true, true},
		{[]string{"registry.test/sandbox"}, false, true}, // the importer's own word
		{[]string{"registry.test", "registry.test/sandbox"}, false, false},
	} {
		if err := c.Check(state, calls(row.called...), row.unknown); (err == nil) != row.right || err != nil && !errors.Is(err, ErrUnproven) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

func TestBundleWithoutAPartOrWithAChangedOneIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bundle.tar")
	w, err := Create(t.Context(), path, 3000)
	if err != nil {
		t.Fatal(err)
	}
	add(t, w, 4)
	if err := w.Finish(t.Context(), new(Contents), nil, ledger.Checkpoint{}); err != nil {
		t.Fatal(err)
	}
	for _, given := range []string{path, path + ".002", dir, path + ".sha256sums"} {
		r, err := Open(t.Context(), given)
		if err != nil {
			t.Fatalf("%s: %v", given, err)
		}
		_ = r.Close()
	}
	part := fmt.Sprintf("%s.%03d", path, 2)
	content, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	content[100] ^= 1
	if err := os.WriteFile(part, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with a part that changed: %v", err)
	}
	if err := os.Remove(part); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrIncomplete) {
		t.Errorf("without a part: %v", err)
	}
}

func TestWhatIsAttachedHasNoTagOfAnImage(t *testing.T) {
	subject := digestOf(1)
	about := "sha256-" + subject.Encoded()
	for tag, right := range map[string]bool{
		"": true, about: true, about + ".sig": true, about + ".att": true,
		"v1": false, "latest": false, about + "x": false, "sha256-" + digestOf(2).Encoded() + ".sig": false,
	} {
		_, err := parseContents(fmt.Appendf(nil, `{"version": 1, "images": [{"upstream": "registry.test", "repository": "app", "tag": "v1",
			"root": {"digest": %[1]q}, "attached": [{"subject": %[1]q, "tag": %[2]q, "descriptor": {"digest": %[3]q}}]}]}`, subject, tag, digestOf(3)))
		if (err == nil) != right || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", tag, err)
		}
	}
}

// copyTo reads content from memory.
func copyTo(content []byte) func(io.Writer) error {
	return func(to io.Writer) error {
		_, err := io.Copy(to, bytes.NewReader(content))
		return err
	}
}

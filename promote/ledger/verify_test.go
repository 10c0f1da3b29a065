package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// testLog is a log of 600 entries in a directory, with the checkpoints of 100
// and of 300 entries.
func testLog(t *testing.T) (dir string, l *Log, key Key, older []Checkpoint) {
	t.Helper()
	dir, key = t.TempDir(), testKey(t)
	l = openLog(t, NewDir(dir), key)
	mustAppend(t, l, namesFrom(0, 100)...)
	older = append(older, l.Checkpoint())
	mustAppend(t, l, namesFrom(100, 200)...)
	older = append(older, l.Checkpoint())
	mustAppend(t, l, namesFrom(300, 300)...)
	return dir, l, key, older
}

// objects are the paths of what a log's readers read, of one size.
func objects(size uint64) []string {
	tr := new(tree)
	paths := []string{checkpointPath}
	emit := func(o object) { paths = append(paths, o.path) }
	for tr.size < size {
		tr.add(nil, emit)
	}
	tr.emitPartial(0, emit)
	return paths
}

func TestVerifyFindsEveryAlteredCutOrMissingObject(t *testing.T) {
	dir, _, key, _ := testLog(t)
	mustVerify(t, NewDir(dir), key)
	damage := map[string]func([]byte) []byte{
		"a bit flipped":   func(b []byte) []byte { b = slices.Clone(b); b[len(b)/2] ^= 1; return b },
		"the end missing": func(b []byte) []byte { return b[:len(b)-1] },
		"empty":           func([]byte) []byte { return nil },
		"missing":         nil,
	}
	for _, path := range objects(600) {
		file := filepath.Join(dir, path)
		good, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, spoil := range damage {
			if spoil == nil {
				err = os.Remove(file)
			} else {
				err = os.WriteFile(file, spoil(good), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = Verify(t.Context(), NewDir(dir), Config{Key: key})
			if !errors.Is(err, ErrCorrupt) && !(path == checkpointPath && (errors.Is(err, ErrSignature) || errors.Is(err, ErrNotExist))) {
				t.Errorf("%s, %s: %v, want ErrCorrupt", path, name, err)
			}
			if path != checkpointPath && err != nil && !strings.Contains(err.Error(), path) && !strings.HasPrefix(path, entriesPrefix) {
				t.Errorf("%s, %s: %v does not name it", path, name, err)
			}
			if err := os.WriteFile(file, good, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustVerify(t, NewDir(dir), key)
}

func TestALogOfAnotherKeyIsRefused(t *testing.T) {
	dir, _, _, _ := testLog(t)
	other := testKey(t) // of the same name
	if _, err := New(t.Context(), NewDir(dir), Config{Key: other}); !errors.Is(err, ErrSignature) {
		t.Errorf("opening: %v, want ErrSignature", err)
	}
	if _, err := Verify(t.Context(), NewDir(dir), Config{Key: other}); !errors.Is(err, ErrSignature) {
		t.Errorf("verifying: %v, want ErrSignature", err)
	}
	if _, err := Verify(t.Context(), NewDir(dir), Config{AnyKey: true}); err != nil {
		t.Errorf("verifying by any key: %v", err)
	}
	if _, err := New(t.Context(), NewDir(dir), Config{}); err == nil {
		t.Error("opened without a key")
	}
}

// Who can write to the bucket can put a head there, but not sign it.
func TestAHeadThatTheKeyDidNotSignIsNotFinished(t *testing.T) {
	dir, l, key, _ := testLog(t)
	data, err := os.ReadFile(filepath.Join(dir, headPath))
	if err != nil {
		t.Fatal(err)
	}
	b := l.State().extend()
	leaf, err := b.addEntry(setEntry("evil", "evil:v1"), someTime)
	if err != nil {
		t.Fatal(err)
	}
	tr := l.current.Load().tree.clone()
	tr.add(leaf, nil)
	forged := &head{start: 600, size: 601, hash: tr.root(), leaves: appendToBundle(nil, leaf)}
	signedByOther, err := forged.sign(testKey(t).Signer)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := forged.sign(key.Signer)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{
		"signed by another key": signedByOther,
		"signed, then changed":  bytes.Replace(signed, []byte("evil:v1"), []byte("evil:v2"), 1),
		"signed, then cut":      signed[:len(signed)-1],
		"cut short":             data[:len(data)-1],
		"an entry more":         appendToBundle(slices.Clone(data), leaf),
		"empty":                 nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, headPath), bad, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := openLog(t, NewDir(dir), key).Append(t.Context(), func(*State) ([]Entry, error) { return namesFrom(600, 1), nil })
		if !errors.Is(err, ErrSignature) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrSignature or ErrCorrupt", name, err)
		}
	}
	if n := mustVerify(t, NewDir(dir), key).State.Len(); n != 600 {
		t.Errorf("%d entries, want 600 still", n)
	}
}

func TestAProofShowsAnEntryToWhoeverHasTheKey(t *testing.T) {
	_, l, key, _ := testLog(t)
	public := Config{Key: Key{Verifier: key.Verifier}}
	for _, sequence := range []uint64{0, 1, 255, 256, 599} {
		p, err := l.Prove(t.Context(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var read Proof
		if err := json.Unmarshal(text, &read); err != nil {
			t.Fatal(err)
		}
		e, err := read.Verify(public)
		want := slices.Collect(l.State().Entries(sequence))[0]
		if err != nil || e.Name != want.Name || e.Digest != want.Digest || !slices.Equal(e.Destinations, want.Destinations) {
			t.Errorf("entry %d: proved %+v, %v", sequence, e, err)
		}
		for name, spoil := range map[string]func(p *Proof){
			"another digest":     func(p *Proof) { p.Leaf = strings.Replace(p.Leaf, "sha256:", "sha256:0", 1) },
			"another name":       func(p *Proof) { p.Leaf = strings.Replace(p.Leaf, ":v", ":w", 1) },
			"a shorter path":     func(p *Proof) { p.Path = p.Path[1:] },
			"another checkpoint": func(p *Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "600", "601", 1) },
			"other destinations": func(p *Proof) { p.Set, p.SetPath = p.Leaf, p.Path },
		} {
			bad := p
			spoil(&bad)
			_, err := bad.Verify(public)
			if sequence == 0 && name == "other destinations" {
				continue // its leaf spells them out, and Set is not looked at
			}
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrSignature) {
				t.Errorf("entry %d with %s: %v", sequence, name, err)
			}
		}
	}
	if _, err := l.Prove(t.Context(), 600); !errors.Is(err, ErrNotExist) {
		t.Errorf("proving an entry that is not there: %v", err)
	}
}

func TestAnExtensionProofConnectsTwoCheckpoints(t *testing.T) {
	_, l, _, older := testLog(t)
	for _, from := range append(older, l.Checkpoint(), Checkpoint{}) {
		proof, err := l.ProveExtension(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckExtension(from, l.Checkpoint(), proof); err != nil {
			t.Errorf("from %d entries: %v", from.Size, err)
		}
		if from.Size == 0 || from.Size == 600 {
			continue
		}
		forked := from
		forked.Hash[0] ^= 1
		if err := CheckExtension(forked, l.Checkpoint(), proof); !errors.Is(err, ErrFork) {
			t.Errorf("from other %d entries: %v, want ErrFork", from.Size, err)
		}
		if err := CheckExtension(l.Checkpoint(), from, proof); !errors.Is(err, ErrRollback) {
			t.Errorf("back to %d entries: %v, want ErrRollback", from.Size, err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	key := testKey(f)
	checkpoint, err := signCheckpoint(key.Signer, 12, new(tree).root())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(checkpoint.Signed)
	f.Add([]byte("origin.example.org/ledger\n12\nAAAA\n\n— origin.example.org/ledger AAAAAAAA\n"))
	head, err := (&head{start: 3, size: 4, leaves: appendToBundle(nil, []byte("x"))}).sign(key.Signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	cfg, anyKey := Config{Key: key}, Config{AnyKey: true}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := cfg.openCheckpoint(data); err == nil && !bytes.Equal(data, checkpoint.Signed) && c.Size != checkpoint.Size {
			t.Errorf("%q was taken for signed", data)
		}
		if c, err := anyKey.openCheckpoint(data); err == nil {
			opened, noteErr := note.Open(data, note.VerifierList())
			var unverified *note.UnverifiedNoteError
			if noteErr == nil && opened == nil || noteErr != nil && !errors.As(noteErr, &unverified) || c.Origin == "" {
				t.Errorf("%q was taken for a note: %+v", data, c)
			}
		}
		_, _ = cfg.openHead(data) // must not panic
	})
}

func TestOpenNeedsAKnownPlace(t *testing.T) {
	for _, location := range []string{"", "ledger", "file://", "file:///a%", "ftp://host/ledger", "https://", "https://host/ledger?x=1", "s3://", "s3:///prefix", "s3://UPPER/x"} {
		if s, err := OpenStorage(location); err == nil {
			t.Errorf("OpenStorage(%q) = %v", location, s)
		}
	}
	dir := t.TempDir()
	l, err := Open(context.Background(), "file://"+dir+"/with%20space", Config{Key: testKey(t)})
	if err != nil || l.State().Len() != 0 {
		t.Fatalf("opening a log that is not there: %v", err)
	}
	if _, err := os.Stat(dir + "/with space"); !errors.Is(err, os.ErrNotExist) {
		t.Error("opening a log made its directory")
	}
	mustAppend(t, l, namesFrom(0, 1)...)
	mustVerify(t, NewDir(dir+"/with space"), testKeyOf(l))
}

func testKeyOf(l *Log) Key { return l.cfg.Key }

func TestS3IsFoundByTheEnvironment(t *testing.T) {
	for endpoint, want := range map[string]string{
		"127.0.0.1:9000":          "http://127.0.0.1:9000",
		"localhost:9000":          "http://localhost:9000",
		"s3.example.org":          "https://s3.example.org",
		"http://minio.local:9000": "http://minio.local:9000",
		"":                        "",
	} {
		t.Setenv("AWS_ENDPOINT_URL", endpoint)
		t.Setenv("AWS_REGION", "eu-central-1")
		cfg, err := s3FromEnvironment()
		if err != nil || cfg.Endpoint != want || cfg.Region != "eu-central-1" {
			t.Errorf("AWS_ENDPOINT_URL=%s: %+v, %v, want %s", endpoint, cfg, err, want)
		}
	}
}

// FuzzServedLog replaces an object of a log, as who serves it to others can: it is the
// log that was signed, or it is refused.
func FuzzServedLog(f *testing.F) {
	key := testKey(f)
	signed := newMemory()
	l := openLog(f, signed, key)
	mustAppend(f, l, namesFrom(0, 300)...)
	root, paths := l.Checkpoint(), slices.Sorted(maps.Keys(signed.objects))
	for i, path := range paths {
		object := signed.objects[path]
		f.Add(i, object)
		f.Add(i, object[:len(object)/2])
		f.Add(i, append(bytes.Clone(object), object...))
	}
	f.Fuzz(func(t *testing.T, at int, object []byte) {
		path := paths[uint(at)%uint(len(paths))]
		served := signed.copy()
		served.objects[path] = object
		isSame := bytes.Equal(object, signed.objects[path])
		if report, err := Verify(t.Context(), served, Config{Key: key}); err == nil && (report.Checkpoint.Size != root.Size || report.Checkpoint.Hash != root.Hash) {
			t.Errorf("%s replaced by %d bytes is a log: %+v", path, len(object), report)
		} else if isSame && err != nil {
			t.Errorf("the log itself: %v", err)
		}
		follower := newFollower(t, FollowerConfig{Source: served, Key: Key{Verifier: key.Verifier}})
		if err := follower.Poll(t.Context()); err == nil && follower.Status().Checkpoint.Hash != root.Hash {
			t.Errorf("%s replaced by %d bytes is followed: %+v", path, len(object), follower.Status())
		}
	})
}

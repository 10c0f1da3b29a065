package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// appliersAtOnce has appliers with a log each append to one storage, and checks
// that each of their entries is there once, in each one's own order.
func appliersAtOnce(t *testing.T, s Storage, appliers, each int) {
	t.Helper()
	key := testKey(t)
	var group sync.WaitGroup
	for a := range appliers {
		group.Go(func() {
			l, err := New(t.Context(), s, Config{Key: key})
			if err != nil {
				t.Errorf("applier %d: %v", a, err)
				return
			}
			for i := range each {
				// Lots of 40, so that bundles fill while they contend.
				var lot []Entry
				for j := range 40 {
					lot = append(lot, setEntry("coredns", fmt.Sprintf("applier-%d:%d-%d", a, i, j)))
				}
				if _, err := l.Append(t.Context(), func(*State) ([]Entry, error) { return lot, nil }); err != nil {
					t.Errorf("applier %d: %v", a, err)
					return
				}
			}
		})
	}
	group.Wait()
	checkLots(t, mustVerify(t, s, key).State, appliers, each, 40)
}

// checkLots checks that a state has the lots of all appliers, whole and in order.
func checkLots(t *testing.T, s *State, appliers, each, lot int) {
	t.Helper()
	if want := uint64(appliers * each * lot); s.Len() != want {
		t.Errorf("%d entries, want %d", s.Len(), want)
	}
	last := make(map[string]string)
	for e := range s.Entries(0) {
		applier, number, _ := strings.Cut(e.Name, ":")
		var i, j, previousI, previousJ int
		fmt.Sscanf(number, "%d-%d", &i, &j)
		previousI, previousJ = 0, -1
		if previous, ok := last[applier]; ok {
			fmt.Sscanf(previous, "%d-%d", &previousI, &previousJ)
		}
		if i*lot+j != previousI*lot+previousJ+1 {
			t.Fatalf("entry %d of %s is %s, after %s", e.Sequence, applier, number, last[applier])
		}
		last[applier] = number
	}
}

func TestProcessesAtOnceLoseAndForkNothing(t *testing.T) {
	dir := t.TempDir()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := GenerateKey("origin.example.org/ledger", keyFile); err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const processes, each = 3, 40
	var group sync.WaitGroup
	for p := range processes {
		group.Go(func() {
			cmd := exec.CommandContext(t.Context(), binary, keyFile, fmt.Sprintf("process-%d", p), fmt.Sprint(each))
			cmd.Env = append(os.Environ(), appenderEnv+"="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("process %d: %v\n%s", p, err, out)
			}
		})
	}
	group.Wait()
	key, err := LoadKey(keyFile + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	checkLots(t, mustVerify(t, NewDir(dir), key).State, processes, 1, each)
}

// A killed process leaves whatever it was writing; what it was told is appended
// must be there.
func TestKilledProcessesLeaveALogThatGoesOn(t *testing.T) {
	dir := t.TempDir()
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := GenerateKey("origin.example.org/ledger", keyFile); err != nil {
		t.Fatal(err)
	}
	key, err := LoadKey(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var before uint64
	for round := range 3 {
		cmd := exec.CommandContext(t.Context(), binary, keyFile, fmt.Sprintf("round-%d", round), "100000")
		cmd.Env = append(os.Environ(), appenderEnv+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitForEntries(t, dir, key, before+20)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		l := openLog(t, NewDir(dir), key)
		mustAppend(t, l, setEntry("coredns", fmt.Sprintf("after-round:%d", round)))
		before = mustVerify(t, NewDir(dir), key).State.Len()
	}
}

func waitForEntries(t *testing.T, dir string, key Key, n uint64) {
	t.Helper()
	cfg := Config{Key: key}
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		checkpoint, _, err := cfg.readCheckpoint(t.Context(), NewDir(dir), "")
		if err == nil && checkpoint.Size >= n {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("the process appends nothing")
		}
	}
}

// crashing is a storage whose process ends before its n-th write, or, with
// torn, when that is done and before it is known.
type crashing struct {
	Storage
	mu    sync.Mutex
	left  int
	torn  bool
	wrote int
}

var errCrash = errors.New("crashed")

func (c *crashing) write(write func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return errCrash
	}
	c.left--
	c.wrote++
	err := write()
	if c.left == 0 && c.torn {
		return errCrash
	}
	return err
}

func (c *crashing) Read(ctx context.Context, path string, known Version) ([]byte, Version, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		return nil, "", errCrash
	}
	return c.Storage.Read(ctx, path, known)
}

func (c *crashing) Create(ctx context.Context, path string, data []byte) error {
	return c.write(func() error { return c.Storage.Create(ctx, path, data) })
}

func (c *crashing) Swap(ctx context.Context, path string, old Version, data []byte) error {
	return c.write(func() error { return c.Storage.Swap(ctx, path, old, data) })
}

func TestACrashAtAnyWriteLosesNothingAndTheNextAppendGoesOn(t *testing.T) {
	key := testKey(t)
	for _, torn := range []bool{false, true} {
		crashes := 0
		for left := 1; ; left++ {
			dir := NewDir(t.TempDir())
			mustAppend(t, openLog(t, dir, key), namesFrom(0, 250)...)

			// An append that fills a bundle, and then one of other entries by
			// somebody else.
			c := &crashing{Storage: dir, left: left, torn: torn}
			l := openLog(t, c, key)
			_, err := l.Append(t.Context(), func(*State) ([]Entry, error) { return namesFrom(1000, 20), nil })
			if err == nil {
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			crashes++
			mustVerify(t, dir, key) // whoever reads meanwhile finds all of it

			mustAppend(t, openLog(t, dir, key), namesFrom(2000, 270)...)
			s := mustVerify(t, dir, key).State
			committed := s.Len() - 250 - 270
			if committed != 0 && committed != 20 {
				t.Errorf("crash after write %d: %d of the 20 entries are there", left, committed)
			}
			if _, ok := s.Lookup(testDestinations("coredns", 1)[0], "coredns:v2269"); !ok {
				t.Errorf("crash after write %d: what was appended after it is not there", left)
			}
		}
		// Head, full and partial bundle, tile and partial tile of leaves, a tile
		// above, checkpoint.
		if crashes < 6 {
			t.Errorf("crashed at %d writes, want all 7 or, where the answer is lost, 6", crashes)
		}
	}
}

func TestWhatKilledProcessesLeftIsSweptAway(t *testing.T) {
	path, key := t.TempDir(), testKey(t)
	l := openLog(t, NewDir(path), key)
	mustAppend(t, l, namesFrom(0, 1)...)
	left, current := filepath.Join(path, tempDir, "new-1"), filepath.Join(path, tempDir, "new-2")
	for _, file := range []string{left, current} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(left, time.Time{}, time.Now().Add(-2*tempAge)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, namesFrom(1, 1)...)
	files, err := os.ReadDir(filepath.Join(path, tempDir))
	if err != nil || len(files) != 1 || files[0].Name() != "new-2" {
		t.Errorf("there are %v, %v, want only what may be in use", files, err)
	}
}

// hooked is a storage that calls a function around each swap.
type hooked struct {
	Storage
	before func(path string)
	after  func(path string, err error) error
}

func (h *hooked) Swap(ctx context.Context, path string, old Version, data []byte) error {
	if h.before != nil {
		h.before(path)
	}
	err := h.Storage.Swap(ctx, path, old, data)
	if h.after != nil {
		err = h.after(path, err)
	}
	return err
}

// An applier that sleeps between committing and publishing wakes up when others
// have finished its work and gone on. It must not put its older checkpoint over
// theirs.
func TestASlowApplierDoesNotRollTheCheckpointBack(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	others := openLog(t, dir, key)
	slept := false
	slow := openLog(t, &hooked{Storage: dir, before: func(path string) {
		if path == checkpointPath && !slept {
			slept = true
			mustAppend(t, others, namesFrom(100, 300)...)
		}
	}}, key)
	entries := mustAppend(t, slow, namesFrom(0, 5)...)
	if len(entries) != 5 || entries[4].Sequence != 4 {
		t.Errorf("the slow one appended %+v", entries)
	}
	if n := mustVerify(t, dir, key).State.Len(); n != 305 {
		t.Errorf("%d entries, want 305", n)
	}
	mustAppend(t, slow, namesFrom(500, 1)...)
	if n := mustVerify(t, dir, key).State.Len(); n != 306 {
		t.Errorf("%d entries, want 306", n)
	}
}

// A client of S3 sends a request again when its answer is lost, and is then
// told that it conflicts: with itself.
func TestACommitWhoseAnswerWasLostIsNotMadeTwice(t *testing.T) {
	for _, answer := range []error{ErrConflict, errors.New("connection reset by peer")} {
		dir, key := NewDir(t.TempDir()), testKey(t)
		decided := 0
		l := openLog(t, &hooked{Storage: dir, after: func(path string, err error) error {
			if path == headPath {
				return answer
			}
			return err
		}}, key)
		entries, err := l.Append(t.Context(), func(*State) ([]Entry, error) { decided++; return namesFrom(0, 3), nil })
		if err != nil || len(entries) != 3 || decided != 1 {
			t.Errorf("answer %v: appended %d entries in %d decisions, %v", answer, len(entries), decided, err)
		}
		if n := mustVerify(t, dir, key).State.Len(); n != 3 {
			t.Errorf("answer %v: %d entries, want 3", answer, n)
		}
	}
}

func TestADecisionIsMadeAnewWhenSomebodyElseWasFirst(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	mine, theirs := openLog(t, dir, key), openLog(t, dir, key)
	var saw []uint64
	entry := setEntry("coredns", "coredns:v1")
	_, err := mine.Append(t.Context(), func(s *State) ([]Entry, error) {
		saw = append(saw, s.Len())
		if len(saw) == 1 {
			mustAppend(t, theirs, entry)
		}
		if _, done := s.Lookup(entry.Destinations[0], entry.Name); done {
			return nil, nil
		}
		return []Entry{entry}, nil
	})
	if err != nil || len(saw) != 2 || saw[0] != 0 || saw[1] != 1 {
		t.Errorf("decided at %v entries, %v; want at 0, and again at 1", saw, err)
	}
	if n := mustVerify(t, dir, key).State.Len(); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func TestAppendReturnsTheErrorOfTheDecision(t *testing.T) {
	l := openLog(t, NewDir(t.TempDir()), testKey(t))
	want := errors.New("changed my mind")
	if _, err := l.Append(t.Context(), func(*State) ([]Entry, error) { return nil, want }); err != want { //nolint:errorlint // as it is
		t.Errorf("Append: %v, want %v", err, want)
	}
}

func TestABadEntryAppendsNothing(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	l := openLog(t, dir, key)
	good := setEntry("coredns", "coredns:v1")
	for name, spoil := range map[string]func(*Entry){
		"no name":                       func(e *Entry) { e.Name = "" },
		"a rooted name":                 func(e *Entry) { e.Name = "/etc/passwd" },
		"a control character":           func(e *Entry) { e.Name = "a\nb" },
		"no destinations":               func(e *Entry) { e.Destinations = nil },
		"a destination twice":           func(e *Entry) { e.Destinations = []string{"a.example.org", "a.example.org"} },
		"a slash after a destination":   func(e *Entry) { e.Destinations = []string{"a.example.org/"} },
		"a short digest":                func(e *Entry) { e.Digest = e.Digest[:70] },
		"no digest":                     func(e *Entry) { e.Digest = "" },
		"a previous that is none":       func(e *Entry) { e.Previous = "latest" },
		"a negative size":               func(e *Entry) { e.Size = -1 },
		"no kind":                       func(e *Entry) { e.Kind = "" },
		"an action that is none":        func(e *Entry) { e.Action = "move" },
		"a digest of what is deleted":   func(e *Entry) { e.Action = Delete },
		"a revocation by another name":  func(e *Entry) { e.Action, e.Destinations = Revoke, nil },
		"a revocation at a destination": func(e *Entry) { e.Action, e.Name = Revoke, string(e.Digest) },
		"a text that is not UTF-8":      func(e *Entry) { e.Reason = "\xff" },
		"a leaf that is too long":       func(e *Entry) { e.Reason = strings.Repeat("x", 1<<16) },
	} {
		bad := good
		spoil(&bad)
		_, err := l.Append(t.Context(), func(*State) ([]Entry, error) { return []Entry{good, bad}, nil })
		if err == nil || errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want an error that says so", name, err)
		}
	}
	if n := openLog(t, dir, key).State().Len(); n != 0 {
		t.Errorf("%d entries were appended", n)
	}
}

func TestWithoutAPrivateKeyALogIsReadOnly(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	mustAppend(t, openLog(t, dir, key), namesFrom(0, 1)...)
	l := openLog(t, dir, Key{Verifier: key.Verifier})
	if _, err := l.Append(t.Context(), func(*State) ([]Entry, error) { return namesFrom(1, 1), nil }); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Append: %v, want ErrReadOnly", err)
	}
}

func TestTimeNeverGoesBack(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	clock := time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	l, err := New(t.Context(), dir, Config{Key: key, Now: func() time.Time { return clock }})
	if err != nil {
		t.Fatal(err)
	}
	first := mustAppend(t, l, namesFrom(0, 1)...)[0].Time
	if want := time.Date(2026, 11, 23, 11, 0, 0, 123000000, time.UTC); !first.Equal(want) || first.Location() != time.UTC {
		t.Errorf("time %v, want %v", first, want)
	}
	clock = clock.Add(-time.Hour)
	if second := mustAppend(t, l, namesFrom(1, 1)...)[0].Time; !second.Equal(first) {
		t.Errorf("time %v after the clock went back, want %v still", second, first)
	}
}

func TestTwoThousandEntriesAtOnceCostFewObjects(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	c := &crashing{Storage: dir, left: 1000}
	mustAppend(t, openLog(t, c, key), namesFrom(0, 2000)...)
	// 8 bundles and tiles of the 7.8, each; the level above; head, checkpoint.
	if c.wrote != 8+8+1+2 {
		t.Errorf("%d objects were written, want 19", c.wrote)
	}
}

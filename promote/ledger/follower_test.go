package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func newFollower(t testing.TB, cfg FollowerConfig) *Follower {
	t.Helper()
	f, err := NewFollower(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustPoll(t testing.TB, f *Follower) {
	t.Helper()
	if err := f.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func fullName(version int) string {
	return fmt.Sprintf("%s/coredns:v%d", testDestinations("coredns", 1)[0], version)
}

func TestAFollowerReadsOnlyWhatIsNew(t *testing.T) {
	m, key := newMemory(), testKey(t)
	l := openLog(t, m, key)
	mustAppend(t, l, namesFrom(0, 600)...)
	m.takeReads()
	f := newFollower(t, FollowerConfig{Source: m, Key: Key{Verifier: key.Verifier}})
	want := func(paths ...string) {
		t.Helper()
		mustPoll(t, f)
		if got := m.takeReads(); !slices.Equal(got, paths) {
			t.Errorf("read %v, want %v", got, paths)
		}
	}
	want("checkpoint", "tile/entries/000", "tile/entries/001", "tile/entries/002.p/88")
	want()
	mustAppend(t, l, namesFrom(600, 2)...)
	m.takeReads()
	want("checkpoint", "tile/entries/002.p/90")
	if e, ok := f.Lookup(fullName(601)); !ok || e.Digest != testDigest("coredns"+"coredns:v601") {
		t.Errorf("the newest name is %+v, %v", e, ok)
	}
}

func TestChangesAreToldInOrderWhenTheyAreVisible(t *testing.T) {
	m, key := newMemory(), testKey(t)
	l := openLog(t, m, key)
	bad := testDigest("bad")
	var f *Follower
	var told []string
	f = newFollower(t, FollowerConfig{Source: m, Key: key, Changed: func(_ context.Context, entries []Entry) {
		for _, e := range entries {
			told = append(told, string(e.Action)+" "+e.Name)
		}
		last := entries[len(entries)-1]
		if reason, revoked := f.Revoked(bad); last.Action == Revoke && (!revoked || reason != "CVE-2026-1") {
			t.Errorf("told of a revocation that is not in force: %v, %q", revoked, reason)
		}
		if len(last.Destinations) > 0 {
			if e, ok := f.Lookup(last.Destinations[0] + "/" + last.Name); !ok || e.Sequence != last.Sequence {
				t.Errorf("told of entry %d, and the name is as of entry %d", last.Sequence, e.Sequence)
			}
		}
	}})
	if err := f.Poll(t.Context()); !errors.Is(err, ErrNotExist) {
		t.Errorf("polling a log that is not there: %v, want ErrNotExist", err)
	}
	gone := setEntry("coredns", "coredns:v1")
	gone.Action, gone.Digest = Delete, ""
	mustAppend(t, l, namesFrom(0, 2)...)
	mustPoll(t, f)
	mustAppend(t, l, gone)
	mustAppend(t, l, Entry{Action: Revoke, Name: string(bad), Digest: bad, Reason: "CVE-2026-1"})
	mustPoll(t, f)
	mustPoll(t, f)
	mustAppend(t, l, Entry{Action: Unrevoke, Name: string(bad), Digest: bad})
	mustPoll(t, f)
	want := []string{"set coredns:v0", "set coredns:v1", "delete coredns:v1", "revoke " + string(bad), "unrevoke " + string(bad)}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	if e, ok := f.Lookup(fullName(1)); !ok || e.Exists() {
		t.Errorf("the deleted name is %+v, %v; want to know that it was deleted", e, ok)
	}
	if _, revoked := f.Revoked(bad); revoked {
		t.Error("the revocation that was taken back is in force")
	}
}

// badLogs are logs that a follower of 300 entries must refuse, made of that log
// (good, with its key and 320 entries) and an older one with 100 entries.
func badLogs(t *testing.T, good, older *memory, key Key) map[string]struct {
	source *memory
	want   error
} {
	t.Helper()
	otherKey := testKey(t)
	unsigned := newMemory()
	mustAppend(t, openLog(t, unsigned, otherKey), namesFrom(0, 320)...)

	// The same beginning, and then other entries, signed by the key.
	forked := older.copy()
	mustAppend(t, openLog(t, forked, key), namesFrom(5000, 220)...)
	// As many entries as are known.
	forkedAtSize := older.copy()
	mustAppend(t, openLog(t, forkedAtSize, key), namesFrom(5000, 200)...)

	changed := func(path string, change func([]byte) []byte) *memory {
		m := good.copy()
		if data, ok := m.objects[path]; !ok {
			t.Fatalf("there is no %s", path)
		} else if data = change(slices.Clone(data)); data != nil {
			m.objects[path] = data
		} else {
			delete(m.objects, path)
		}
		return m
	}
	flip := func(b []byte) []byte { b[len(b)-20] ^= 1; return b }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	return map[string]struct {
		source *memory
		want   error
	}{
		"rolled back":                       {older, ErrRollback},
		"gone":                              {newMemory(), ErrRollback},
		"forked":                            {forked, ErrFork},
		"forked at the size that is known":  {forkedAtSize, ErrFork},
		"signed by another key":             {unsigned, ErrSignature},
		"a checkpoint that is altered":      {changed(checkpointPath, func(b []byte) []byte { return bytes.Replace(b, []byte("320"), []byte("319"), 1) }), ErrSignature},
		"a checkpoint that is cut short":    {changed(checkpointPath, half), ErrCorrupt},
		"a checkpoint that is prose":        {changed(checkpointPath, func([]byte) []byte { return []byte("<html>") }), ErrCorrupt},
		"an entry that is altered":          {changed("tile/entries/001.p/64", flip), ErrCorrupt},
		"a bundle that is cut short":        {changed("tile/entries/001.p/64", half), ErrCorrupt},
		"a bundle that is missing":          {changed("tile/entries/001.p/64", func([]byte) []byte { return nil }), ErrCorrupt},
		"a bundle that is larger than any":  {changed("tile/entries/001.p/64", func([]byte) []byte { return make([]byte, 20<<20) }), ErrCorrupt},
		"a checkpoint as large as anything": {changed(checkpointPath, func(b []byte) []byte { return append(b, make([]byte, 100<<10)...) }), ErrCorrupt},
	}
}

func TestALogThatIsNotAsItShouldBeIsRefusedAndTheLastGoodStateGoesOn(t *testing.T) {
	key := testKey(t)
	good := newMemory()
	l := openLog(t, good, key)
	mustAppend(t, l, namesFrom(0, 100)...)
	older := good.copy()
	mustAppend(t, l, namesFrom(100, 200)...)
	known := good.copy()
	mustAppend(t, l, namesFrom(300, 20)...)

	for name, bad := range badLogs(t, good, older, key) {
		t.Run(name, func(t *testing.T) {
			var source atomic.Pointer[memory]
			source.Store(known)
			// Over HTTP, as nodes read it.
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				data, _, err := source.Load().Read(r.Context(), strings.TrimPrefix(r.URL.Path, "/ledger/"), "")
				if err != nil {
					http.NotFound(w, r)
					return
				}
				w.Write(data)
			}))
			defer server.Close()
			reader, err := NewHTTP(server.URL+"/ledger", server.Client())
			if err != nil {
				t.Fatal(err)
			}
			var logs bytes.Buffer
			var results []PollResult
			dir := t.TempDir()
			cfg := FollowerConfig{
				Source: reader, Key: Key{Verifier: key.Verifier}, Copy: NewDir(dir),
				Logger: slog.New(slog.NewTextHandler(&logs, nil)),
				Polled: func(r PollResult) { results = append(results, r) },
			}
			f := newFollower(t, cfg)
			mustPoll(t, f)

			check := func(f *Follower) {
				t.Helper()
				source.Store(bad.source)
				for range 2 {
					if err := f.Poll(t.Context()); !errors.Is(err, bad.want) {
						t.Fatalf("Poll: %v, want %v", err, bad.want)
					}
					if last := results[len(results)-1]; !last.Refused() {
						t.Errorf("%v is told as no refusal", last.Err)
					}
				}
				if e, ok := f.Lookup(fullName(299)); !ok || e.Digest != testDigest("coredns"+"coredns:v299") || f.State().Len() != 300 {
					t.Errorf("the last good state does not go on: %+v, %v", e, ok)
				}
				if s := f.Status(); !errors.Is(s.Err, bad.want) || s.Checkpoint.Size != 300 {
					t.Errorf("status %+v", s)
				}
				source.Store(good)
				mustPoll(t, f)
				if f.State().Len() != 320 || f.Status().Err != nil {
					t.Errorf("when the log is good again: %d entries, %v", f.State().Len(), f.Status().Err)
				}
			}
			// A node that starts again with its copy refuses the same.
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			check(f)
			if n := strings.Count(logs.String(), "level=ERROR"); n != 1 {
				t.Errorf("%d errors were logged, want 1 for two refusals alike:\n%s", n, &logs)
			}
			if len(results) != 4 || !errors.Is(results[1].Err, bad.want) || results[3].Err != nil || results[3].New != 20 {
				t.Errorf("polls were told as %+v", results)
			}
			cfg.Copy = NewDir(copied)
			check(newFollower(t, cfg))
			mustVerify(t, NewDir(copied), key)
		})
	}
}

func TestAFollowersCopyIsALog(t *testing.T) {
	m, key, dir := newMemory(), testKey(t), t.TempDir()
	l := openLog(t, m, key)
	f := newFollower(t, FollowerConfig{Source: m, Key: key, Copy: NewDir(dir)})
	for _, n := range []int{3, 250, 1, 2, 600} {
		mustAppend(t, l, namesFrom(int(l.State().Len()), n)...)
		mustPoll(t, f)
		if report := mustVerify(t, NewDir(dir), key); report.Checkpoint.Hash != l.Checkpoint().Hash {
			t.Fatalf("the copy has %d entries, want %d", report.Checkpoint.Size, l.Checkpoint().Size)
		}
	}
	// The next start asks the source for nothing old, and works without it.
	m.takeReads()
	again := newFollower(t, FollowerConfig{Source: m, Key: key, Copy: NewDir(dir)})
	if e, ok := again.Lookup(fullName(855)); !ok || !e.Exists() {
		t.Errorf("after a start the newest name is %+v, %v", e, ok)
	}
	mustPoll(t, again)
	if reads := m.takeReads(); !slices.Equal(reads, []string{checkpointPath}) {
		t.Errorf("after a start, %v were read", reads)
	}
}

// A node whose copy cannot be read has its names from the source again, but
// still takes no log that lacks what the copy had.
func TestADamagedCopyStillRefusesARollback(t *testing.T) {
	m, key, dir := newMemory(), testKey(t), t.TempDir()
	l := openLog(t, m, key)
	mustAppend(t, l, namesFrom(0, 100)...)
	older := m.copy()
	mustAppend(t, l, namesFrom(100, 200)...)
	forked := older.copy()
	mustAppend(t, openLog(t, forked, key), namesFrom(7000, 300)...)
	mustPoll(t, newFollower(t, FollowerConfig{Source: m, Key: key, Copy: NewDir(dir)}))
	if err := os.WriteFile(dir+"/tile/entries/000", []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, source := range map[error]*memory{ErrRollback: older, ErrFork: forked} {
		f := newFollower(t, FollowerConfig{Source: source, Key: key, Copy: NewDir(dir)})
		if err := f.Poll(t.Context()); !errors.Is(err, want) {
			t.Errorf("Poll: %v, want %v", err, want)
		}
	}
	var logs bytes.Buffer
	f := newFollower(t, FollowerConfig{Source: m, Key: key, Copy: NewDir(dir), Logger: slog.New(slog.NewTextHandler(&logs, nil))})
	mustPoll(t, f)
	if f.State().Len() != 300 || !strings.Contains(logs.String(), "remove it") {
		t.Errorf("%d entries, and logged %q", f.State().Len(), &logs)
	}
	if err := os.WriteFile(dir+"/checkpoint", []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFollower(t.Context(), FollowerConfig{Source: m, Key: key, Copy: NewDir(dir)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("with a damaged checkpoint: %v, want ErrCorrupt", err)
	}
}

func TestAFollowerGoesOnWhenItsCopyCannotBeWrittenAndCatchesUp(t *testing.T) {
	m, key := newMemory(), testKey(t)
	l := openLog(t, m, key)
	full := &crashing{Storage: newMemory(), left: 1 << 30}
	f := newFollower(t, FollowerConfig{Source: m, Key: key, Copy: full})
	mustAppend(t, l, namesFrom(0, 10)...)
	mustPoll(t, f)
	full.left = 0
	mustAppend(t, l, namesFrom(10, 500)...)
	mustPoll(t, f)
	if _, ok := f.Lookup(fullName(509)); !ok {
		t.Error("names are not followed")
	}
	full.left = 1 << 30
	mustPoll(t, f)
	if n := mustVerify(t, full, key).State.Len(); n != 510 {
		t.Errorf("the copy has %d entries, want 510", n)
	}
}

func TestAFollowerPollsEachInterval(t *testing.T) {
	m, key := newMemory(), testKey(t)
	l := openLog(t, m, key)
	mustAppend(t, l, namesFrom(0, 1)...)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var polls []time.Duration
		f := newFollower(t, FollowerConfig{Source: m, Key: key, Polled: func(PollResult) { polls = append(polls, time.Since(start)) }})
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if len(polls) < 9 || len(polls) > 12 {
			t.Errorf("%d polls in 10 seconds", len(polls))
		}
		for i := 1; i < len(polls); i++ {
			if gap := polls[i] - polls[i-1]; gap < 900*time.Millisecond || gap > 1100*time.Millisecond {
				t.Errorf("polls %v apart", gap)
			}
		}
	})
}

// hanging is a source that never answers.
type hanging struct{}

func (hanging) Read(ctx context.Context, _ string, _ Version) ([]byte, Version, error) {
	<-ctx.Done()
	return nil, "", ctx.Err()
}

func TestASourceThatHangsIsGivenUp(t *testing.T) {
	key := testKey(t)
	synctest.Test(t, func(t *testing.T) {
		f := newFollower(t, FollowerConfig{Source: hanging{}, Key: key})
		start := time.Now()
		if err := f.Poll(t.Context()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != defaultTimeout {
			t.Errorf("Poll: %v after %v", err, time.Since(start))
		}
	})
}

func TestNamesAreLookedUpWhileTheLogGrows(t *testing.T) {
	m, key := newMemory(), testKey(t)
	l := openLog(t, m, key)
	mustAppend(t, l, namesFrom(0, 10)...)
	f := newFollower(t, FollowerConfig{Source: m, Key: key})
	mustPoll(t, f)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, ok := f.Lookup(fullName(5)); !ok {
					t.Error("a name that was there is gone")
					return
				}
				f.Revoked(testDigest("x"))
				f.Status()
			}
		})
	}
	for i := range 50 {
		mustAppend(t, l, namesFrom(10+10*i, 10)...)
		mustPoll(t, f)
	}
	close(stop)
	readers.Wait()
	if n := f.State().Len(); n != 510 {
		t.Errorf("%d entries, want 510", n)
	}
}

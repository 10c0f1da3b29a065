package ledger

import (
	"context"
	"errors"
	"testing"
)

func TestNothingOfAStagedLedgerIsBelowBeforeItIsCommitted(t *testing.T) {
	ctx := t.Context()
	below, key := newMemory(), testKey(t)
	mustAppend(t, openLog(t, below, key), namesFrom(0, 300)...)
	before := len(below.objects)
	checkpoint, _, err := below.Read(ctx, checkpointPath, "")
	if err != nil {
		t.Fatal(err)
	}

	staged := NewStaged(below)
	mustAppend(t, openLog(t, staged, key), namesFrom(300, 300)...)
	if now, _, err := below.Read(ctx, checkpointPath, ""); err != nil || string(now) != string(checkpoint) || len(below.objects) != before {
		t.Errorf("%d objects are below, %d before: %v", len(below.objects), before, err)
	}
	f := newFollower(t, FollowerConfig{Source: staged, Key: key})
	mustPoll(t, f)
	mustPoll(t, f) // which is told that nothing changed
	if got := f.State().Len(); got != 600 {
		t.Errorf("who reads what is staged sees %d entries, want 600", got)
	}

	if err := staged.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	f = newFollower(t, FollowerConfig{Source: below, Key: key})
	mustPoll(t, f)
	if got := f.State().Len(); got != 600 {
		t.Errorf("%d entries are below, want 600", got)
	}
}

// full is a storage that has no room for more than some objects.
type full struct {
	Storage
	room int
}

func (f *full) take() error {
	if f.room--; f.room < 0 {
		return errors.New("no space left")
	}
	return nil
}

func (f *full) Create(ctx context.Context, path string, data []byte) error {
	if err := f.take(); err != nil {
		return err
	}
	return f.Storage.Create(ctx, path, data)
}

func (f *full) Swap(ctx context.Context, path string, old Version, data []byte) error {
	if err := f.take(); err != nil {
		return err
	}
	return f.Storage.Swap(ctx, path, old, data)
}

func TestACommitThatBreaksOffShowsNothingAndIsGoneOnWith(t *testing.T) {
	key := testKey(t)
	for room := range 50 {
		below := newMemory()
		mustAppend(t, openLog(t, below, key), namesFrom(0, 300)...)
		narrow := &full{Storage: below, room: room}
		staged := NewStaged(narrow)
		mustAppend(t, openLog(t, staged, key), namesFrom(300, 300)...)
		err := staged.Commit(t.Context())
		if err == nil {
			if room == 0 {
				t.Fatal("nothing was written")
			}
			return
		}
		f := newFollower(t, FollowerConfig{Source: below, Key: key})
		mustPoll(t, f)
		if got := f.State().Len(); got != 300 {
			t.Errorf("with room for %d objects there are %d entries, want 300", room, got)
		}
		narrow.room = 100
		if err := staged.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustPoll(t, f)
		if got := f.State().Len(); got != 600 {
			t.Errorf("after another commit there are %d entries, want 600", got)
		}
	}
	t.Error("it takes more than 50 writes")
}

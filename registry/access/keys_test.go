package access

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keySource has a set with one key of each id, or fails, and counts who reads it.
type keySource struct {
	mu       sync.Mutex
	ids      []string
	failure  error
	readings int
}

func (s *keySource) becomes(failure error, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids, s.failure = ids, failure
}

func (s *keySource) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readings
}

func (s *keySource) read(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readings++
	if s.failure != nil {
		return nil, s.failure
	}
	var set jose.JSONWebKeySet
	for _, id := range s.ids {
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: public, KeyID: id})
	}
	return json.Marshal(set)
}

func TestKeysAreReadAgainAndTheLastGoodOnesHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &keySource{ids: []string{"old"}}
		k, err := newKeys("https://auth.test/keys", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		k.read = source.read
		ctx, end := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer end()
		go k.run(ctx)
		has := func(id string) bool {
			t.Helper()
			found, err := k.find(t.Context(), id, string(jose.EdDSA))
			if err != nil {
				t.Fatal(err)
			}
			return len(found) > 0
		}
		synctest.Wait()
		if !has("old") || source.count() != 1 {
			t.Fatalf("%d readings at the start", source.count())
		}
		time.Sleep(keysEvery - time.Second)
		if synctest.Wait(); source.count() != 1 {
			t.Errorf("%d readings before it is time", source.count())
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); source.count() != 2 {
			t.Errorf("%d readings after %v", source.count(), keysEvery)
		}

		// A new key is found when it is needed, and made-up ones cost nothing.
		source.becomes(nil, "old", "new")
		time.Sleep(keysPause)
		if !has("new") || source.count() != 3 {
			t.Errorf("the new key was not found, after %d readings", source.count())
		}
		for range 100 {
			if has("made up") {
				t.Error("a key that nobody has")
			}
		}
		if source.count() != 3 {
			t.Errorf("%d readings for made-up keys", source.count())
		}
		time.Sleep(keysPause + time.Second)
		for range 100 {
			has("made up")
		}
		if source.count() != 4 {
			t.Errorf("%d readings for made-up keys once the pause was over; want one more", source.count())
		}

		// While it fails, the last good set holds; then a key that left does not.
		source.becomes(errors.New("the server is down"))
		time.Sleep(keysEvery + keysPause)
		if synctest.Wait(); !has("old") || source.count() < 5 {
			t.Errorf("the last good keys do not hold, after %d readings", source.count())
		}
		source.becomes(nil, "new")
		time.Sleep(2 * keysPause)
		if synctest.Wait(); has("old") || !has("new") {
			t.Error("the keys that are in force are not those of the last reading")
		}
	})
}

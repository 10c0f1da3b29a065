package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"entrepot/e2e/testenv"
)

// storages are those that a log can be written to, each with a function that
// makes an empty one.
func storages() map[string]func(t *testing.T) func() Storage {
	inBucket := func(start func(testing.TB) *testenv.S3Server) func(t *testing.T) func() Storage {
		return func(t *testing.T) func() Storage {
			server := start(t)
			bucket := server.NewBucket(t)
			t.Setenv("AWS_ENDPOINT_URL", server.Endpoint)
			t.Setenv("AWS_REGION", server.Region)
			t.Setenv("AWS_ACCESS_KEY_ID", server.AccessKey)
			t.Setenv("AWS_SECRET_ACCESS_KEY", server.SecretKey)
			var n atomic.Int64
			return func() Storage {
				s, err := OpenStorage(fmt.Sprintf("s3://%s/logs/%d", bucket, n.Add(1)))
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
		}
	}
	all := map[string]func(t *testing.T) func() Storage{
		"directory": func(t *testing.T) func() Storage {
			return func() Storage { return NewDir(t.TempDir() + "/not/there/yet") }
		},
		"staged": func(t *testing.T) func() Storage {
			return func() Storage { return NewStaged(NewDir(t.TempDir())) }
		},
	}
	for _, server := range testenv.S3Servers() {
		all[server.Name] = inBucket(server.Start)
	}
	return all
}

func TestStorages(t *testing.T) {
	for name, start := range storages() {
		t.Run(name, func(t *testing.T) {
			open := start(t)
			t.Run("an object that is not there does not exist", func(t *testing.T) {
				s := open()
				for _, path := range []string{checkpointPath, "tile/0/000", "tile/0/000.p/1", "tile/entries/x001/000"} {
					if _, _, err := s.Read(t.Context(), path, ""); !errors.Is(err, ErrNotExist) {
						t.Errorf("Read(%s): %v, want ErrNotExist", path, err)
					}
				}
			})
			t.Run("an object is created once", func(t *testing.T) { createdOnce(t, open()) })
			t.Run("partial and full tiles stand side by side", func(t *testing.T) { sideBySide(t, open()) })
			t.Run("an object is swapped by its version", func(t *testing.T) { swapped(t, open()) })
			t.Run("one of many swaps wins", func(t *testing.T) { oneSwapWins(t, open()) })
			t.Run("one of many creations wins", func(t *testing.T) { oneCreationWins(t, open()) })
			t.Run("an object larger than any is refused", func(t *testing.T) {
				s := open()
				if err := s.Create(t.Context(), "tile/0/000", make([]byte, 8193)); err != nil {
					t.Fatal(err)
				}
				if _, _, err := s.Read(t.Context(), "tile/0/000", ""); !errors.Is(err, ErrCorrupt) {
					t.Errorf("Read: %v, want ErrCorrupt", err)
				}
			})
			t.Run("appliers at once lose and fork nothing", func(t *testing.T) { appliersAtOnce(t, open(), 6, 5) })
		})
	}
}

func createdOnce(t *testing.T, s Storage) {
	const path = "tile/entries/000.p/3"
	for range 2 { // the same again is no error
		if err := s.Create(t.Context(), path, []byte("three")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Create(t.Context(), path, []byte("other")); !errors.Is(err, ErrConflict) {
		t.Errorf("Create with other bytes: %v, want ErrConflict", err)
	}
	data, version, err := s.Read(t.Context(), path, "")
	if err != nil || string(data) != "three" || version == "" {
		t.Fatalf("Read = %q, version %q, %v", data, version, err)
	}
	if _, _, err := s.Read(t.Context(), path, version); !errors.Is(err, ErrNotModified) {
		t.Errorf("Read of a known version: %v, want ErrNotModified", err)
	}
}

func sideBySide(t *testing.T, s Storage) {
	paths := []string{"tile/0/000", "tile/0/000.p/7", "tile/0/000.p/255", "tile/0/x001/000", "tile/entries/000", "tile/entries/000.p/7"}
	for _, path := range paths {
		if err := s.Create(t.Context(), path, []byte(path)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range paths {
		if data, _, err := s.Read(t.Context(), path, ""); err != nil || string(data) != path {
			t.Errorf("Read(%s) = %q, %v", path, data, err)
		}
	}
}

func swapped(t *testing.T, s Storage) {
	if err := s.Swap(t.Context(), checkpointPath, "bogus", []byte("one")); !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNotExist) {
		t.Errorf("Swap of a version of what is not there: %v", err)
	}
	if err := s.Swap(t.Context(), checkpointPath, "", []byte("one")); err != nil {
		t.Fatal(err)
	}
	if err := s.Swap(t.Context(), checkpointPath, "", []byte("again")); !errors.Is(err, ErrConflict) {
		t.Errorf("Swap of nothing when there is something: %v, want ErrConflict", err)
	}
	_, one, err := s.Read(t.Context(), checkpointPath, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Swap(t.Context(), checkpointPath, one, []byte("two")); err != nil {
		t.Fatal(err)
	}
	if err := s.Swap(t.Context(), checkpointPath, one, []byte("three")); !errors.Is(err, ErrConflict) {
		t.Errorf("Swap of an old version: %v, want ErrConflict", err)
	}
	data, two, err := s.Read(t.Context(), checkpointPath, one)
	if err != nil || string(data) != "two" || two == one {
		t.Errorf("Read = %q, version %q after %q, %v", data, two, one, err)
	}
}

func oneSwapWins(t *testing.T, s Storage) {
	if err := s.Swap(t.Context(), checkpointPath, "", []byte("start")); err != nil {
		t.Fatal(err)
	}
	_, version, err := s.Read(t.Context(), checkpointPath, "")
	if err != nil {
		t.Fatal(err)
	}
	won := contend(t, func(data []byte) error { return s.Swap(t.Context(), checkpointPath, version, data) })
	if data, _, err := s.Read(t.Context(), checkpointPath, ""); err != nil || !bytes.Equal(data, won) {
		t.Errorf("Read = %q, %v, want the winner's %q", data, err, won)
	}
}

func oneCreationWins(t *testing.T, s Storage) {
	won := contend(t, func(data []byte) error { return s.Create(t.Context(), "tile/0/000", data) })
	if data, _, err := s.Read(t.Context(), "tile/0/000", ""); err != nil || !bytes.Equal(data, won) {
		t.Errorf("Read = %q, %v, want the winner's %q", data, err, won)
	}
}

// contend makes different writes at once, of which one must win, and returns
// what that wrote.
func contend(t *testing.T, write func(data []byte) error) []byte {
	t.Helper()
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		won   [][]byte
	)
	for i := range 12 {
		group.Go(func() {
			data := fmt.Appendf(nil, "writer %d", i)
			err := write(data)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, data)
			} else if !errors.Is(err, ErrConflict) {
				t.Errorf("writer %d: %v, want ErrConflict", i, err)
			}
		})
	}
	group.Wait()
	if len(won) != 1 {
		t.Fatalf("%d writers won: %q", len(won), won)
	}
	return won[0]
}

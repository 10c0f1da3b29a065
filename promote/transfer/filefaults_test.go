package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/promote/transfer"
)

func TestCopyFileSaysWhoIsWrong(t *testing.T) {
	client := newClient(t)
	for _, test := range []struct {
		name, from, to, want string // contents, want's digest
		kind                 error
	}{
		{"source lost", "", "", "content", transfer.ErrNotFound},
		{"source has other bytes", "other", "", "content", transfer.ErrCorrupt},
		{"destination has other bytes", "content", "other", "content", transfer.ErrConflict},
	} {
		t.Run(test.name, func(t *testing.T) {
			from, to := t.TempDir(), t.TempDir()
			for dir, content := range map[string]string{from: test.from, to: test.to} {
				if content != "" {
					if err := os.WriteFile(filepath.Join(dir, "tool"), []byte(content), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			_, err := client.CopyFile(t.Context(), transfer.FileCopy{
				From: openStore(t, client, "file://"+from), To: openStore(t, client, "file://"+to),
				Name: "tool", SHA256: digest.FromString(test.want),
			})
			if !errors.Is(err, test.kind) {
				t.Errorf("error %v, want %v", err, test.kind)
			}
		})
	}
}

func TestADirectorysLinksThatLeadOutAreRefused(t *testing.T) {
	outside, base := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"file": outside + "/secret", "dir": outside, "up": "../" + filepath.Base(outside)} {
		if err := os.Symlink(target, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	client := newClient(t)
	store := openStore(t, client, "file://"+base)
	for _, name := range []string{"file", "dir/secret", "up/secret"} {
		if _, err := store.Open(t.Context(), name, 0); err == nil {
			t.Errorf("%s was opened", name)
		}
		if err := put(t.Context(), store, name, "mine", true); err == nil && name != "file" {
			t.Errorf("%s was written", name)
		}
	}
	if content, _ := os.ReadFile(filepath.Join(outside, "secret")); string(content) != "secret" {
		t.Errorf("the file outside has %q", content)
	}
}

func TestAnInterruptedPutLeavesNothingUnderTheName(t *testing.T) {
	base := t.TempDir()
	store := openStore(t, newClient(t), "file://"+base)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, "half ")
		cancel()
		w.CloseWithError(ctx.Err())
	}()
	if err := store.Put(ctx, file("dir/tool", []byte("half done")), false, r); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	old := filepath.Join(base, ".entrepot-tmp", "left by a crash")
	if err := os.WriteFile(old, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), store, "other", "x", false); err != nil {
		t.Fatal(err)
	}
	var found []string
	_ = filepath.WalkDir(base, func(path string, entry os.DirEntry, _ error) error {
		if !entry.IsDir() {
			found = append(found, filepath.Base(path))
		}
		return nil
	})
	if !slices.Equal(found, []string{"other"}) {
		t.Errorf("found %q", found)
	}
}

func TestFilesSurviveABrokenSourceAndABrokenDestination(t *testing.T) {
	from, to := newFakeWebStore(t), newFakeWebStore(t)
	content := string(randomBytes(1 << 20))
	from.put("tool", content)
	var gets, puts atomic.Int32
	from.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || gets.Add(1) > 1 {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = io.WriteString(w, content[:300_000])
		panic(http.ErrAbortHandler)
	}
	to.fault = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		switch puts.Add(1) {
		case 1:
			panic(http.ErrAbortHandler)
		case 2:
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			return false
		}
		return true
	}
	client := newClient(t, func(c *transfer.Config) { c.DockerConfig = to.login(t) })
	_, err := client.CopyFile(t.Context(), transfer.FileCopy{
		From: openStore(t, client, from.url()), To: openStore(t, client, to.url()), Name: "tool", SHA256: digest.FromString(content),
	})
	if err != nil || string(to.files["tool"]) != content {
		t.Fatal(err)
	}
	if puts.Load() != 3 {
		t.Errorf("%d PUTs, want 3", puts.Load())
	}
}

func TestAWrongPasswordIsToldWithoutIt(t *testing.T) {
	web := newFakeWebStore(t)
	host := strings.TrimPrefix(web.URL, "http://")
	for _, config := range []string{writeDockerConfig(t, host, "guess"), t.TempDir() + "/none.json"} {
		client := newClient(t, func(c *transfer.Config) { c.DockerConfig = config })
		store := openStore(t, client, web.url())
		if err := put(t.Context(), store, "tool", "content", false); !errors.Is(err, transfer.ErrUnauthorized) || strings.Contains(err.Error(), "guess") {
			t.Errorf("Put: %v", err)
		}
		web.put("there", "content")
		if err := store.Delete(t.Context(), "there"); !errors.Is(err, transfer.ErrUnauthorized) {
			t.Errorf("Delete: %v", err)
		}
	}
}

func TestStoresThatCannotBeAreRefused(t *testing.T) {
	client := newClient(t)
	for _, url := range []string{
		"", "dir", "file://", "ftp://host/x", "s3://", "s3://UP CASE/x", "s3://bucket/../x", "https://", "https://user:secret@host/x", "https://host/x?y",
	} {
		_, err := client.OpenFileStore(t.Context(), url)
		if !errors.Is(err, transfer.ErrUnsupported) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
}

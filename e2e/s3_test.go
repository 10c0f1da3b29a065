package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// s3Store is the store section of a node whose content lies in a bucket, behind
// a directory that holds at most cacheSize.
func s3Store(t *testing.T, s3 *testenv.S3Server, cacheDir, cacheSize string) map[string]any {
	t.Helper()
	return map[string]any{
		"s3": map[string]any{
			"endpoint": s3.Endpoint, "bucket": s3.NewBucket(t), "region": s3.Region,
			"access_key": s3.AccessKey, "secret_key": s3.SecretKey,
		},
		"cache": map[string]any{"dir": cacheDir, "max_size": cacheSize},
	}
}

func TestS3StoreServesTheSamePulls(t *testing.T) {
	for _, server := range testenv.S3Servers() {
		t.Run(server.Name, func(t *testing.T) {
			s3, registry := server.Start(t), testenv.StartRegistry(t)
			clients := pullers(publish(t, registry.Host(), false))
			upstream := testenv.StartTap(t, registry.URL())
			cache := filepath.Join(t.TempDir(), "cache")
			node := startNode(t, upstream.URL(), testenv.NodeConfig{Store: s3Store(t, s3, cache, "1GiB"), Race: true})
			from := node.Source(upstreamName)

			for _, client := range clients {
				t.Run(client.name, func(t *testing.T) { client.pull(t, from) })
			}
			t.Run("every blob came from upstream once", func(t *testing.T) {
				var pulled []testenv.Artifact
				for _, client := range clients {
					pulled = append(pulled, client.pulls...)
				}
				fetchedOnce(t, upstream.Requests(), pulled)
			})
			// A node on a new machine: no upstream, no directory, only the bucket.
			upstream.Close()
			node.Stop()
			if err := os.RemoveAll(cache); err != nil {
				t.Fatalf("emptying the directory in front of the bucket: %v", err)
			}
			node.Start()
			for _, client := range clients {
				t.Run(client.name+" from the bucket alone", func(t *testing.T) { client.pull(t, from) })
			}
		})
	}
}

// Clients that upstream could serve notice nothing of a store that goes away
// and comes back.
func TestS3StoppedAndStartedUnderLoad(t *testing.T) {
	const (
		files    = 40
		fileSize = 256 << 10 // bytes
		workers  = 8
		rounds   = 120 // requests answered before the store goes, while it is away, and after
	)
	for _, server := range testenv.S3Servers() {
		t.Run(server.Name, func(t *testing.T) {
			s3, registry := server.Start(t), testenv.StartRegistry(t)
			var blobs []digest.Digest
			for i := range files {
				file := testenv.PushFile(t, registry.Host(), "library/files", strconv.Itoa(i), fileSize)
				blobs = append(blobs, file.Blobs[0].Digest)
			}
			upstream := testenv.StartTap(t, registry.URL())
			// Half of the files find room in front of the bucket, in the directory
			// or in memory: the other hits are read from S3.
			node := startNode(t, upstream.URL(), testenv.NodeConfig{
				Store: s3Store(t, s3, t.TempDir(), "4MiB"),
				Extra: map[string]any{"memory": "1MiB"},
				Race:  true,
			})
			base := node.URL() + "/v2/" + upstreamName + "/library/files/blobs/"

			// The first part of the load asks for half of the blobs, so that the
			// node meets the outage with blobs it stored and blobs it did not.
			var served, asked atomic.Int64
			var reach atomic.Int64
			reach.Store(files / 2)
			ctx, stop := context.WithCancel(t.Context())
			var load sync.WaitGroup
			for range workers {
				load.Go(func() {
					for ctx.Err() == nil {
						blob := blobs[asked.Add(1)%reach.Load()]
						if err := fetch(ctx, base, blob); err != nil && ctx.Err() == nil {
							t.Errorf("under load: %v", err)
							stop()
							return
						}
						served.Add(1)
					}
				})
			}
			await := func(what string) {
				t.Helper()
				awaitServed(ctx, t, &served, rounds, what)
			}
			await("with the store there")
			s3.Stop()
			await("with the store away, of blobs it holds")
			reach.Store(files)
			await("with the store away, of all blobs")
			s3.Start()
			await("with the store back")
			stop()
			load.Wait()

			t.Run("the store is used again", func(t *testing.T) {
				storesAgain(t, upstream, base, blobs)
			})
		})
	}
}

// awaitServed returns when n more requests have been answered.
func awaitServed(ctx context.Context, t *testing.T, served *atomic.Int64, n int64, what string) {
	t.Helper()
	goal := served.Load() + n
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for served.Load() < goal {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.FailNow()
		case <-deadline:
			t.Fatalf("%s: %d of %d requests were answered in a minute", what, n-(goal-served.Load()), n)
		}
	}
}

// storesAgain checks that every blob is served without upstream, after each
// was asked for once while upstream was there. The node may take a moment to
// notice that its store is back.
func storesAgain(t *testing.T, upstream *testenv.Tap, base string, blobs []digest.Digest) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		upstream.Reset()
		for _, blob := range blobs {
			if err := fetch(t.Context(), base, blob); err != nil {
				t.Fatalf("with the store back: %v", err)
			}
		}
		if len(upstream.Requests()) == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("a minute after the store came back, blobs still come from upstream: %v", upstream.Requests())
		}
	}
	upstream.Close()
	for _, blob := range blobs {
		if err := fetch(t.Context(), base, blob); err != nil {
			t.Errorf("with the store back and upstream gone: %v", err)
		}
	}
}

// requestTimeout is what a client may have to wait for a small blob: less than
// the 30 seconds after which containerd gives up on response headers.
const requestTimeout = 20 * time.Second

// fetch gets a blob and verifies it.
func fetch(ctx context.Context, base string, blob digest.Digest) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+blob.String(), nil)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", blob, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", blob, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("fetching %s: %s", blob, response.Status)
	}
	got, err := digest.FromReader(response.Body)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", blob, err)
	}
	if got != blob {
		return fmt.Errorf("fetching %s: a complete body with digest %s", blob, got)
	}
	return nil
}

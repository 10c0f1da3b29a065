package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"entrepot/blobstore/pause"
)

const mib = 1 << 20

// startCase starts the node with an empty store.
func (w *world) startCase() *benchmark {
	return &benchmark{
		name: "start", title: "Start",
		servers: w.some(entrepot),
		prepare: func(t testing.TB, s *server) { s.fresh(t) },
		run: func(t testing.TB, s *server) sample {
			wait(t, time.Second) // until what a start leaves to do is done
			return sample{
				"start": s.start.Seconds() * 1e3,
				"idle":  float64(s.process.RSS()) / mib,
			}
		},
		figures: []figure{
			{key: "start", title: "until ready", unit: milliseconds, goal: goal{most: 1000}},
			{key: "idle", title: "resident memory when idle", unit: mebibytes, goal: goal{most: 50}},
		},
	}
}

// memoryCase tells the most resident memory over the cases before it.
func (w *world) memoryCase() *benchmark {
	return &benchmark{
		name: "memory", title: "All of the above",
		servers: w.some(entrepot, nginxCache, nginxStatic, distribution, varnish),
		run: func(_ testing.TB, s *server) sample {
			return sample{"peak": float64(s.peakRSS()) / mib}
		},
		once: true,
		figures: []figure{
			{key: "peak", title: "resident memory at its peak", unit: mebibytes, goal: goal{most: 120}},
		},
	}
}

// wait waits for d, or less when the benchmark is interrupted.
func wait(t testing.TB, d time.Duration) {
	t.Helper()
	if err := pause.For(t.Context(), d); err != nil {
		t.Fatalf("measuring: %v", err)
	}
}

// profile writes what a node's processors did while it ran f, which takes
// about as long as told, and its heap after that, to files in dir named for
// the case.
func profile(t testing.TB, s *server, dir, name string, took time.Duration, f func()) {
	t.Helper()
	progress("%s, once more for its profile", name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatalf("profiling %s: %v", name, err)
	}
	fetched := make(chan error, 1)
	go func() {
		path := fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(took.Seconds())+1)
		fetched <- fetch(t.Context(), s.admin+path, filepath.Join(dir, name+".cpu.pprof"))
	}()
	wait(t, 200*time.Millisecond) // until it is being profiled
	f()
	err := <-fetched
	if err == nil {
		err = fetch(t.Context(), s.admin+"/debug/pprof/heap", filepath.Join(dir, name+".heap.pprof"))
	}
	if err != nil {
		t.Fatalf("profiling %s: %v", name, err)
	}
}

// fetch writes what url gives to a file.
func fetch(ctx context.Context, url, file string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("reading %s: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("reading %s: %s: %s", url, response.Status, body)
	}
	return os.WriteFile(file, body, 0o600)
}

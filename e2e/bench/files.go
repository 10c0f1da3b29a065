package main

import (
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The files that are served by name, in a folder whose content never changes.
const (
	warmFile, warmFileBytes = "release/v1.0.0/large", 64 << 20
	tinyFile, tinyFileBytes = "release/v1.0.0/tiny", 4 << 10
)

// startFiles starts a server of files, which the node and its peers have theirs
// from. It is not measured.
func (w *world) startFiles(t testing.TB) {
	t.Helper()
	w.files = t.TempDir()
	for name, size := range map[string]int{warmFile: warmFileBytes, tinyFile: tinyFileBytes} {
		content := make([]byte, size)
		_, _ = rand.Read(content) // it never fails
		path := filepath.Join(w.files, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatalf("writing files: %v", err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatalf("writing files: %v", err)
		}
	}
	if err := os.Chmod(w.files, 0o755); err != nil {
		t.Fatalf("writing files: %v", err)
	}
	server := httptest.NewServer(http.FileServer(http.Dir(w.files)))
	t.Cleanup(server.Close)
	w.filesURL = server.URL
}

// fileDescriptor says what a file is.
func (w *world) fileDescriptor(t testing.TB, name string) ocispec.Descriptor {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(w.files, name))
	if err != nil {
		t.Fatalf("reading a file: %v", err)
	}
	return ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// warmFileCase downloads a file that every server has, again and again.
func (w *world) warmFileCase() *benchmark {
	const path = "/files/" + warmFile
	return &benchmark{
		name: "file-large", title: "Warm 64 MiB file, 4 clients",
		servers: w.some(entrepot, nginxStatic, nginxCache),
		prepare: func(t testing.TB, s *server) { s.ask(t, path) },
		run: func(t testing.TB, s *server) sample {
			const clients = 4
			before := s.cpu()
			c := gather(t, s, path, warmFileBytes, clients, warmDownloads/clients)
			gigabytes := float64(warmFileBytes*warmDownloads) / 1e9
			return sample{"speed": gigabytes / c.wall(), "cpu": (s.cpu() - before).Seconds() / gigabytes}
		},
		verify: func(t testing.TB, s *server) { verify(t, s, path, w.fileDescriptor(t, warmFile)) },
		figures: []figure{
			{key: "speed", unit: gigabytesPerSecond, goal: goal{peer: nginxStatic, least: 0.95}},
			{key: "cpu", title: "server CPU", unit: secondsPerGigabyte, goal: goal{peer: nginxStatic}},
		},
	}
}

// tinyFileCase asks for a small file as fast as the server answers.
func (w *world) tinyFileCase(wrk, missing string, o options) *benchmark {
	const path = "/files/" + tinyFile
	return &benchmark{
		name: "file-tiny", title: "Warm 4 KiB file", missing: missing,
		servers: w.some(entrepot, nginxCache, nginxStatic),
		prepare: func(t testing.TB, s *server) { s.ask(t, path) },
		run: func(t testing.TB, s *server) sample {
			before := s.cpu()
			out := runWrk(t, wrk, s.url+path, o.wrkSeconds)
			return sample{"rate": out.perSecond, "cpu": (s.cpu() - before).Seconds() * 1e6 / out.requests}
		},
		verify: func(t testing.TB, s *server) { verify(t, s, path, w.fileDescriptor(t, tinyFile)) },
		figures: []figure{
			{key: "rate", unit: perSecond, goal: goal{peer: nginxCache, least: 0.9}},
			{key: "cpu", title: "server CPU a request", unit: microseconds, goal: goal{peer: nginxCache}},
		},
	}
}

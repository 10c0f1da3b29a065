package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
)

const (
	wrkConnections = 64
	wrkThreads     = 2
	// warmDownloads is how often a warm blob is downloaded in one run, by all
	// clients together: 3 GiB, of which a clock of 10 ms measures the
	// processor time to about a hundredth.
	warmDownloads = 48
)

// manifestCase asks for the small image's manifest, by reference, as fast as
// the server answers.
func (w *world) manifestCase(name, title, reference, wrk, missing string, o options) *benchmark {
	path := manifestPath(w.small, reference)
	return &benchmark{
		name: name, title: title, missing: missing,
		servers: w.some(entrepot, nginxCache, distribution),
		prepare: func(t testing.TB, s *server) { s.ask(t, path) },
		run: func(t testing.TB, s *server) sample {
			before := s.cpu()
			out := runWrk(t, wrk, s.url+path, o.wrkSeconds)
			spent := s.cpu() - before
			return sample{
				"rate": out.perSecond,
				"cpu":  spent.Seconds() * 1e6 / out.requests,
			}
		},
		verify: func(t testing.TB, s *server) { verifyManifest(t, s, path, w.small.Root.Digest) },
		figures: []figure{
			{key: "rate", unit: perSecond, goal: goal{peer: nginxCache, least: 0.9}},
			{key: "cpu", title: "server CPU a request", unit: microseconds, goal: goal{peer: nginxCache}},
		},
	}
}

// wrkOutput is what wrk said.
type wrkOutput struct {
	requests  float64
	perSecond float64
}

// runWrk keeps asking for url on some connections for some seconds.
func runWrk(t testing.TB, wrk, url string, seconds int) wrkOutput {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), wrk,
		"-t", strconv.Itoa(wrkThreads), "-c", strconv.Itoa(wrkConnections), "-d", fmt.Sprintf("%ds", seconds),
		"-H", "Accept: "+acceptManifest, url)
	said, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("running wrk: %v\n%s", err, said)
	}
	out, err := parseWrk(said)
	if err != nil {
		t.Fatalf("running wrk on %s: %v", url, err)
	}
	return out
}

// parseWrk reads the summary that wrk prints. Requests that failed are an
// error, because a server is quick to refuse.
func parseWrk(said []byte) (wrkOutput, error) {
	var out wrkOutput
	for _, trouble := range []string{"Socket errors:", "Non-2xx or 3xx responses:"} {
		if bytes.Contains(said, []byte(trouble)) {
			return out, fmt.Errorf("some requests failed:\n%s", said)
		}
	}
	for expression, to := range map[string]*float64{
		`(?m)^\s*([0-9]+) requests in `:   &out.requests,
		`(?m)^Requests/sec:\s*([0-9.]+)$`: &out.perSecond,
	} {
		found := regexp.MustCompile(expression).FindSubmatch(said)
		if found == nil {
			return out, fmt.Errorf("no %s in\n%s", expression, said)
		}
		n, err := strconv.ParseFloat(string(found[1]), 64)
		if err != nil || n <= 0 {
			return out, fmt.Errorf("no positive number for %s in\n%s", expression, said)
		}
		*to = n
	}
	return out, nil
}

// warmBlobCase downloads the small blob, which every server has, again and
// again, by some clients at once.
func (w *world) warmBlobCase(name, title string, clients int) *benchmark {
	desc := blob(w.small)
	path := blobPath(w.small, desc.Digest)
	return &benchmark{
		name: name, title: title,
		servers: w.some(entrepot, nginxStatic, nginxCache, distribution),
		prepare: func(t testing.TB, s *server) { s.ask(t, path) },
		run: func(t testing.TB, s *server) sample {
			before := s.cpu()
			c := gather(t, s, path, desc.Size, clients, warmDownloads/clients)
			gigabytes := float64(desc.Size*warmDownloads) / 1e9
			return sample{
				"speed": gigabytes / c.wall(),
				"cpu":   (s.cpu() - before).Seconds() / gigabytes,
			}
		},
		verify: func(t testing.TB, s *server) { verify(t, s, path, desc) },
		figures: []figure{
			{key: "speed", unit: gigabytesPerSecond, goal: goal{peer: nginxStatic, least: 0.95}},
			{key: "cpu", title: "server CPU", unit: secondsPerGigabyte, goal: goal{peer: nginxStatic, most: 1.15}},
		},
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/e2e/testenv"
)

// usage is what a process holds.
type usage struct {
	goroutines, files int
}

// slack is how much more than before the load a process may hold after it: the
// connections that it keeps for the next request, each with two goroutines.
const slack = 24

// measured are the processes of entrepot, by the URL of their admin listener.
func (w *world) measured() map[string]string {
	admin := map[string]string{"origin": w.Origin.AdminURL(), "router": w.Router.AdminURL()}
	for _, r := range w.Regions {
		admin[r.Name] = r.Node.AdminURL()
	}
	return admin
}

func (w *world) usages() map[string]usage {
	all := map[string]usage{}
	for name, admin := range w.measured() {
		goroutines, err := goroutines(admin)
		if err != nil {
			w.t.Errorf("counting the goroutines of %s: %v", name, err)
		}
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", w.processes[name].PID()))
		if err != nil {
			w.t.Errorf("counting the files of %s: %v", name, err)
		}
		all[name] = usage{goroutines, len(open)}
	}
	return all
}

var goroutineTotal = regexp.MustCompile(`^goroutine profile: total (\d+)`)

func goroutines(admin string) (int, error) {
	text, err := read(admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		return 0, err
	}
	total := goroutineTotal.FindStringSubmatch(text)
	if total == nil {
		return 0, fmt.Errorf("a profile that begins with %.40q", text)
	}
	return strconv.Atoi(total[1])
}

// readWithin bounds what an admin listener is asked: its process may have no network,
// until whoever asks goes on.
const readWithin = 10 * time.Second

// read is what an admin listener says.
func read(url string) (string, error) {
	_, text, err := askAdmin(url)
	return string(text), err
}

// askAdmin asks an admin listener, also for what its header says.
func askAdmin(url string) (header http.Header, text []byte, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), readWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("Authorization", "Bearer "+testenv.AdminToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	text, err = io.ReadAll(response.Body)
	return response.Header, text, err
}

// backTo waits until all processes hold what they held before the load.
func (w *world) backTo(before map[string]usage) map[string]usage {
	var now map[string]usage
	settled := func(name string) bool {
		return now[name].goroutines <= before[name].goroutines+slack && now[name].files <= before[name].files+slack
	}
	for start := time.Now(); ; {
		now = w.usages()
		over := slices.DeleteFunc(slices.Sorted(maps.Keys(now)), settled)
		if len(over) == 0 {
			return now
		}
		if time.Since(start) > 2*time.Minute || pause.For(w.t.Context(), time.Second) != nil {
			for _, name := range over {
				w.tally.add(leaks, 1)
				profile, _ := read(w.measured()[name] + "/debug/pprof/goroutine?debug=1")
				w.t.Errorf("%s held %+v before the load, and holds %+v after it\n%.8000s", name, before[name], now[name], profile)
			}
			return now
		}
	}
}

// noFills waits until nothing is on its way into any node.
func (w *world) noFills() {
	for _, r := range w.Regions {
		idle := w.until("no fill runs in "+r.Name, stuckAfter, func() bool {
			text, err := read(r.Node.AdminURL() + "/metrics")
			return err == nil && strings.Contains(text, "entrepot_fills_in_progress{role=\"node\"} 0")
		})
		if !idle {
			w.tally.add(stuck, 1)
		}
	}
}

// countStore takes in what a node's store did since it was started, before that is
// forgotten.
func (w *world) countStore(node string) {
	if w.dirs[node] == "" {
		return // it is none
	}
	text, err := read(w.measured()[node] + "/metrics")
	if err != nil {
		return
	}
	for name, metric := range map[string]string{evicted: "entrepot_store_evictions_total", rotten: "entrepot_store_quarantined_total"} {
		var n float64
		if _, rest, ok := strings.Cut(text, "\n"+metric+`{role="node"} `); ok {
			_, _ = fmt.Sscan(rest, &n)
		}
		w.tally.add(name, int64(n))
	}
}

// countChanges takes in what the relays changed.
func (w *world) countChanges() {
	for _, r := range w.links {
		w.tally.add(changed, int64(r.Harm().Changed))
	}
}

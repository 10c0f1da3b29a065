package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"
	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/promotetest"

	"golang.org/x/sync/errgroup"
)

// planRounds is how often the plan is made; the table has the median.
const planRounds = 3

// rehearsal is what all runs have in common.
type rehearsal struct {
	options
	entrepot, crane string
	staging         *testenv.Registry
	release         *release
	held            []*config.Project // what was promoted before
	table           *table
}

// rehearse does all runs.
func rehearse(t testing.TB, o options) *table {
	t.Helper()
	progress("building entrepot")
	r := &rehearsal{
		options: o, entrepot: harness.BuildEntrepot(t), staging: testenv.StartRegistry(t), held: o.held.Generate(),
		table: newTable(t, o),
	}
	crane, missing := harness.Program(t, func(t testing.TB) string { return testenv.Tool(t, "crane") })
	r.crane = crane

	r.plan(t)
	progress("staging %d images with %d versions each", o.images, o.versions)
	r.release = stage(t, r.staging.Host(), o)
	r.table.release = r.release

	applied := r.apply(t, r.release, 1)
	if missing != "" {
		r.table.note("crane was not measured: %s", missing)
	} else {
		copied := r.craneCopy(t)
		applied.most(applied.wall.Seconds()/copied.wall.Seconds(), 1, "× crane copy")
	}
	if o.destinations > 1 {
		part := r.release.first((o.images + o.destinations - 1) / o.destinations)
		r.apply(t, part, o.destinations)
	}
	return r.table
}

// plan plans what is promoted already. No server of its destinations exists,
// so that it would fail if it asked one.
func (r *rehearsal) plan(t testing.TB) {
	t.Helper()
	p := r.newProduction(t, nil, nil)
	var costs []cost
	for i := range planRounds {
		progress("planning when nothing changed, %d of %d", i+1, planRounds)
		costs = append(costs, r.promote(t, p, "plan"))
	}
	slices.SortFunc(costs, func(a, b cost) int { return int(a.wall - b.wall) })
	row := r.table.add(fmt.Sprintf("`promote plan`, nothing changed: %d names at %d destinations each",
		r.options.held.Pairs, len(r.options.held.Destinations)), costs[planRounds/2])
	row.most(row.wall.Seconds(), 3, "s")
}

// apply releases to an origin that has nothing yet, under a number of
// prefixes, and then once more. It returns what the first took.
func (r *rehearsal) apply(t testing.TB, release *release, destinations int) *row {
	t.Helper()
	p := r.newProduction(t, release, prefixes(destinations))
	title := fmt.Sprintf("`promote apply` of %d new names", len(release.names))
	if destinations > 1 {
		title += fmt.Sprintf(" at %d destinations each", destinations)
	}
	var first *row
	for _, again := range []bool{false, true} {
		progress("%s, again: %t", title, again)
		c := r.promote(t, p, "apply")
		var report promote.Report
		if err := json.Unmarshal(c.stdout, &report); err != nil {
			t.Fatalf("reading what apply reported: %v", err)
		}
		if again {
			row := r.table.add(title+", again", c)
			row.count(p.counted(t), &report.Transfer)
			row.most(float64(row.writes), 0, "writes")
			continue
		}
		if len(report.Done) != len(release.names) {
			t.Fatalf("apply did %d of %d", len(report.Done), len(release.names))
		}
		first = r.table.add(title, c)
		first.count(p.counted(t), &report.Transfer)
	}
	p.verify(t, release)
	return first
}

// craneCopy copies the release with a process for each name, as many at once as
// apply copies, and then once more. It returns what the first took.
func (r *rehearsal) craneCopy(t testing.TB) *row {
	t.Helper()
	p := r.newProduction(t, r.release, prefixes(1))
	title := fmt.Sprintf("`crane copy` of the same list, %d processes at once", r.concurrency)
	var first *row
	for _, again := range []bool{false, true} {
		progress("%s, again: %t", title, again)
		c := r.copyAll(t, p)
		if again {
			r.table.add(title+", again", c).count(p.counted(t), nil)
			continue
		}
		first = r.table.add(title, c)
		first.count(p.counted(t), nil)
	}
	p.verify(t, r.release)
	return first
}

func (r *rehearsal) copyAll(t testing.TB, p *production) cost {
	t.Helper()
	costs := make([]cost, len(r.release.names))
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(r.concurrency)
	start := time.Now()
	for i, name := range r.release.names {
		group.Go(func() (err error) {
			from := r.staging.Host() + "/" + stagingRepository + "/" + name
			costs[i], err = run(ctx, p.origin.Docker, r.crane, "copy", from, p.destinations[0]+"/"+name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	all := cost{wall: time.Since(start)}
	for _, c := range costs {
		all.cpu += c.cpu
		all.peak = max(all.peak, c.peak)
	}
	return all
}

// production is an origin without images, with a ledger that says what was
// promoted before, and the configuration.
type production struct {
	origin            *testenv.Origin
	destinations      []string
	tree, ledger, key string

	read map[string]int // requests that the origin's log had when it was read last
}

// prefixes are what a release is promoted to at the origin.
func prefixes(n int) []string {
	list := []string{"release"}
	for i := 1; i < n; i++ {
		list = append(list, fmt.Sprintf("region%02d/release", i))
	}
	return list
}

// newProduction makes a production; without prefixes its configuration has no
// release.
func (r *rehearsal) newProduction(t testing.TB, release *release, prefixes []string) *production {
	t.Helper()
	dir := t.TempDir()
	p := &production{
		tree:   filepath.Join(dir, "tree"),
		ledger: (&url.URL{Scheme: "file", Path: filepath.Join(dir, "ledger")}).String(),
		key:    filepath.Join(dir, "key"),
		read:   map[string]int{},
	}
	projects := slices.Clone(r.held)
	if len(prefixes) > 0 {
		p.origin = testenv.StartOrigin(t, testenv.OriginConfig{Ledger: p.ledger})
		for _, prefix := range prefixes {
			p.destinations = append(p.destinations, p.origin.Host()+"/"+prefix)
		}
		projects = append(projects, release.project(r.staging.Host(), p.destinations))
	}
	err := errors.Join(config.WriteThin(p.tree, projects), p.record(t.Context(), r.held))
	if err != nil {
		t.Fatalf("preparing production: %v", err)
	}
	return p
}

func (p *production) record(ctx context.Context, projects []*config.Project) error {
	if err := ledger.GenerateKey("rehearsal.test/ledger", p.key); err != nil {
		return err
	}
	key, err := ledger.LoadKey(p.key)
	if err != nil {
		return err
	}
	log, err := ledger.Open(ctx, p.ledger, ledger.Config{Key: key})
	if err != nil {
		return err
	}
	return promotetest.Record(ctx, log, projects)
}

// promote runs a command that has to find, or leave, everything as it should
// be.
func (r *rehearsal) promote(t testing.TB, p *production, command string) cost {
	t.Helper()
	docker := t.TempDir() // no passwords
	if p.origin != nil {
		docker = p.origin.Docker
	}
	args := []string{"promote", command, "--ledger", p.ledger, "--ledger-key", p.key, "--output", "json", "--strict"}
	args = append(args, "--concurrency", fmt.Sprint(r.concurrency), p.tree)
	c, err := run(t.Context(), docker, r.entrepot, args...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// counted tells the requests to the origin, by method, since it was asked last.
// The origin is stopped for it, so that its log is complete.
func (p *production) counted(t testing.TB) map[string]int {
	t.Helper()
	p.origin.Stop()
	all := requests(p.origin.Log())
	p.origin.Start()
	fresh := map[string]int{}
	for method, n := range all {
		fresh[method] = n - p.read[method]
	}
	p.read = all
	return fresh
}

// requests counts the lines of an access log, by method.
func requests(log string) map[string]int {
	counts := map[string]int{}
	for text := range strings.Lines(log) {
		var line struct {
			Message string `json:"msg"`
			Method  string `json:"method"`
		}
		if json.Unmarshal([]byte(text), &line) == nil && line.Message == "request" {
			counts[line.Method]++
		}
	}
	return counts
}

// verify asks the origin for every name at every destination.
func (p *production) verify(t testing.TB, r *release) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(8)
	for _, destination := range p.destinations {
		_, prefix, _ := strings.Cut(destination, "/")
		for _, image := range r.images {
			for _, e := range image.Entries {
				group.Go(func() error {
					path := p.origin.URL() + "/v2/" + prefix + "/" + image.Name + "/manifests/" + e.Tags[0]
					request, err := http.NewRequestWithContext(ctx, http.MethodHead, path, nil)
					if err != nil {
						return err
					}
					response, err := http.DefaultClient.Do(request)
					if err != nil {
						return err
					}
					defer response.Body.Close()
					if got := response.Header.Get("Docker-Content-Digest"); got != string(e.Digest) {
						return fmt.Errorf("%s: %s has %s, want %s", path, response.Status, got, e.Digest)
					}
					return nil
				})
			}
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("verifying what was released: %v", err)
	}
}

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if isInside() {
		if why := settle(); why != "" {
			fmt.Fprintln(os.Stderr, "settling in:", why)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// planned are faults to plan with.
func planned(names ...string) []fault {
	var faults []fault
	for _, name := range names {
		faults = append(faults, fault{name: name, targets: []string{"a", "b"}, most: time.Second})
	}
	return faults
}

func TestPlanIsTheSameForASeedAndHasEachFault(t *testing.T) {
	faults := planned("one", "two", "three", "four")
	const length = 20 * time.Second
	plan := makePlan(7, length, faults)
	if !reflect.DeepEqual(plan, makePlan(7, length, faults)) {
		t.Error("a seed means two plans")
	}
	if reflect.DeepEqual(plan, makePlan(8, length, faults)) {
		t.Error("two seeds mean one plan")
	}
	seen, last := map[string]int{}, time.Duration(0)
	for _, e := range plan {
		seen[e.fault]++
		if e.at < last || e.at+e.lasts > length || e.lasts < 0 {
			t.Errorf("%+v after %v does not end in time", e, last)
		}
		last = e.at
	}
	for _, f := range faults {
		if seen[f.name] != 4 { // of sixteen
			t.Errorf("%s happens %d times", f.name, seen[f.name])
		}
	}
}

// complaints are what a check says must not be.
type complaints struct{ said []string }

func (c *complaints) Errorf(format string, _ ...any) { c.said = append(c.said, format) }

// A suite that cannot fail shows nothing: a server that lies is found out in each
// of the ways that clients ask.
func TestReaderFindsOutAServerThatLies(t *testing.T) {
	body := strings.Repeat("right", 20_000)
	for name, serve := range map[string]http.HandlerFunc{
		wrongBytes: func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Replace(body[:len(body)-5], "right", "wrong", 1)+"wrong"))
		},
		absences: http.NotFound,
		broken: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write([]byte(body[:70_000]))
		},
		refused: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "later", http.StatusServiceUnavailable) },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(serve)
			defer server.Close()
			said, tally := new(complaints), newTally()
			r := newReader(said, tally, 1, 1)
			for range 40 {
				r.once(t.Context(), server.URL, item{path: "/", body: []byte(body)})
			}
			counts := tally.all()
			if counts[name] == 0 {
				t.Errorf("%s was not counted: %v", name, counts)
			}
			if must := name == wrongBytes || name == absences; must != (len(said.said) > 0) {
				t.Errorf("the check said %q", said.said)
			}
		})
	}
}

func TestReportReplacesWhatIsBetweenItsMarks(t *testing.T) {
	name := filepath.Join(t.TempDir(), "report.md")
	if err := os.WriteFile(name, []byte("before\n"+reportBegin+"\nold\n"+reportEnd+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(name, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if want := "before\n" + reportBegin + "\n\nnew\n\n" + reportEnd + "\nafter\n"; err != nil || string(got) != want {
		t.Errorf("the file has %q, %v", got, err)
	}
}

// TestPromisesHoldWhileEverythingBreaks is a short run of what `make chaos` does
// for minutes.
func TestPromisesHoldWhileEverythingBreaks(t *testing.T) {
	o := options{seed: 1, length: 26 * time.Second, clients: 6}
	if !isInside() {
		if o.noCables = noMachine(t.Context()); o.noCables == "" {
			if status := inside(t.Context(), "-test.run", "^"+t.Name()+"$", "-test.v", "-test.timeout", "5m"); status != 0 {
				t.Errorf("on a machine of its own: status %d", status)
			}
			return
		}
	}
	got := run(t, o)
	for _, p := range promises() {
		if n := got.counts[p]; n != 0 {
			t.Errorf("%s: %d", p, n)
		}
	}
	if got.counts[complete] < 100 || got.counts[changed] == 0 {
		t.Errorf("too little happened to tell: %d complete answers, %d changed bytes", got.counts[complete], got.counts[changed])
	}
}

func TestScratchOfARunThatWasKilledIsRemovedByTheNext(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	left := filepath.Join(os.TempDir(), scratchPrefix+"999999999") // no process has this number
	others := filepath.Join(os.TempDir(), scratchPrefix+"1")       // and this one there always is
	for _, dir := range []string{left, others} {
		if err := os.MkdirAll(filepath.Join(dir, "store"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	remove, err := makeScratch()
	if err != nil {
		t.Fatal(err)
	}
	own := os.TempDir()
	for dir, want := range map[string]bool{left: false, others: true, own: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %t, want %t", dir, err == nil, want)
		}
	}
	remove()
	if _, err := os.Stat(own); err == nil {
		t.Error("a run has left its own")
	}
}

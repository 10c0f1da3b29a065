package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
	"entrepot/promote/transfer"
)

// table is what was measured.
type table struct {
	options
	machine, load string
	release       *release
	rows          []*row
	notes         []string
}

// row is a line of the table: one run.
type row struct {
	cost
	title         string
	counted       bool // whether there are requests
	reads, writes int  // requests to the origin
	requests      int64
	transfer      *transfer.Counts // of the run, staging included; nil where nobody counts
	target        string
	met           bool
}

func newTable(t testing.TB, o options) *table {
	t.Helper()
	return &table{options: o, machine: harness.Machine(t), load: harness.Load(t)}
}

func (b *table) add(title string, c cost) *row {
	r := &row{title: title, cost: c}
	b.rows = append(b.rows, r)
	return r
}

// note adds a line below the table.
func (b *table) note(format string, args ...any) {
	b.notes = append(b.notes, fmt.Sprintf(format, args...))
}

// count takes in the requests to the origin, and what the run itself counted.
func (r *row) count(methods map[string]int, own *transfer.Counts) {
	r.counted, r.transfer = true, own
	for method, n := range methods {
		if method == "GET" || method == "HEAD" {
			r.reads += n
		} else {
			r.writes += n
		}
	}
	if own != nil {
		for _, n := range own.Requests {
			r.requests += n
		}
	}
}

// most sets the target, and whether a figure is within it.
func (r *row) most(figure, bound float64, unit string) {
	r.target, r.met = fmt.Sprintf("≤ %g %s (%.2g)", bound, unit, figure), figure <= bound
}

// markdown is the table as a README shows it.
func (b *table) markdown() string {
	var text strings.Builder
	text.WriteString("\n| | wall, s | processor, s | origin is asked | origin is written | requests in all | blobs sent, MB | peak memory, MiB | target | met |\n")
	text.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |\n")
	for _, r := range b.rows {
		fmt.Fprintf(&text, "| %s | %s |\n", r.title, strings.Join(r.cells(), " | "))
	}
	fmt.Fprintf(&text, "\nMeasured on %s on %s, with the registries on the same machine. The machine's load was %s before.\n",
		time.Now().UTC().Format(time.DateOnly), b.machine, b.load)
	if b.release != nil {
		fmt.Fprintf(&text, "\nThe release is %d images of two platforms in %d repositories, %.1f MB in all, and has no signatures; "+
			"apply looks for them, copies %d at a time, and writes the ledger. Each run begins with an empty origin. "+
			"The memory of crane is that of its largest process.\n",
			len(b.release.names), len(b.release.images), float64(b.release.bytes)/1e6, b.concurrency)
	}
	for _, note := range b.notes {
		fmt.Fprintf(&text, "\n%s\n", note)
	}
	return text.String()
}

// cells are the figures of a row. A dash is what nobody counted.
func (r *row) cells() []string {
	cells := []string{
		fmt.Sprintf("%.2f", r.wall.Seconds()), fmt.Sprintf("%.2f", r.cpu.Seconds()),
		"–", "–", "–", "–", fmt.Sprintf("%.0f", float64(r.peak)/(1<<20)), r.target, "",
	}
	if r.counted {
		cells[2], cells[3] = fmt.Sprint(r.reads), fmt.Sprint(r.writes)
	}
	if r.transfer != nil {
		cells[4], cells[5] = fmt.Sprint(r.requests), fmt.Sprintf("%.1f", float64(r.transfer.Bytes)/1e6)
	}
	switch {
	case r.target == "":
	case r.met:
		cells[8] = "yes"
	default:
		cells[8] = "**no**"
	}
	return cells
}

package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
)

// unit is what a figure is measured in, as the table has it.
type unit string

const (
	perSecond          unit = "req/s"
	microseconds       unit = "µs"
	milliseconds       unit = "ms"
	seconds            unit = "s"
	gigabytesPerSecond unit = "GB/s"
	secondsPerGigabyte unit = "s/GB"
	mebibytes          unit = "MiB"
	times              unit = "×"
)

// format writes x with its unit, and as many digits as repeat.
func (u unit) format(x float64) string {
	switch {
	case u == times:
		return fmt.Sprintf("%.2f×", x)
	case u == perSecond:
		return fmt.Sprintf("%.1fk", x/1e3)
	case u == secondsPerGigabyte:
		return fmt.Sprintf("%.3f", x)
	case u == seconds || u == gigabytesPerSecond:
		return fmt.Sprintf("%.2f", x)
	case x < 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

// report is what was measured, for people and for programs.
type report struct {
	Date    time.Time `json:"date"`
	Machine string    `json:"machine"`
	Load    string    `json:"load"` // average of the minute before, of everything on the machine
	Peers   []string  `json:"peers"`
	Rounds  int       `json:"rounds"`
	Rows    []row     `json:"figures"`
	Notes   []string  `json:"notes,omitempty"`
}

// row is a line of the table: one figure of every server that has it.
type row struct {
	Case    string               `json:"case"`
	Title   string               `json:"title"`
	Unit    unit                 `json:"unit"`
	Samples map[string][]float64 `json:"samples"` // of a server, by round
	Medians map[string]float64   `json:"medians"`
	Ratio   float64              `json:"ratio,omitempty"` // to RatioTo; 0 is none
	RatioTo string               `json:"ratio_to,omitempty"`
	Target  string               `json:"target,omitempty"`
	Met     *bool                `json:"met,omitempty"` // nil without a target
}

// newReport begins a report on this machine.
func newReport(t testing.TB, w *world, rounds int) *report {
	t.Helper()
	return &report{
		Date:    time.Now().UTC().Truncate(time.Second),
		Machine: harness.Machine(t),
		Load:    harness.Load(t),
		Peers:   w.peers,
		Rounds:  rounds,
		Notes:   w.missing,
	}
}

// note adds a line below the table.
func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// add adds the figures of a case.
func (r *report) add(c *benchmark, got results) {
	for _, f := range c.figures {
		line := row{
			Case: c.name, Title: c.title, Unit: f.unit,
			Samples: map[string][]float64{}, Medians: map[string]float64{},
		}
		if f.title != "" {
			line.Title += ": " + f.title
		}
		for name, samples := range got {
			for _, s := range samples {
				line.Samples[name] = append(line.Samples[name], s[f.key])
			}
			line.Medians[name] = median(line.Samples[name])
		}
		line.judge(f.goal, got, f.key)
		r.Rows = append(r.Rows, line)
	}
}

// judge compares with a peer, where there is one to compare with, and with the
// target.
func (l *row) judge(g goal, got results, key string) {
	figure := l.Medians[entrepot]
	if g.peer != "" {
		ratio, ok := got.ratio(g.peer, key)
		if !ok {
			l.Target = "no " + g.peer + " to compare with"
			return
		}
		l.Ratio, l.RatioTo, figure = ratio, g.peer, ratio
	}
	if g.least == 0 && g.most == 0 {
		return
	}
	met := g.met(figure)
	l.Target, l.Met = g.text(l.Unit), &met
}

// text is the goal as the table has it.
func (g goal) text(u unit) string {
	bound, sign := g.most, "≤"
	if g.least != 0 {
		bound, sign = g.least, "≥"
	}
	if g.peer != "" {
		return fmt.Sprintf("%s %.2f × %s", sign, bound, g.peer)
	}
	if u == times {
		return sign + " " + u.format(bound)
	}
	return sign + " " + u.format(bound) + " " + string(u)
}

// markdown is the report as a README shows it.
func (r *report) markdown() string {
	var columns []string
	for _, name := range []string{entrepot, nginxCache, nginxStatic, distribution, varnish, direct} {
		if slices.ContainsFunc(r.Rows, func(l row) bool { return len(l.Samples[name]) > 0 }) {
			columns = append(columns, name)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n| | %s | ratio | target | met |\n", strings.Join(columns, " | "))
	fmt.Fprintf(&b, "| --- |%s --- | --- | --- |\n", strings.Repeat(" ---: |", len(columns)))
	for _, l := range r.Rows {
		fmt.Fprintf(&b, "| %s, %s |", l.Title, l.Unit)
		for _, name := range columns {
			if figure, ok := l.Medians[name]; ok {
				fmt.Fprintf(&b, " %s |", l.Unit.format(figure))
			} else {
				b.WriteString(" – |")
			}
		}
		fmt.Fprintf(&b, " %s |\n", strings.Join(l.verdict(), " | "))
	}
	fmt.Fprintf(&b, "\nMeasured on %s on %s, with %s, all on loopback and in turns; medians of %d rounds, "+
		"ratios too. The machine's load was %s before.\n",
		r.Date.Format(time.DateOnly), r.Machine, strings.Join(r.Peers, ", "), r.Rounds, r.Load)
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "\nNot measured: %s\n", note)
	}
	return b.String()
}

// verdict is the ratio, the target, and whether it was met, as cells.
func (l *row) verdict() []string {
	cells := []string{"", l.Target, ""}
	if l.RatioTo != "" && !math.IsNaN(l.Ratio) {
		cells[0] = fmt.Sprintf("%.2f", l.Ratio)
		if l.Target == "" {
			cells[0] += " × " + l.RatioTo
		}
	}
	switch {
	case l.Met == nil:
	case *l.Met:
		cells[2] = "yes"
	default:
		cells[2] = "**no**"
	}
	return cells
}

// writeJSON writes the report with every sample.
func (r *report) writeJSON(t testing.TB, file string) {
	t.Helper()
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		t.Fatalf("writing the report: %v", err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o600); err != nil {
		t.Fatalf("writing the report: %v", err)
	}
}

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// The lines of a file between which the counts are.
const (
	reportBegin = "<!-- counts: written by e2e/chaos -->"
	reportEnd   = "<!-- end of counts -->"
)

// markdown is the counts of runs, as tables with a column for each.
func markdown(all []outcome) string {
	var b strings.Builder
	row := func(name string, value func(outcome) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, o := range all {
			fmt.Fprintf(&b, " %s |", value(o))
		}
		b.WriteByte('\n')
	}
	head := func(title string) {
		row("**"+title+"**", func(o outcome) string { return fmt.Sprintf("seed %d", o.seed) })
		b.WriteString("| --- |" + strings.Repeat(" ---: |", len(all)) + "\n")
	}
	count := func(name, key string) { row(name, func(o outcome) string { return fmt.Sprint(o.counts[key]) }) }
	ofDaemon := func(name string) {
		row(name, func(o outcome) string {
			if o.noDaemon {
				return "not run"
			}
			return fmt.Sprint(o.counts[name])
		})
	}

	head("Must be 0")
	for _, p := range promises() {
		count(p, p)
	}
	b.WriteByte('\n')
	head("Measured")
	row("minutes of faults", func(o outcome) string { return fmt.Sprintf("%.1f", o.length.Minutes()) })
	row("seconds from the last fault until every name was served (at most 10)", func(o outcome) string { return fmt.Sprintf("%.1f", o.recovered.Seconds()) })
	count(complete, complete)
	row("GB in them", func(o outcome) string { return fmt.Sprintf("%.1f", float64(o.counts[completeBytes])/1e9) })
	for _, name := range []string{heads, earlyEnds, broken, refused, unverified, mended, lied, caughtAfter, pulls, pullsBad, pushes, promotions, killed, changed, rotten, evicted, evictedEarly} {
		count(name, name)
	}
	for _, name := range []string{held, heldRouted, heldBad} {
		ofDaemon(name)
	}
	for _, name := range []string{"us", "eu", "jp", "origin", "router"} {
		row("goroutines / open files of "+name+", before → after", func(o outcome) string {
			return fmt.Sprintf("%d / %d → %d / %d", o.before[name].goroutines, o.before[name].files, o.after[name].goroutines, o.after[name].files)
		})
	}
	b.WriteByte('\n')
	head("Faults injected, and what they did")
	for _, f := range all[0].faults {
		row(f.name+": "+f.says+" ("+f.bites+")", func(o outcome) string {
			return fmt.Sprintf("%d (%d)", o.counts["fault: "+f.name], o.counts["bit: "+f.name])
		})
	}
	fmt.Fprintf(&b, "\nCounted on %s on %s.\n", time.Now().Format(time.DateOnly), all[0].machine)
	for _, missing := range all[0].missing {
		fmt.Fprintf(&b, "Not run: %s.\n", missing)
	}
	return b.String()
}

// writeReport puts text between the marks of a file.
func writeReport(name, text string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("reporting: %w", err)
	}
	before, rest, ok := strings.Cut(string(old), reportBegin)
	_, after, ended := strings.Cut(rest, reportEnd)
	if !ok || !ended {
		return fmt.Errorf("reporting: %s lacks the lines %q and %q", name, reportBegin, reportEnd)
	}
	text = before + reportBegin + "\n\n" + text + "\n" + reportEnd + after
	return os.WriteFile(name, []byte(text), 0o644)
}

package promote

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"entrepot/promote/config"
	"entrepot/promote/transfer"

	"github.com/dustin/go-humanize"
)

// Report is what an apply did.
type Report struct {
	// Done are the items that are done everywhere.
	Done []*Item `json:"done"`
	// Failed are those that are not, with the reason in Detail, and with the
	// destinations that they failed at or did not reach.
	Failed []*Item `json:"failed"`
	// Blocked are the plan's items that were not tried.
	Blocked []*Item `json:"blocked"`
	// Problems are what was set aside of the configuration.
	Problems []config.Problem `json:"problems,omitempty"`
	// Seconds is how long it took; Transfer what was sent meanwhile.
	Seconds  float64         `json:"seconds"`
	Transfer transfer.Counts `json:"transfer"`
}

// Sound says that production is as the configuration says.
func (r *Report) Sound() bool {
	return len(r.Failed) == 0 && len(r.Blocked) == 0 &&
		!slices.ContainsFunc(r.Problems, func(p config.Problem) bool { return !p.Notice })
}

// Print writes the report for people: what is left, and a summary.
func (r *Report) Print(w io.Writer) error {
	out := &printer{w: w}
	for _, p := range r.Problems {
		out.line("%s", p)
	}
	for _, i := range slices.Concat(r.Blocked, r.Failed) {
		out.line("%s: %s %s", i.Obstacle, i.Action, i.Name)
		out.line("    %s", strings.ReplaceAll(i.Detail, "\n", "\n    "))
	}
	counts := map[Action]int{}
	for _, i := range r.Done {
		counts[i.Action]++
	}
	var parts []string
	for _, action := range []struct {
		action Action
		done   string
	}{
		{Create, "created"}, {Move, "moved"}, {Adopt, "adopted"}, {Attach, "attached to"}, {Delete, "deleted"}, {Revoke, "revoked"}, {Unrevoke, "allowed again"},
	} {
		if n := counts[action.action]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, action.done))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing changed")
	}
	if r.Transfer.Bytes > 0 {
		parts = append(parts, fmt.Sprintf("%s copied in %v", humanize.IBytes(uint64(r.Transfer.Bytes)),
			time.Duration(r.Seconds*float64(time.Second)).Round(time.Millisecond)))
	}
	if n := len(r.Failed); n > 0 {
		parts = append(parts, fmt.Sprintf("%d failed", n))
	}
	if n := len(r.Blocked); n > 0 {
		parts = append(parts, fmt.Sprintf("%d not tried", n))
	}
	out.line("%s", strings.Join(parts, ", "))
	return out.err
}

// PrintTree writes what a tree holds and what is wrong with it.
func PrintTree(w io.Writer, tree *config.Tree) error {
	out := &printer{w: w}
	names, bad := 0, 0
	for _, p := range tree.Projects {
		names += countNames(p)
	}
	for _, p := range tree.Problems {
		out.line("%s", p)
		if !p.Notice {
			bad++
		}
	}
	if bad == 0 {
		out.line("%d projects with %d names: nothing is wrong", len(tree.Projects), names)
	} else {
		out.line("%d projects with %d names; %d problems, whose entries are set aside", len(tree.Projects), names, bad)
	}
	return out.err
}

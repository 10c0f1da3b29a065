package promote

import (
	"fmt"
	"io"
	"strings"

	"entrepot/promote/ledger"

	"github.com/dustin/go-humanize"
)

// sign begins an item's line in a printed plan.
func (i *Item) sign() string {
	switch i.Action {
	case Create:
		return "+"
	case Move:
		return "~"
	case Adopt:
		return "="
	case Attach:
		return "*"
	case Delete:
		return "-"
	case Revoke, Unrevoke:
		return "!"
	}
	return " "
}

// Print writes a plan for people, grouped by project.
func (p *Plan) Print(w io.Writer) error {
	out := &printer{w: w}
	for _, problem := range p.Problems {
		out.line("%s", problem)
	}
	if len(p.Problems) > 0 {
		out.line("")
	}
	project := ""
	for _, i := range p.Items {
		if header := i.Project + " " + string(i.Kind); header != project {
			project = header
			out.line("%s (%ss)", i.Project, i.Kind)
		}
		out.item(i)
	}
	if len(p.Items) > 0 {
		out.line("")
	}
	out.line("%s", p.Summary())
	return out.err
}

// Summary is the plan in a line.
func (p *Plan) Summary() string {
	counts := map[Action]int{}
	obstacles := map[Obstacle]int{}
	copied := map[string]int64{} // content is copied once, whatever its names
	for _, i := range p.Items {
		if i.Obstacle != "" {
			obstacles[i.Obstacle]++
			continue
		}
		counts[i.Action]++
		if i.Action == Create || i.Action == Move {
			copied[i.Project+" "+string(i.Digest)] = i.Size
		}
	}
	var bytes uint64
	for _, size := range copied {
		bytes += uint64(max(0, size))
	}
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(counts[Create], "to create")
	add(counts[Move], "to move")
	add(counts[Adopt], "to adopt")
	add(counts[Attach], "to attach something to")
	add(counts[Delete], "to delete")
	add(counts[Revoke], "to revoke")
	add(counts[Unrevoke], "to allow again")
	if len(parts) == 0 {
		parts = append(parts, "nothing to do")
	}
	if bytes > 0 {
		parts = append(parts, "at most "+humanize.IBytes(bytes)+" to copy to each destination")
	}
	add(obstacles[Lost], "lost")
	add(obstacles[Conflict], "in conflict")
	add(obstacles[Withheld], "withheld")
	add(obstacles[Failed], "could not be looked at")
	bad := 0
	for _, problem := range p.Problems {
		if !problem.Notice {
			bad++
		}
	}
	add(bad, "set aside")
	add(p.Unchanged, "unchanged")
	return strings.Join(parts, ", ")
}

// printer keeps the first error of many writes.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) item(i *Item) {
	about := ""
	switch {
	case i.Action == Move:
		about = fmt.Sprintf(" from %s", short(i))
	case i.Reason != "":
		about = ": " + i.Reason
	case i.Size > 0 && i.Action == Create:
		about = fmt.Sprintf(" (%s)", humanize.IBytes(uint64(i.Size)))
	}
	to := ""
	if i.Action != Revoke && i.Action != Unrevoke {
		to = " at " + places(i.Destinations)
	}
	p.line("  %s %s %s%s%s", i.sign(), i.Action, describe(i), to, about)
	if i.Obstacle != "" {
		p.line("      %s: %s", i.Obstacle, i.Detail)
		if i.Position.File != "" {
			p.line("      %s:%d", i.Position.File, i.Position.Line)
		}
	}
}

// describe is the item's name, with the digest where the name does not say it.
func describe(i *Item) string {
	if i.Kind == ledger.Image && strings.Contains(i.Name, "@") || i.Name == string(i.Digest) {
		return i.Name
	}
	return fmt.Sprintf("%s (%s)", i.Name, abbreviate(string(i.Digest)))
}

func short(i *Item) string { return abbreviate(string(i.Previous)) }

// abbreviate keeps the algorithm and twelve digits of a digest, as docker does.
func abbreviate(d string) string {
	algorithm, hex, ok := strings.Cut(d, ":")
	if !ok || len(hex) <= 12 {
		return d
	}
	return algorithm + ":" + hex[:12]
}

// places names the destinations, or how many they are.
func places(destinations []string) string {
	if len(destinations) > 3 {
		return fmt.Sprintf("%s and %d more", destinations[0], len(destinations)-1)
	}
	return strings.Join(destinations, ", ")
}

package promote

import (
	"cmp"
	"slices"

	"entrepot/promote/config"
)

// Plan is what would change, for a person to read and for Apply to do.
type Plan struct {
	// Revision names the state of the configuration, as in the ledger.
	Revision string `json:"revision"`
	// Sequence is the ledger's size when the plan was made.
	Sequence uint64 `json:"sequence"`
	// Items are sorted by project, and within one by name.
	Items []*Item `json:"items"`
	// Problems are what was set aside of the configuration, and notices.
	Problems []config.Problem `json:"problems,omitempty"`
	// Unchanged is how many names are as they should be.
	Unchanged int `json:"unchanged"`
}

// Changes are the items that Apply would do.
func (p *Plan) Changes() []*Item {
	return p.filter(func(i *Item) bool { return i.Obstacle == "" })
}

// Blocked are the items that cannot be done.
func (p *Plan) Blocked() []*Item {
	return p.filter(func(i *Item) bool { return i.Obstacle != "" })
}

func (p *Plan) filter(keep func(*Item) bool) []*Item {
	items := []*Item{}
	for _, i := range p.Items {
		if keep(i) {
			items = append(items, i)
		}
	}
	return items
}

// Sound says that nothing of what the configuration asks for is wrong, lost,
// in conflict or withheld.
func (p *Plan) Sound() bool {
	return len(p.Blocked()) == 0 && !slices.ContainsFunc(p.Problems, func(b config.Problem) bool { return !b.Notice })
}

func (p *Plan) sort() {
	slices.SortStableFunc(p.Items, func(a, b *Item) int {
		return cmp.Or(cmp.Compare(a.Project, b.Project), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name),
			slices.Compare(a.Destinations, b.Destinations))
	})
}

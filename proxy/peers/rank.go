package peers

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
)

// Weight is what a node has for a key in rendezvous hashing (Thaler and
// Ravishankar 1998): the node with the highest has the key. It depends on nothing
// else, so that each node has the same for itself as for the others.
func Weight(key, id string) uint64 {
	h := sha256.New()
	_, _ = io.WriteString(h, id) // a hash never fails
	_, _ = io.WriteString(h, "\n"+key)
	var sum [sha256.Size]byte
	return binary.BigEndian.Uint64(h.Sum(sum[:0]))
}

// Order says in which order the nodes are to be asked for a key, as far as that
// concerns this one: the peers that are up and come before it, the first of which
// is the one to bring the content, and the first behind it, nil for none.
//
// A node that asks only those before it to bring something never waits for
// itself, through however many others and whatever they think who is up: along
// such a chain the weights rise.
func (g *Group) Order(key string) (before []*Peer, after *Peer) {
	type ranked struct {
		peer   *Peer
		id     string
		weight uint64
	}
	self := ranked{id: g.cfg.ID, weight: Weight(key, g.cfg.ID)}
	all := []ranked{self}
	for _, p := range g.members() {
		id, up := p.state()
		// A node that has two addresses is one node.
		if up && !slices.ContainsFunc(all, func(r ranked) bool { return r.id == id }) {
			all = append(all, ranked{p, id, Weight(key, id)})
		}
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.id, b.id))
	})
	for i, r := range all {
		if r.id != self.id {
			before = append(before, r.peer)
			continue
		}
		if i+1 < len(all) {
			after = all[i+1].peer
		}
		break
	}
	return before, after
}

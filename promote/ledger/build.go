package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// stateBuilder makes a state out of an older one and more entries. The older
// one stays as it is; what the new one does not change it shares.
//
// Of two builders on one state, only one's result may be used: both write
// behind the end of the older state's entries.
type stateBuilder struct {
	state *State
	// What is this state's own already, so that it can be written to: the names
	// of sets, by index, and the maps.
	ownNames           []bool
	ownSets, ownRevoke bool

	reader leafReader
}

// maxGrow is how many entries room is made for before any of them is seen.
const maxGrow = 1 << 17

// grow makes room for entries that are about to be added.
func (b *stateBuilder) grow(n uint64) {
	n = min(n, maxGrow)
	b.state.entries = slices.Grow(b.state.entries, int(n))
	b.state.setOf = slices.Grow(b.state.setOf, int(n))
}

func (s *State) extend() *stateBuilder {
	c := *s
	c.sets = slices.Clone(c.sets)
	return &stateBuilder{state: &c, ownNames: make([]bool, len(c.sets))}
}

// readLeaf adds the entry of a leaf that is in the log. Errors: ErrCorrupt.
func (b *stateBuilder) readLeaf(leaf []byte) error {
	s := b.state
	e, set, err := b.reader.read(leaf)
	if err != nil {
		return fmt.Errorf("entry %d: %w", s.Len(), err)
	}
	if e.Sequence != s.Len() {
		return fmt.Errorf("%w: entry %d calls itself %d", ErrCorrupt, s.Len(), e.Sequence)
	}
	if n := len(s.entries); n > 0 && e.Time.Before(s.entries[n-1].Time) {
		return fmt.Errorf("%w: entry %d is of %s, before the one before it", ErrCorrupt, n, e.Time.Format(timeLayout))
	}
	i, known := s.byLeaf[set.leaf]
	if set.refers && !known {
		return fmt.Errorf("%w: entry %d has the destinations of entry %d, which spells none out", ErrCorrupt, e.Sequence, set.leaf)
	}
	if set.refers {
		e.Destinations = s.sets[i].destinations
	} else if i, ok := s.byKey[setKey(e.Destinations)]; ok && len(e.Destinations) > 0 {
		return fmt.Errorf("%w: entry %d spells out the destinations of entry %d again", ErrCorrupt, e.Sequence, s.sets[i].leaf)
	}
	// Destinations are checked where they are spelled out.
	if err := e.check(set.refers); err != nil {
		return fmt.Errorf("%w: entry %d: %w", ErrCorrupt, e.Sequence, err)
	}
	if !set.refers {
		i = b.setOf(&e)
	}
	b.apply(e, i)
	return nil
}

// addEntry adds an entry that is new: it gives it sequence, time (not before
// those there are) and shared destinations, and returns its leaf. Errors: what
// is wrong with it.
func (b *stateBuilder) addEntry(e Entry, now time.Time) (leaf []byte, err error) {
	s := b.state
	e.Sequence = s.Len()
	e.Time = now.UTC().Truncate(time.Millisecond)
	if n := len(s.entries); n > 0 && e.Time.Before(s.entries[n-1].Time) {
		e.Time = s.entries[n-1].Time // the clock went back
	}
	e.Destinations = sortedSet(e.Destinations)
	if err := e.check(false); err != nil {
		return nil, fmt.Errorf("entry about %q: %w", e.Name, err)
	}
	leaf = encodeLeaf(&e, s.leafSet(&e))
	if len(leaf) > maxLeaf {
		return nil, fmt.Errorf("entry about %q: its leaf has %d bytes, more than the %d allowed", e.Name, len(leaf), maxLeaf)
	}
	b.apply(e, b.setOf(&e))
	return leaf, nil
}

// leafSet is how the leaf of an entry names its destinations.
func (s *State) leafSet(e *Entry) leafSet {
	if i, ok := s.byKey[setKey(e.Destinations)]; ok && s.sets[i].leaf != e.Sequence {
		return leafSet{refers: true, leaf: s.sets[i].leaf}
	}
	return leafSet{}
}

// leaf is the leaf of an entry that the state has.
func (s *State) leaf(sequence uint64) []byte {
	e := &s.entries[sequence]
	return encodeLeaf(e, s.leafSet(e))
}

// apply adds an entry that is valid and the next, of the i-th set.
func (b *stateBuilder) apply(e Entry, i int32) {
	s := b.state
	if i >= 0 {
		e.Destinations = s.sets[i].destinations
		b.namesOf(i)[e.Name] = e.Sequence
	} else {
		b.revoke(&e)
	}
	s.entries = append(s.entries, e)
	s.setOf = append(s.setOf, i)
}

func (b *stateBuilder) revoke(e *Entry) {
	if !b.ownRevoke {
		b.state.revoked = cloneMap(b.state.revoked)
		b.ownRevoke = true
	}
	if e.Action == Revoke {
		b.state.revoked[e.Digest] = e.Sequence
	} else {
		delete(b.state.revoked, e.Digest)
	}
}

// namesOf is the map of a set's names, to write to.
func (b *stateBuilder) namesOf(i int32) map[string]uint64 {
	set := b.state.sets[i]
	if !b.ownNames[i] {
		own := *set
		own.names = maps.Clone(set.names)
		b.state.sets[i] = &own
		b.ownNames[i] = true
		set = &own
	}
	return set.names
}

// setOf is the index of an entry's set, which is new if the entry is the first
// to have it; -1 without destinations.
func (b *stateBuilder) setOf(e *Entry) int32 {
	s := b.state
	if len(e.Destinations) == 0 {
		return -1
	}
	// Most entries share the slice of the one before them.
	if n := len(s.entries); n > 0 && len(s.entries[n-1].Destinations) == len(e.Destinations) &&
		&s.entries[n-1].Destinations[0] == &e.Destinations[0] {
		return s.setOf[n-1]
	}
	key := setKey(e.Destinations)
	if i, ok := s.byKey[key]; ok {
		return i
	}
	if !b.ownSets {
		s.byKey, s.byLeaf = cloneMap(s.byKey), cloneMap(s.byLeaf)
		s.at, s.below = cloneMap(s.at), cloneMap(s.below)
		b.ownSets = true
	}
	i := int32(len(s.sets))
	set := &destinationSet{destinations: slices.Clone(e.Destinations), leaf: e.Sequence, names: make(map[string]uint64)}
	s.sets = append(s.sets, set)
	b.ownNames = append(b.ownNames, true)
	s.byKey[key], s.byLeaf[e.Sequence] = i, i
	for _, destination := range set.destinations {
		if _, known := s.at[destination]; !known {
			b.findNested(i, destination)
		}
		s.at[destination] = append(slices.Clip(s.at[destination]), i)
		if others := s.at[destination]; len(others) > 1 {
			b.markShared(others...)
		}
	}
	return i
}

// findNested finds what a new destination of the i-th set lies below, and what
// lies below it.
func (b *stateBuilder) findNested(i int32, destination string) {
	s := b.state
	related := slices.Clone(s.below[destination])
	for j := range len(destination) {
		if destination[j] == '/' {
			above := destination[:j]
			related = append(related, s.at[above]...)
			s.below[above] = append(slices.Clip(s.below[above]), i)
		}
	}
	if len(related) > 0 {
		s.nested = true
		b.markShared(append(related, i)...)
	}
}

func (b *stateBuilder) markShared(sets ...int32) {
	for _, i := range sets {
		if !b.state.sets[i].shared {
			b.namesOf(i)
			b.state.sets[i].shared = true
		}
	}
}

// cloneMap is maps.Clone that makes a map of none, too.
func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

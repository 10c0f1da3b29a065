package ledger

import (
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// State is what the entries of a log, or the first of them, come to. It does
// not change, and is safe for concurrent use.
//
// Names are kept once for each destination set, not for each destination: real
// configurations list 22 destinations for each of 45,000 names.
type State struct {
	entries []Entry
	setOf   []int32 // of each entry, the index in sets; -1 for revocations

	sets   []*destinationSet
	byKey  map[string]int32 // index in sets, by setKey
	byLeaf map[uint64]int32 // the same by the leaf that spells the set out
	// at are the sets that a destination is in.
	at map[string][]int32
	// below are the sets with a destination below a path, which may be a
	// destination too.
	below map[string][]int32
	// nested says that a destination lies below another one, so that a full
	// name may be of either.
	nested  bool
	revoked map[digest.Digest]uint64 // sequence
}

// destinationSet is what is known at destinations that were named together.
type destinationSet struct {
	destinations []string
	leaf         uint64            // that spells it out
	names        map[string]uint64 // sequence of the newest entry about a name
	// shared says that another set may have the same full names.
	shared bool
}

func setKey(destinations []string) string { return strings.Join(destinations, "\n") }

// Len is the number of entries.
func (s *State) Len() uint64 { return uint64(len(s.entries)) }

// Entries are all entries from a sequence on, in order.
func (s *State) Entries(from uint64) iter.Seq[Entry] {
	return slices.Values(s.entries[min(from, s.Len()):])
}

// Lookup returns the newest entry about a name at a destination, which may say
// that it was deleted: see [Entry.Exists]. It reports false when the ledger
// never heard of the name.
func (s *State) Lookup(destination, name string) (Entry, bool) {
	if s.nested {
		return s.LookupFull(destination + "/" + name)
	}
	return s.entry(s.newest(destination, name))
}

// LookupFull is [State.Lookup] of a full name:
// "registry.k8s.io/coredns/coredns:v1.9.3". It allocates nothing.
func (s *State) LookupFull(fullName string) (Entry, bool) {
	return s.entry(s.newestFull(fullName))
}

// LookupFile returns the newest entry about a file below destinations, of which the
// first counts that ever heard of the name: an upstream of files can be promoted to
// by several.
func (s *State) LookupFile(destinations []string, path string) (Entry, bool) {
	for _, destination := range destinations {
		if e, known := s.LookupFull(destination + "/" + path); known && e.Kind == File {
			return e, true
		}
	}
	return Entry{}, false
}

func (s *State) entry(sequence uint64, found bool) (Entry, bool) {
	if !found {
		return Entry{}, false
	}
	return s.entries[sequence], true
}

// newest is the sequence of the newest entry that gives destination and name as
// they are here.
func (s *State) newest(destination, name string) (newest uint64, found bool) {
	for _, i := range s.at[destination] {
		if sequence, ok := s.sets[i].names[name]; ok && (!found || sequence > newest) {
			newest, found = sequence, true
		}
	}
	return newest, found
}

// newestFull is newest for all destinations that a full name can be at: those
// that end at one of its slashes.
func (s *State) newestFull(fullName string) (newest uint64, found bool) {
	for i := range len(fullName) {
		if fullName[i] != '/' {
			continue
		}
		if sequence, ok := s.newest(fullName[:i], fullName[i+1:]); ok && (!found || sequence > newest) {
			newest, found = sequence, true
		}
	}
	return newest, found
}

// Names are the names that exist, each with the newest entry about it, in the
// order of their sequences. The entry's Destinations are those where it is the
// newest one still.
func (s *State) Names() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for i, e := range s.entries {
			if !e.Exists() {
				continue
			}
			set := s.sets[s.setOf[i]]
			if set.names[e.Name] != e.Sequence {
				continue
			}
			if set.shared {
				e.Destinations = s.current(&e)
			}
			if len(e.Destinations) > 0 && !yield(e) {
				return
			}
		}
	}
}

// NamesBelow are the names of a kind that exist at destinations, by their paths below them:
// what an upstream has that the ledger calls by these names. A path that several of them
// have is what the first of them says that ever heard of it; see [State.LookupFile].
func (s *State) NamesBelow(kind Kind, destinations []string) iter.Seq2[string, Entry] {
	return func(yield func(string, Entry) bool) {
		for e := range s.Names() {
			if e.Kind != kind {
				continue
			}
			for _, path := range s.pathsBelow(&e, destinations) {
				if !yield(path, e) {
					return
				}
			}
		}
	}
}

// pathsBelow are what an entry is called below destinations.
func (s *State) pathsBelow(e *Entry, destinations []string) []string {
	var paths []string
	for _, at := range e.Destinations {
		full := at + "/" + e.Name
		for _, destination := range destinations {
			path, ok := strings.CutPrefix(full, destination+"/")
			if ok && s.says(e, destinations, path) && !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// says whether it is an entry that says what a path below destinations is.
func (s *State) says(e *Entry, destinations []string, path string) bool {
	for _, destination := range destinations {
		if newest, known := s.LookupFull(destination + "/" + path); known && newest.Kind == e.Kind {
			return newest.Sequence == e.Sequence
		}
	}
	return false
}

// current are the destinations where no newer entry is about the same name.
func (s *State) current(e *Entry) []string {
	superseded := func(destination string) bool {
		newest, _ := s.newest(destination, e.Name)
		if s.nested {
			newest, _ = s.newestFull(destination + "/" + e.Name)
		}
		return newest != e.Sequence
	}
	if !slices.ContainsFunc(e.Destinations, superseded) {
		return e.Destinations
	}
	return slices.DeleteFunc(slices.Clone(e.Destinations), superseded)
}

// History returns all entries about a name at a destination, oldest first.
func (s *State) History(destination, name string) []Entry {
	full := destination + "/" + name
	var history []Entry
	for i := range s.entries {
		e := &s.entries[i]
		if strings.HasSuffix(full, e.Name) && slices.ContainsFunc(e.Destinations, func(d string) bool {
			return len(d)+1+len(e.Name) == len(full) && full[len(d)] == '/' && full[:len(d)] == d
		}) {
			history = append(history, *e)
		}
	}
	return history
}

// Wrote says whether the name exists and promotion itself made it what it is
// now, at that time or before, so that promotion may delete it. A name that was
// only ever adopted is somebody else's.
func (s *State) Wrote(destination, name string) bool {
	now, ok := s.Lookup(destination, name)
	if !ok || !now.Exists() {
		return false
	}
	if now.Action == Set {
		return true
	}
	return slices.ContainsFunc(s.History(destination, name), func(e Entry) bool {
		return e.Action == Set && e.Digest == now.Digest
	})
}

// Revoked returns the entry that revoked a digest, unless it was taken back.
func (s *State) Revoked(d digest.Digest) (Entry, bool) {
	sequence, ok := s.revoked[d]
	return s.entry(sequence, ok)
}

// Revocations are the entries of the digests that are revoked, in the order of
// their sequences.
func (s *State) Revocations() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		sequences := make([]uint64, 0, len(s.revoked))
		for _, sequence := range s.revoked {
			sequences = append(sequences, sequence)
		}
		slices.Sort(sequences)
		for _, sequence := range sequences {
			if !yield(s.entries[sequence]) {
				return
			}
		}
	}
}

// AsOf is the state right after the entry of a sequence.
func (s *State) AsOf(sequence uint64) *State {
	if sequence >= s.Len() {
		return s
	}
	return s.first(sequence + 1)
}

// AsOfTime is the state after the last entry that is not younger than t.
func (s *State) AsOfTime(t time.Time) *State {
	n := sort.Search(len(s.entries), func(i int) bool { return s.entries[i].Time.After(t) })
	return s.first(uint64(n))
}

// first is the state of the first n entries.
func (s *State) first(n uint64) *State {
	if n == s.Len() {
		return s
	}
	b := new(State).extend()
	b.grow(n)
	for _, e := range s.entries[:n] {
		b.apply(e, b.setOf(&e))
	}
	return b.state
}

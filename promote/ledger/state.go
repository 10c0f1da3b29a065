package ledger

import (
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// State is what the entries of a log, or the first of them, come to. It does
// not change, and is safe for concurrent use.
type State struct{ entries []Entry }

// Len is the number of entries.
func (s *State) Len() uint64 { return uint64(len(s.entries)) }

// Entries are all entries from a sequence on, in order.
func (s *State) Entries(from uint64) iter.Seq[Entry] { return func(func(Entry) bool) {} }

// Lookup returns the newest entry about a name at a destination, which may say
// that it was deleted: see [Entry.Exists]. It reports false when the ledger
// never heard of the name.
func (s *State) Lookup(destination, name string) (Entry, bool) { return Entry{}, false }

// LookupFull is [State.Lookup] of a full name:
// "registry.k8s.io/coredns/coredns:v1.9.3".
func (s *State) LookupFull(fullName string) (Entry, bool) { return Entry{}, false }

// Names are the names that exist, each with the newest entry about it, in no
// particular order. The entry's Destinations are those where it is the newest
// one still.
func (s *State) Names() iter.Seq[Entry] { return func(func(Entry) bool) {} }

// History returns all entries about a name at a destination, oldest first.
func (s *State) History(destination, name string) []Entry { return nil }

// Wrote says whether promotion itself, and not somebody before it, ever made
// the name what it is now, so that it may delete it.
func (s *State) Wrote(destination, name string) bool { return false }

// Revoked returns the entry that revoked a digest, unless it was taken back.
func (s *State) Revoked(d digest.Digest) (Entry, bool) { return Entry{}, false }

// Revocations are the digests that are revoked, in no particular order.
func (s *State) Revocations() iter.Seq[Entry] { return func(func(Entry) bool) {} }

// AsOf is the state right after the entry of a sequence.
func (s *State) AsOf(sequence uint64) *State { return s }

// AsOfTime is the state after the last entry that is not younger than t.
func (s *State) AsOfTime(t time.Time) *State { return s }

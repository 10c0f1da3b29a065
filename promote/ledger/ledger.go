// Package ledger is the append-only, signed log of every promotion: which
// names production holds, with what content, since when and why.
//
// It is a transparency log (RFC 6962 hashing) of static objects in a directory
// or bucket, laid out as C2SP's tlog-tiles and signed as its tlog-checkpoint
// say, so that a web server can serve it and anyone can audit it. A [Log]
// appends to it; appliers at once never lose or fork entries. A [State] is what
// the entries come to: what each name is, as of any of them. A [Follower] keeps
// a node's state in step with a log elsewhere and refuses one that was forked,
// rolled back or signed by anyone else. [Verify] audits all of a log.
//
// The objects are "checkpoint", "tile/<level>/<n>" and "tile/entries/<n>", with
// ".p/<width>" behind those that are not full. An entry's leaf is JSON in the
// canonical form of RFC 8785, with the keys action, destinations, digest, kind,
// mediaType, name, previous, project, reason, revision, sequence, size and time
// as far as they are not empty; where destinations is a number, they are those
// of the entry with that sequence. One more object, "head", is for appliers only.
//
// The ledger records decisions. It neither reads nor writes registries, and
// does not judge whether a promotion was right.
package ledger

import (
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
)

// Entry is one change, written in one leaf of the log.
//
// A full name is a destination, "/" and Name; an entry is about that name at
// all of its destinations.
type Entry struct {
	// Sequence is the index of the leaf, from 0.
	Sequence uint64
	// Time is when it was appended, UTC, in whole milliseconds. It never
	// decreases along the log.
	Time time.Time
	// Kind is empty only where a revocation does not say.
	Kind Kind
	// Name is below each destination: "coredns:v1.9.3", "coredns@sha256:…" for
	// what is promoted by digest alone, "v1.36.0/bin/linux/amd64/kubectl". Of a
	// revocation it is the digest.
	Name string
	// Destinations are sorted, each once: "registry.k8s.io/coredns",
	// "s3://bucket/prefix", without a slash at the end. Revocations have none.
	// Entries share the slice: it must not be written to.
	Destinations []string
	Action       Action
	// Digest is what the name is from now on, or what is revoked; empty when
	// the name is deleted.
	Digest digest.Digest
	// Size is that of the manifest or file, in bytes; 0 when it is not known.
	Size      int64
	MediaType string
	// Previous is what the name was before; empty when it is new.
	Previous digest.Digest
	// Project is the one whose configuration asked for the change, Revision the
	// source revision of it: a git commit, or a hash of the tree.
	Project  string
	Revision string
	Reason   string
}

// Exists says whether the entry's name is there after it.
func (e *Entry) Exists() bool { return e.Action == Set || e.Action == Adopt }

// Kind tells images from files.
type Kind string

// The kinds of names.
const (
	Image Kind = "image"
	File  Kind = "file"
)

// Action is what an entry does.
type Action string

// The actions.
const (
	// Set is a name that promotion made, or moved to another digest.
	Set Action = "set"
	// Adopt is a name that was there already and is as it should be: promotion
	// did not write it, and answers for it from now on.
	Adopt Action = "adopt"
	// Delete is a name that promotion removed.
	Delete Action = "delete"
	// Revoke is a digest that no cache may serve any more, under no name.
	Revoke Action = "revoke"
	// Unrevoke takes a revocation back.
	Unrevoke Action = "unrevoke"
)

// What callers decide on.
var (
	// ErrNotExist is about an object, or a log, that is not there.
	ErrNotExist = errors.New("does not exist")
	// ErrReadOnly is about a log that can be read only, because of where it is
	// or for want of a private key.
	ErrReadOnly = errors.New("the ledger is read-only here")
	// ErrSignature is about a checkpoint that the expected key did not sign.
	ErrSignature = errors.New("the checkpoint is not signed by the ledger's key")
	// ErrRollback is about a log with fewer entries than it had before.
	ErrRollback = errors.New("the ledger was rolled back")
	// ErrFork is about a signed log that does not begin with the entries which
	// it had before.
	ErrFork = errors.New("the ledger was forked")
	// ErrCorrupt is about objects that are not what the checkpoint says:
	// altered, cut short or malformed.
	ErrCorrupt = errors.New("the ledger is corrupt")
)

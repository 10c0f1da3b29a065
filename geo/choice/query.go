package choice

import (
	"net/netip"

	"entrepot/geo/locate"
)

// What is asked for, as far as it matters who may serve it.
type What uint8

// What can be asked for.
const (
	// Names are what only who is authoritative can say: tags, lists, referrers,
	// signatures at tags, moving files, folders.
	Names What = iota
	// Manifest is a manifest by its digest.
	Manifest
	// Blob is a blob by its digest.
	Blob
	// File is a file that never changes.
	File
	// Whats is how many there are.
	Whats
)

// String says it in a word.
func (w What) String() string {
	switch w {
	case Names:
		return "names"
	case Manifest:
		return "manifest"
	case Blob:
		return "blob"
	default:
		return "file"
	}
}

// Query is a request and its client.
type Query struct {
	What What
	// OfFile says that it is of a file, or the name of one, and not of an image.
	OfFile bool
	// Namespace is the upstream's name.
	Namespace string
	// Private says that the content is not for everybody.
	Private bool
	// Size is the content's, in bytes; negative when it is not known.
	Size int64
	// Secure says that the client came by https.
	Secure bool
	// Verifies says that the client shows that it checks files, and that there is
	// a digest to check them by.
	Verifies bool
	// Key has requests that belong together go to the same mirror: a repository,
	// the folder of a release.
	Key string
	// Client is the client's address; Place is where it is.
	Client netip.Addr
	Place  locate.Place
	// Attempt is how many mirrors a client that comes back has had already.
	Attempt int
	// Avoid is the name of a mirror that the client does not want.
	Avoid string
}

// State is what is known of a mirror now. The zero value is one that is down.
type State struct {
	Up bool
	// Reason says in plain words why it is not up.
	Reason string
	// Ramp is the share of its capacity that it is trusted with, from 0 to 1,
	// after it was down.
	Ramp float64
	// Load is what it was sent lately, as a share of the capacity that it is trusted
	// with.
	Load float64
	// Quarantined says that it sent wrong bytes, and waits for a person.
	Quarantined bool
	// Frozen says that so many mirrors of its continent fell at once that only
	// origins and trusted ones count.
	Frozen bool
}

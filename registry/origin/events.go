package origin

import (
	"entrepot/registry"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Event is something that happened to a repository.
type Event struct {
	Repository string
	// Descriptor is what was pushed or deleted: a manifest with its media type
	// and size; a blob, whose media type is application/octet-stream, and
	// whose size is 0 when it was deleted.
	Descriptor ocispec.Descriptor
	// Tag is set to the manifest, or was deleted; "" for what was pushed or
	// deleted by digest.
	Tag string
	// From is the repository a blob was mounted from, "" for a blob that was
	// uploaded. Mounted tells one that was mounted from wherever it was.
	From    string
	Mounted bool
	// Caller is who did it.
	Caller registry.Caller
}

// Listener is told of what happened, after it did. Its methods return at once:
// the client waits for them.
type Listener interface {
	Pushed(Event)
	Deleted(Event)
}

// nobody listens.
type nobody struct{}

func (nobody) Pushed(Event)  {}
func (nobody) Deleted(Event) {}

const blobMediaType = "application/octet-stream"

// event begins the event of a request. The request's strings are copied: it is
// used again when the response is complete.
func event(req *registry.Request, d ocispec.Descriptor, tag string) Event {
	e := Event{Repository: clone(req.Repository), Descriptor: d, Tag: clone(tag)}
	if req.Caller != nil {
		e.Caller = *req.Caller
	}
	return e
}

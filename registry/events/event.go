package events

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MediaType is what an envelope is sent as, unless configured. It is that of
// distribution 2, which says the same as version 3 does under
// [MediaTypeV2], and the only one that receivers such as GitLab take.
const (
	MediaType   = "application/vnd.docker.distribution.events.v1+json"
	MediaTypeV2 = "application/vnd.docker.distribution.events.v2+json"
)

// The actions of events.
const (
	ActionPush   = "push"
	ActionMount  = "mount"
	ActionDelete = "delete"
)

// Envelope is what is sent: one event each time, as distribution does it, since
// receivers are known that read no more.
type Envelope struct {
	Events []Event `json:"events,omitempty"`
}

// Event is one thing that happened, in the form of distribution's package
// notifications. That package itself would bring logging and metrics of its
// own, registered globally.
type Event struct {
	ID        string    `json:"id,omitempty"` // a UUID
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action,omitempty"`
	Target    Target    `json:"target"`
	Request   Request   `json:"request"`
	Actor     Actor     `json:"actor"`
	Source    Source    `json:"source"`
}

// Target is what it happened to. Of a file, Repository is empty, so that nobody
// takes it for an image: its path is the annotation
// "org.opencontainers.image.title".
type Target struct {
	ocispec.Descriptor

	Length         int64                `json:"length,omitempty"` // the same as Size
	Repository     string               `json:"repository,omitempty"`
	FromRepository string               `json:"fromRepository,omitempty"` // of a mount
	URL            string               `json:"url,omitempty"`
	Tag            string               `json:"tag,omitempty"`
	References     []ocispec.Descriptor `json:"references,omitempty"`
}

// Request is the request that did it.
type Request struct {
	ID        string `json:"id"`
	Addr      string `json:"addr,omitempty"` // of the client, with its port
	Host      string `json:"host,omitempty"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent"`
}

// Actor is who did it.
type Actor struct {
	Name string `json:"name,omitempty"`
}

// Source is the process that tells of it.
type Source struct {
	Addr       string `json:"addr,omitempty"`       // host:port
	InstanceID string `json:"instanceID,omitempty"` // another after each start
}

package promote

import (
	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Action is what is to happen to a name.
type Action string

// The actions of a plan.
const (
	// Create gives a new name its content.
	Create Action = "create"
	// Move gives a name other content than the ledger says it has.
	Move Action = "move"
	// Adopt records a name that is right already, by somebody else's hand or
	// an interrupted apply: nothing is copied.
	Adopt Action = "adopt"
	// Attach brings what is about an image that is there already: signatures,
	// attestations and other referrers that staging was given since. No name
	// changes, and the ledger has nothing to record.
	Attach Action = "attach"
	// Delete removes a name.
	Delete Action = "delete"
	// Revoke forbids caches to serve content, under whatever name.
	Revoke Action = "revoke"
	// Unrevoke allows it again.
	Unrevoke Action = "unrevoke"
)

// copies says whether an action brings content.
func (a Action) copies() bool { return a == Create || a == Move || a == Attach }

// Obstacle is why an item cannot be done. The zero value is none.
type Obstacle string

// The obstacles.
const (
	// Lost means that neither source nor destination has the content.
	Lost Obstacle = "lost"
	// Conflict means that the name has other content, and is not one that may
	// move.
	Conflict Obstacle = "conflict"
	// Withheld means a deletion beyond what was allowed for one run.
	Withheld Obstacle = "withheld"
	// Failed means that source or destination could not be asked, or refused.
	Failed Obstacle = "failed"
)

// Item is one change of one name, at one or several destinations.
type Item struct {
	Action  Action      `json:"action"`
	Kind    ledger.Kind `json:"kind"`
	Project string      `json:"project"`
	// Name is below each of the destinations: "coredns:v1.9.3",
	// "coredns@sha256:…", "v1.36.0/bin/linux/amd64/kubectl"; of Revoke and
	// Unrevoke the digest.
	Name         string   `json:"name"`
	Destinations []string `json:"destinations,omitempty"`
	// Source is where the content comes from: "gcr.io/k8s-staging-coredns".
	Source string `json:"source,omitempty"`
	// Digest is what the name is to have, or has when it is deleted.
	Digest digest.Digest `json:"digest,omitempty"`
	// Previous is what the name has, of Move.
	Previous digest.Digest `json:"previous,omitempty"`
	// Size is the content's, in bytes, with everything below a manifest; 0
	// when nobody was asked.
	Size int64 `json:"size,omitempty"`
	// Reason is the configuration's, of Delete, Revoke and a rollback.
	Reason string `json:"reason,omitempty"`
	// Position is where the configuration says so.
	Position config.Position `json:"position,omitzero"`

	// root describes the manifest or file itself, as far as it was seen.
	root ocispec.Descriptor
	// trusted says that promotion has brought the content to each destination
	// before, so that it need not be looked for blob by blob.
	trusted bool

	// Obstacle and Detail say why it cannot be done.
	Obstacle Obstacle `json:"obstacle,omitempty"`
	Detail   string   `json:"detail,omitempty"`
}

// blocked marks the item as one that cannot be done.
func (i *Item) blocked(o Obstacle, detail string) { i.Obstacle, i.Detail = o, detail }

// repository is the item's repository below a source or destination.
func (i *Item) repository(at string) (transfer.Repository, error) {
	image, _, _ := splitName(i.Name)
	return transfer.ParseRepository(at + "/" + image)
}

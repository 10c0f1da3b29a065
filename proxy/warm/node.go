package warm

import (
	"context"
	"io"

	"entrepot/proxy"
	"entrepot/registry"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Node is a node of this process. What comes is stored as if clients had asked.
type Node struct{ *proxy.Node }

// Manifest implements [Source]. What a tag means is asked upstream anew.
func (n Node) Manifest(ctx context.Context, upstream, repository, reference string) (*Manifest, error) {
	m, err := n.PullManifest(ctx, upstream, repository, reference)
	if err != nil {
		return nil, err
	}
	return &Manifest{Digest: m.Digest, Body: m.Body}, nil
}

// Blob implements [Source].
func (n Node) Blob(ctx context.Context, upstream, repository string, d ocispec.Descriptor) (int64, error) {
	blob, cs, err := n.Node.Blob(ctx, &registry.Request{Kind: registry.KindBlob, Namespace: upstream, Repository: repository, Digest: d.Digest, N: -1})
	if err != nil || blob.Content == nil { // nil where the shared bucket has it
		return 0, err
	}
	return drain(ctx, blob.Content, cs.Outcome)
}

// File implements [Source].
func (n Node) File(ctx context.Context, upstream, path string) (int64, error) {
	file, cs, err := n.Node.File(ctx, &registry.FileRequest{Path: upstream + "/" + path})
	if err != nil || file.Content == nil {
		return 0, err
	}
	return drain(ctx, file.Content, cs.Outcome)
}

// drain reads content to its end, where it was not in the store.
func drain(ctx context.Context, content registry.Content, from registry.Outcome) (int64, error) {
	defer content.Close()
	if from == registry.OutcomeHit || from == registry.OutcomeStale {
		return 0, nil
	}
	return content.WriteRange(ctx, io.Discard, 0, -1)
}

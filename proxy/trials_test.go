package proxy

import (
	"errors"
	"net/http"
	"testing"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// Clients believe a 404 and stop asking, so that wrong bytes must not become one.
func TestUpstreamThatSentWrongBytesIsNotSaidToHaveNothing(t *testing.T) {
	up := newScript(t)
	d, _ := up.blob(mib, 1)
	n := startNode(t, t.TempDir(), []string{up.URL})
	s := n.newUpstreamSource(n.upstreams["docker.io"], "app", d)
	body, _, err := s.open(t.Context(), 0, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	s.disbelieve(blobstore.ErrDigestMismatch)
	_, _, err = s.open(t.Context(), mib/2, -1, mib)
	var told *registry.Error
	if !errors.As(clientError(err, "blob", n.upstreams["docker.io"], "app", string(d)), &told) || told.Status != http.StatusBadGateway {
		t.Errorf("who asks for a range is told %v, because of %v", told, err)
	}
	if !isFinal(err) || !worse(&upstream.Error{Kind: upstream.NotFound}, err) || !worse(blobstore.ErrNotExist, err) {
		t.Errorf("%v is tried again, or says less than absence elsewhere", err)
	}
	if n.absent.remember(nameKey{n.upstreams["docker.io"], "app", string(d)}, err); n.absent.recall(nameKey{n.upstreams["docker.io"], "app", string(d)}) != nil {
		t.Error("it is remembered as absent")
	}
}

// It has no URLs, none of which sent anything.
func TestOfflineUpstreamHasNotSentWrongBytes(t *testing.T) {
	n := startNode(t, t.TempDir(), nil, func(c *Config) { c.Upstreams[0].Offline = true })
	path := "/v2/docker.io/app/blobs/" + string(digest.FromString("never brought"))
	if got := n.get(t, path); got.status != http.StatusNotFound {
		t.Errorf("a blob that was not brought: status %d, %s", got.status, got.body)
	}
}

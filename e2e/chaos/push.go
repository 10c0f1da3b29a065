package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pusher pushes images to the origin by themselves, and remembers what the origin
// said it has.
type pusher struct {
	origin string // base URL
	random *rand.Rand
	tally  *tally
	acked  []item // at the origin; for after run
}

// repository is where it pushes to. No promotion knows it.
const pushedTo = "pushed/app"

func (p *pusher) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if items, err := p.push(ctx, fmt.Sprintf("v%d", n)); err == nil {
			p.acked = append(p.acked, items...)
			p.tally.add(pushes, 1)
		}
		_ = pause.For(ctx, 500*time.Millisecond)
	}
}

// push pushes an image with one layer, and returns what it is once the origin has
// acknowledged its tag.
func (p *pusher) push(ctx context.Context, tag string) ([]item, error) {
	ctx, cancel := context.WithTimeout(ctx, stuckAfter)
	defer cancel()
	layer := make([]byte, 1+p.random.IntN(512<<10))
	for i := range layer {
		layer[i] = byte(p.random.Uint32())
	}
	empty := []byte("{}")
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(empty), Size: int64(len(empty))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
	})
	if err != nil {
		return nil, err
	}
	base := "/v2/" + pushedTo
	items := []item{{path: base + "/manifests/" + tag, body: manifest, name: true}}
	for _, blob := range [][]byte{layer, empty} {
		location, err := p.send(ctx, http.MethodPost, p.origin+base+"/blobs/uploads/", "", nil, http.StatusAccepted)
		if err != nil {
			return nil, err
		}
		at, err := url.Parse(location)
		if err != nil {
			return nil, err
		}
		d := digest.FromBytes(blob)
		query := at.Query()
		query.Set("digest", string(d))
		at.RawQuery = query.Encode()
		if _, err := p.send(ctx, http.MethodPut, at.String(), "application/octet-stream", blob, http.StatusCreated); err != nil {
			return nil, err
		}
		items = append(items, item{path: base + "/blobs/" + string(d), body: blob})
	}
	_, err = p.send(ctx, http.MethodPut, p.origin+base+"/manifests/"+tag, ocispec.MediaTypeImageManifest, manifest, http.StatusCreated)
	return items, err
}

// send sends a request that changes something, and returns the Location of the
// answer.
func (p *pusher) send(ctx context.Context, method, to, contentType string, body []byte, want int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(testenv.Promoter, testenv.PromoterPassword)
	req.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "", err
	}
	if response.StatusCode != want {
		return "", fmt.Errorf("%s %s: %s", method, to, response.Status)
	}
	location, err := req.URL.Parse(response.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	return location.String(), nil
}

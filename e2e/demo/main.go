// Command demo runs a whole system on this machine: staging, an origin that
// promotion writes, nodes that stand for three regions, and a router before them.
// It promotes an image and a release of files, pulls both once as clients of each
// region, says what to try, and ends everything on Ctrl-C.
//
//	make demo
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"entrepot/e2e/internal/harness"
	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	once := flag.Bool("once", false, "end after the proof")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := harness.Run(ctx, "demo", func(t testing.TB) { demonstrate(t, *once) })
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

// The release that is promoted.
const (
	tool   = "v1.0.0/bin/linux/amd64/tool"
	stable = "stable.txt"
)

func demonstrate(t testing.TB, once bool) {
	say("Starting staging, an origin, nodes for three regions and a router ...")
	w := testenv.StartWorld(t, testenv.WorldConfig{Here: "eu"})
	say("Promoting an image and a release of two files from staging to the origin ...")
	app := testenv.PushIndex(t, w.Staging.Host(), "library/app", "1.0")
	w.Promote(testenv.Release{
		Images: []testenv.Artifact{app},
		Files:  map[string]string{tool: strings.Repeat("#!/bin/sh\necho a tool\n", 1<<16), stable: "v1.0.0\n"},
	})
	say("Pulling as a client of each region, through the router's one name:")
	for i := range w.Regions {
		r := &w.Regions[i]
		p := &pull{t: t, router: w.Router.URL(), client: r.Client(), doors: map[string]string{}}
		for _, region := range w.Regions {
			p.doors[strings.TrimPrefix(region.Door.URL(), "http://")] = region.Name
		}
		p.waitFor("/v2/library/app/manifests/1.0", app.Root.Digest)
		p.image(app)
		p.file("/release/"+tool, "/release/"+tool)
		say("  %-3s %-16s %s", r.Name, r.Client(), strings.Join(p.said, ", "))
	}
	tryThis(w)
	if once {
		return
	}
	say("\nCtrl-C ends it all and removes what it stored.")
	<-t.Context().Done()
	say("\nEnding ...")
}

// tryThis says what a person can do now.
func tryThis(w *testenv.World) {
	router := w.Router.URL()
	host := strings.TrimPrefix(router, "http://")
	jp := w.Regions[2].Client()
	say("\nThe router: %s. This machine counts as a client in Germany; it believes X-Forwarded-For of this machine.\n", router)
	say("  crane pull --insecure %s/library/app:1.0 app.tar", host)
	say("  skopeo copy --src-tls-verify=false docker://%s/library/app:1.0 dir:app", host)
	say("  curl -LO %s/release/%s", router, tool)
	say("  curl -sI -H 'X-Forwarded-For: %s' %s/release/%s      # as a client in Japan", jp, router, tool)
	say("  aria2c %s/release/%s.meta4                            # from several mirrors, verified", router, tool)
	say("  curl -L %s/release/v1.0.0/bin/linux/amd64/SHA256SUMS", router)
	say("\nIn a browser:")
	say("  %s/where?request=/release/%s", router, tool)
	say("  %s/release/%s?mirrorlist", router, tool)
	say("  %s/%s/", router, testenv.WorldFiles)
	say("\nThe nodes: %s (us), %s (eu), %s (jp); the origin: %s, its ledger below /ledger/.",
		w.Regions[0].Node.URL(), w.Regions[1].Node.URL(), w.Regions[2].Node.URL(), w.Origin.URL())
}

// pull is a client of a region.
type pull struct {
	t              testing.TB
	router, client string
	doors          map[string]string // regions by the host of their node
	said           []string
}

// get downloads what a path leads to, and says from which region.
func (p *pull) get(path string) (data []byte, region string, err error) {
	client := &http.Client{CheckRedirect: func(next *http.Request, _ []*http.Request) error {
		region = p.doors[next.URL.Host]
		return nil
	}}
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, p.router+path, http.NoBody)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("X-Forwarded-For", p.client)
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex+", "+ocispec.MediaTypeImageManifest)
	resp, err := client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %s", path, resp.Status, data)
	}
	return data, region, err
}

// waitFor waits until a name is what was promoted: nodes hear of it within a
// second.
func (p *pull) waitFor(path string, want digest.Digest) {
	const patience = 20 * time.Second
	for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		data, _, err := p.get(path)
		if err == nil && digest.FromBytes(data) == want {
			return
		}
		if p.t.Context().Err() != nil || time.Since(start) > patience {
			p.t.Fatalf("%s for %s is not what was promoted: %v", path, p.client, err)
		}
	}
}

// image pulls an image and verifies every digest.
func (p *pull) image(a testenv.Artifact) {
	blobs := map[string]int{}
	manifest, region := p.verified("/v2/"+a.Repository+"/manifests/"+string(a.Manifests[0]), a.Manifests[0])
	p.said = append(p.said, "manifest from "+region)
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		p.t.Fatal(err)
	}
	for _, blob := range append(m.Layers, m.Config) {
		_, region := p.verified("/v2/"+a.Repository+"/blobs/"+string(blob.Digest), blob.Digest)
		blobs[region]++
	}
	for region, n := range blobs {
		p.said = append(p.said, fmt.Sprintf("%d blobs from %s", n, region))
	}
}

func (p *pull) verified(path string, want digest.Digest) (data []byte, region string) {
	data, region, err := p.get(path)
	if err == nil && digest.FromBytes(data) != want {
		err = errors.New("it is not what its digest says")
	}
	if err != nil {
		p.t.Fatalf("%s: %v", path, err)
	}
	return data, region
}

// file downloads a file and checks it by the SHA256SUMS of its folder.
func (p *pull) file(path, name string) {
	data, region, err := p.get(path)
	if err != nil {
		p.t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	at := strings.LastIndexByte(name, '/')
	sums, _, err := p.get(name[:at] + "/SHA256SUMS")
	if err != nil || !strings.Contains(string(sums), hex.EncodeToString(sum[:])) {
		p.t.Fatalf("%s is not what SHA256SUMS says: %s, %v", name, sums, err)
	}
	p.said = append(p.said, "file from "+region+" (checked by SHA256SUMS)")
}

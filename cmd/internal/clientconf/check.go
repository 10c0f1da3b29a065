package clientconf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Finding is one thing that was looked at.
type Finding struct {
	What string `json:"what"`
	OK   bool   `json:"ok"`
	// Detail is what was found; where that is not right, also what would be.
	Detail string `json:"detail"`
}

// checker looks at a client's way to its images.
type checker struct {
	machine  *Machine
	client   Client
	server   *Server
	http     *http.Client
	findings []Finding
}

// Check looks at everything on a client's way to its images: the server, the
// client's files, and for each upstream a manifest, asked for as the client would.
// Images replace those that are asked for by default. It follows redirects.
func (m *Machine) Check(ctx context.Context, client Client, s *Server, images []string, httpClient *http.Client) []Finding {
	c := &checker{machine: m, client: client, server: s, http: httpClient}
	if !c.reachable(ctx) {
		return c.findings
	}
	c.files()
	if client == Curl {
		return c.findings
	}
	if len(images) == 0 {
		images = c.defaultImages()
	}
	for _, image := range images {
		c.image(ctx, image)
	}
	return c.findings
}

func (c *checker) found(ok bool, what, format string, args ...any) {
	c.findings = append(c.findings, Finding{What: what, OK: ok, Detail: fmt.Sprintf(format, args...)})
}

// reachable finds out whether there is a registry, and whether it is an entrepot.
func (c *checker) reachable(ctx context.Context) bool {
	base := c.server.URL.String()
	resp, err := c.get(ctx, base+"/v2/")
	if err != nil {
		c.found(false, base, "%s", diagnose(err))
		return false
	}
	body := readSome(resp)
	switch {
	case resp.StatusCode == http.StatusBadRequest && strings.Contains(body, "HTTPS"):
		c.found(false, base, "it speaks HTTPS: write https://%s", c.server.URL.Host)
		return false
	case resp.StatusCode == http.StatusUnauthorized:
		c.found(false, base, "it asks for credentials (401): log the client in at %s", c.server.URL.Host)
		return false
	case resp.StatusCode != http.StatusOK:
		c.found(false, base, "/v2/ answers %s: there is no registry; is it the address of the node, and not of its admin listener?", resp.Status)
		return false
	}
	switch d, err := Describe(ctx, c.http, c.server.URL); {
	case errors.Is(err, ErrNoDescription):
		c.found(false, base, "it is a registry, and not an entrepot: %s", err)
		return len(c.server.Upstreams) > 0
	case err != nil:
		c.found(false, base, "%s", diagnose(err))
		return false
	default:
		c.found(true, base, "an entrepot %s with %s", d.Role, strings.Join(upstreamNames(d), ", "))
		for _, u := range c.server.Upstreams {
			if !d.Has(u.Name) {
				c.found(false, u.Name, "it is not configured at %s: add it to the %s's upstreams", base, d.Role)
			}
		}
		if len(c.server.Upstreams) == 0 {
			c.server.Upstreams = d.Upstreams
		}
		c.server.Role, c.server.DefaultUpstream, c.server.Files, c.server.DefaultFiles = d.Role, d.DefaultUpstream, d.Files, d.DefaultFiles
		return true
	}
}

func upstreamNames(d *Description) []string {
	var names []string
	for _, u := range d.Upstreams {
		names = append(names, u.Name)
	}
	for _, f := range d.Files {
		names = append(names, f.Name+" (files)")
	}
	if names == nil {
		names = []string{"no upstreams of its own"}
	}
	return names
}

// files finds out whether the client's files are as they are to be.
func (c *checker) files() {
	plan, err := c.machine.Plan(c.client, c.server)
	if err != nil {
		c.found(false, "files of "+string(c.client), "%s", err)
		return
	}
	for _, f := range plan.Files {
		if f.Action == Unchanged {
			c.found(true, f.Path, "it is as it has to be")
			continue
		}
		c.found(false, f.Path, "it does not have what it needs: run this with --write in place of --check")
	}
}

// defaultImages are small and public images, of the upstreams where one is known.
func (c *checker) defaultImages() []string {
	known := map[string]string{
		hub:                 "docker.io/library/hello-world:latest",
		kubernetes:          "registry.k8s.io/pause:3.10",
		"quay.io":           "quay.io/prometheus/busybox:latest",
		"ghcr.io":           "ghcr.io/containerd/busybox:latest",
		"gcr.io":            "gcr.io/distroless/static:latest",
		"public.ecr.aws":    "public.ecr.aws/docker/library/busybox:latest",
		"mcr.microsoft.com": "mcr.microsoft.com/hello-world:latest",
	}
	var images []string
	for _, u := range c.server.Upstreams {
		switch image, ok := known[u.Name]; {
		case c.client == Docker && u.Name != hub, c.client == Kubeadm && u.Name != kubernetes:
		case ok:
			images = append(images, image)
		default:
			c.found(true, u.Name, "not tried: name an image of it with --image")
		}
	}
	return images
}

// image asks for a manifest as the client would.
func (c *checker) image(ctx context.Context, image string) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		c.found(false, image, "it is no name of an image: %s", err)
		return
	}
	named = reference.TagNameOnly(named)
	resp, err := c.get(ctx, c.manifestURL(named))
	if err != nil {
		c.found(false, image, "%s", diagnose(err))
		return
	}
	if resp.StatusCode != http.StatusOK {
		c.found(false, image, "%s", c.refusal(resp, named))
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest))
	if err != nil {
		c.found(false, image, "its manifest broke off: %s", diagnose(err))
		return
	}
	want := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if d, ok := named.(reference.Digested); ok {
		want = d.Digest()
	}
	if want.Validate() != nil {
		want = digest.FromBytes(body)
	}
	if got := want.Algorithm().FromBytes(body); got != want {
		c.found(false, image, "the manifest that came has digest %s instead of %s: something on the way changes what is sent", got, want)
		return
	}
	from := ""
	if r := resp.Request.URL; r.Host != c.server.URL.Host {
		from = " from " + r.Host
	}
	c.found(true, image, "%s%s; %s", want, from, strings.Join(resp.Header.Values("Cache-Status"), ", "))
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 4 << 20

// manifestURL is where the client would ask for an image's manifest.
func (c *checker) manifestURL(named reference.Named) string {
	upstream, repository := reference.Domain(named), reference.Path(named)
	ref, query := "latest", ""
	switch r := named.(type) {
	case reference.Digested:
		ref = r.Digest().String()
	case reference.Tagged:
		ref = r.Tag()
	}
	switch c.client {
	case Containerd, Kubeadm:
		query = "?ns=" + url.QueryEscape(upstream)
	case Docker: // names no upstream
	default:
		repository = upstream + "/" + repository
	}
	return c.server.URL.String() + "/v2/" + repository + "/manifests/" + ref + query
}

// acceptManifests are the types that clients ask for.
func acceptManifests() []string {
	return []string{
		"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json", "*/*",
	}
}

func (c *checker) get(ctx context.Context, at string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header["Accept"] = acceptManifests()
	return c.http.Do(req)
}

// readSome reads the beginning of a body, and closes it.
func readSome(resp *http.Response) string {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return ""
	}
	return string(body)
}

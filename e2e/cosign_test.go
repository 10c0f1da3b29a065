package e2e

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/e2e/testenv"

	"github.com/opencontainers/go-digest"
)

// cosign is the real one, with a key pair of its own and without any network
// but this machine's.
type cosign struct {
	binary, dir string
}

func newCosign(t *testing.T) *cosign {
	t.Helper()
	c := &cosign{testenv.Tool(t, "cosign"), t.TempDir()}
	if said, err := c.run(t, "generate-key-pair"); err != nil {
		t.Fatalf("making a key pair: %v\n%s", err, said)
	}
	return c
}

// run returns what cosign said, and an [exec.ExitError] if it failed.
func (c *cosign) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.binary, args...)
	cmd.Dir = c.dir
	// A proxy that nobody runs: whatever it asks of the world fails, and is no
	// part of what is shown. Requests to 127.0.0.1 take no proxy.
	const nowhere = "http://127.0.0.1:9"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "COSIGN_PASSWORD=a password", "HTTPS_PROXY=" + nowhere, "HTTP_PROXY=" + nowhere}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("running cosign %s: %v", strings.Join(args, " "), err)
	}
	return said.String(), err
}

func (c *cosign) key() string { return filepath.Join(c.dir, "cosign.key") }

// sign signs an image where it is, and keeps nothing in a public log.
func (c *cosign) sign(t *testing.T, image string, form ...string) {
	t.Helper()
	args := append([]string{"sign", "--key", c.key(), "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "--yes"}, form...)
	if said, err := c.run(t, append(args, image)...); err != nil {
		t.Fatalf("signing %s: %v\n%s", image, err, said)
	}
}

// verify says whether an image has a signature of the key, and what cosign said.
func (c *cosign) verify(t *testing.T, image string, form ...string) (string, error) {
	t.Helper()
	args := append([]string{"verify", "--key", filepath.Join(c.dir, "cosign.pub"), "--insecure-ignore-tlog", "--allow-http-registry"}, form...)
	return c.run(t, append(args, image)...)
}

func TestCosignVerifiesPromotedImagesThroughTheNode(t *testing.T) {
	ours, others := newCosign(t), newCosign(t)
	// Both forms in which cosign 3 keeps a signature: a bundle that refers to
	// the image, and as cosign 2 did, under a tag made of the image's digest.
	forms := map[string][]string{
		"bundle": {"--new-bundle-format=true"},
		"tag":    {"--new-bundle-format=false"},
	}
	p := startProduction(t, nil)
	images := map[string]testenv.Artifact{}
	var list []listed
	for form, flags := range forms {
		for _, name := range []string{form, "unsigned-" + form} {
			images[name] = testenv.PushIndex(t, p.staging.Host(), "staging/"+name, "rc1")
			list = append(list, listed{name, map[digest.Digest][]string{images[name].Root.Digest: {"v1"}}})
		}
		ours.sign(t, at(p.staging.Host()+"/staging", form, images[form]), flags...)
	}
	p.configure(t, list)
	p.promote(t, 0, "apply", p.file)

	verified := func(t *testing.T, form string) {
		t.Helper()
		for _, image := range []string{at(p.node.Address()+"/app", form, images[form]), p.node.Address() + "/app/" + form + ":v1"} {
			said, err := ours.verify(t, image, forms[form]...)
			if err != nil || !strings.Contains(said, images[form].Root.Digest.String()) {
				t.Errorf("verifying %s: %v\n%s", image, err, said)
			}
		}
	}
	refused := func(t *testing.T, key *cosign, name, form string) {
		t.Helper()
		p.seen(t, name, "v1", http.StatusOK, images[name].Root.Digest) // it is the signature that is not there
		image := at(p.node.Address()+"/app", name, images[name])
		said, err := key.verify(t, image, forms[form]...)
		if err == nil || !strings.Contains(said, "signature") && !strings.Contains(said, "verif") {
			t.Errorf("verifying %s: %v, want it refused\n%s", image, err, said)
		}
	}
	// Each form is at the node where that form is kept.
	tag := "sha256-" + images["tag"].Root.Digest.Encoded() + ".sig"
	if status, body := ask(t, p.node.URL()+"/v2/app/tag/manifests/"+tag); status != http.StatusOK {
		t.Errorf("the tag %s: %d %s", tag, status, body)
	}
	if _, body := ask(t, p.node.URL()+"/v2/app/bundle/referrers/"+images["bundle"].Root.Digest.String()); !strings.Contains(body, "application/vnd.dev.sigstore.bundle") {
		t.Errorf("the referrers have no bundle: %s", body)
	}
	for form, flags := range forms {
		t.Run(form, func(t *testing.T) {
			verified(t, form)
			refused(t, others, form, form)
			refused(t, ours, "unsigned-"+form, form)

			// A signature that is in staging only does not count in production.
			late := at(p.staging.Host()+"/staging", "unsigned-"+form, images["unsigned-"+form])
			ours.sign(t, late, flags...)
			if said, err := ours.verify(t, late, flags...); err != nil {
				t.Fatalf("verifying %s: %v\n%s", late, err, said)
			}
			refused(t, ours, "unsigned-"+form, form)
		})
	}
	p.staging.Stop()
	for form := range forms {
		t.Run(form+" without staging", func(t *testing.T) { verified(t, form) })
	}
}

// at is an image by its digest.
func at(place, name string, image testenv.Artifact) string {
	return place + "/" + name + "@" + image.Root.Digest.String()
}

// ask returns the status and body of a GET.
func ask(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

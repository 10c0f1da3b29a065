package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Whole is an image with what is attached to it, as far down as that goes.
type Whole struct {
	Image

	Attached []Attachment
}

// InspectWhole is [Client.Inspect] with everything that [Client.Copy] would copy.
func (c *Client) InspectWhole(ctx context.Context, repository Repository, d digest.Digest) (Whole, error) {
	in := &inspection{repo: c.reader(repository), seen: make(map[digest.Digest]bool)}
	root, err := in.manifest(ctx, d)
	if err != nil {
		return Whole{}, fmt.Errorf("reading %s@%s: %w", repository, d, err)
	}
	in.image.Root = root
	var attached []Attachment
	for done := 0; done < len(in.image.Manifests); { // attaching makes it longer
		if done > maxAttached {
			return Whole{}, failf(ErrUnsupported, "more than %d manifests are attached to %s@%s", maxAttached, repository, d)
		}
		more, err := c.about(ctx, in, in.image.Manifests[done].Digest)
		if err != nil {
			return Whole{}, fmt.Errorf("reading what is about %s@%s: %w", repository, in.image.Manifests[done].Digest, err)
		}
		attached = append(attached, more...)
		done++
	}
	return Whole{in.image, attached}, nil
}

// about reads the referrers and the cosign tags of one manifest.
func (c *Client) about(ctx context.Context, in *inspection, subject digest.Digest) (attached []Attachment, err error) {
	add := func(ref, tag string) error {
		m, err := in.repo.manifest(ctx, ref)
		if errors.Is(err, ErrNotFound) {
			return nil // listed, and not there
		}
		if err != nil || tag == "" && (m.subject == nil || m.subject.Digest != subject) {
			return err // or the list says so, but the manifest does not
		}
		attached = append(attached, Attachment{Subject: subject, Tag: tag, Descriptor: m.Descriptor})
		if !in.isNew(m.Digest) {
			return nil
		}
		_, err = in.manifest(ctx, m.Digest)
		return err
	}
	referrers, _, err := c.listReferrers(ctx, in.repo, subject)
	if err != nil {
		return nil, err
	}
	for _, r := range referrers {
		if err := add(r.Digest.String(), ""); err != nil {
			return nil, err
		}
	}
	for _, suffix := range cosignSuffixes() {
		tag := fallbackTag(subject) + suffix
		may, err := c.mayHaveTag(ctx, in.repo, tag)
		if err == nil && may {
			err = add(tag, tag)
		}
		if err != nil {
			return nil, err
		}
	}
	return attached, nil
}

// ReadManifest reads a manifest, which is verified. Errors: ErrNotFound, ErrCorrupt.
func (c *Client) ReadManifest(ctx context.Context, repository Repository, d digest.Digest) ([]byte, error) {
	m, err := c.reader(repository).manifest(ctx, d.String())
	if err != nil {
		return nil, fmt.Errorf("reading %s@%s: %w", repository, d, err)
	}
	return m.content, nil
}

// ReadBlob writes a blob to w, gone on with where it breaks. The last bytes are written
// only when its digest is right. Errors: ErrNotFound, ErrCorrupt, those of w.
func (c *Client) ReadBlob(ctx context.Context, repository Repository, desc ocispec.Descriptor, w io.Writer) error {
	r := c.reader(repository)
	release, err := takeSlots(ctx, r.host.reading)
	if err != nil {
		return err
	}
	defer release()
	source := newBlobSource(ctx, r, desc)
	defer source.close()
	_, err = io.Copy(w, source.from(0))
	return err
}

// ReadFile writes a file to w, gone on with where it breaks, and fails at its end when it
// has not the digest and size that it is to have.
// Errors: ErrNotFound, ErrCorrupt, those of w.
func (c *Client) ReadFile(ctx context.Context, store FileStore, file FileInfo, w io.Writer) error {
	source := &fileSource{client: c, ctx: ctx, store: store, info: file, progress: c.cfg.Progress}
	defer source.close()
	_, err := io.Copy(w, newVerifiedFile(file, source))
	if err != nil {
		return fmt.Errorf("reading %s from %s: %w", file.Name, store, err)
	}
	return nil
}

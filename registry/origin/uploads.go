package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"entrepot/blobstore"
	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// uploadPatience is how long a request waits for another one that writes the
// same upload: usually the one before it, whose connection broke.
const uploadPatience = 20 * time.Second

// StartUpload implements [registry.Uploads].
func (o *Origin) StartUpload(_ context.Context, req *registry.Request) (string, error) {
	u, err := o.uploads.start(clone(req.Repository))
	if err != nil {
		return "", fmt.Errorf("starting an upload to %s: %w", req.Repository, err)
	}
	return u.id, nil
}

// UploadSize implements [registry.Uploads]. It waits for nobody.
func (o *Origin) UploadSize(_ context.Context, req *registry.Request) (int64, error) {
	u := o.uploads.find(req.Repository, req.Upload)
	if u == nil {
		return 0, uploadUnknown(req)
	}
	return u.size.Load(), nil
}

// AppendUpload implements [registry.Uploads].
func (o *Origin) AppendUpload(ctx context.Context, req *registry.Request, chunk registry.Chunk) (int64, error) {
	u, err := o.turn(ctx, req)
	if err != nil {
		return 0, err
	}
	defer u.done(o.now())
	size := u.size.Load()
	if chunk.Offset >= 0 && chunk.Offset != size {
		return size, registry.ErrUploadOffset
	}
	if err := o.uploads.append(u, chunk); err != nil {
		return u.size.Load(), fmt.Errorf("writing upload %s to %s at %d: %w", u.id, u.repository, u.size.Load(), err)
	}
	return u.size.Load(), nil
}

// FinishUpload implements [registry.Uploads].
func (o *Origin) FinishUpload(ctx context.Context, req *registry.Request, d digest.Digest) error {
	u, err := o.turn(ctx, req)
	if err != nil {
		return err
	}
	defer u.done(o.now())
	release := o.holds.hold(d)
	defer release()
	switch err := o.storeUpload(ctx, u, d); {
	case errors.Is(err, blobstore.ErrDigestMismatch):
		// These bytes will never be right: the client has to begin anew.
		err = registry.Errorf(errcode.ErrorCodeDigestInvalid, "the upload's %d bytes do not have digest %s", u.size.Load(), d)
		return errors.Join(err, o.uploads.remove(u))
	case err != nil:
		return fmt.Errorf("storing upload %s to %s: %w", u.id, u.repository, err)
	}
	err = o.names.setBlob(ctx, u.repository, d, o.now())
	// The store may have taken the file over: there is nothing to go on with.
	if err := o.uploads.remove(u); err != nil {
		o.log.WarnContext(ctx, "removing a finished upload", "repository", u.repository, "error", err)
	}
	if err != nil {
		return fmt.Errorf("finishing upload %s to %s: %w", u.id, u.repository, err)
	}
	o.listener.Pushed(event(req, ocispec.Descriptor{MediaType: blobMediaType, Digest: clone(d), Size: u.size.Load()}, ""))
	return nil
}

// storeUpload stores the bytes of an upload, if they have the digest.
// Errors: blobstore.ErrDigestMismatch.
func (o *Origin) storeUpload(ctx context.Context, u *upload, d digest.Digest) error {
	path := o.uploads.dataFile(u.id)
	if o.adopter != nil {
		return o.adopter.Adopt(ctx, d, path)
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close() // read from only
	// A store that has the blob would take any bytes for it.
	verifier := d.Verifier()
	if _, err := io.Copy(verifier, file); err != nil {
		return err
	}
	if !verifier.Verified() {
		return blobstore.ErrDigestMismatch
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return o.store.Put(ctx, d, u.size.Load(), file)
}

// CancelUpload implements [registry.Uploads].
func (o *Origin) CancelUpload(ctx context.Context, req *registry.Request) error {
	u, err := o.turn(ctx, req)
	if err != nil {
		return err
	}
	defer u.done(o.now())
	return o.uploads.remove(u)
}

// turn finds an upload, and waits until no other request writes it. After done,
// the next may. Errors: BLOB_UPLOAD_UNKNOWN, BLOB_UPLOAD_INVALID.
func (o *Origin) turn(ctx context.Context, req *registry.Request) (*upload, error) {
	u := o.uploads.find(req.Repository, req.Upload)
	if u == nil {
		return nil, uploadUnknown(req)
	}
	patience := time.NewTimer(uploadPatience)
	defer patience.Stop()
	select {
	case u.writing <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for upload %s: %w", u.id, context.Cause(ctx))
	case <-patience.C:
		e := registry.Errorf(errcode.ErrorCodeBlobUploadInvalid, "another request is still writing upload %s", u.id)
		e.Status, e.RetryAfter = http.StatusConflict, uploadPatience
		return nil, e
	}
	if o.uploads.find(req.Repository, req.Upload) != u {
		<-u.writing // it ended while we waited
		return nil, uploadUnknown(req)
	}
	return u, nil
}

func uploadUnknown(req *registry.Request) error {
	return registry.Errorf(errcode.ErrorCodeBlobUploadUnknown, "%s has no upload %s: it is finished, cancelled or too old", req.Repository, req.Upload)
}

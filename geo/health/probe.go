package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"

	"entrepot/geo/choice"

	"github.com/opencontainers/go-digest"
)

// sampleSize is how many bytes of a blob a probe compares.
const sampleSize = 64 << 10

// acceptAll names the media types of manifests: some registries take */* for none
// of them.
const acceptAll = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*"

// Sample is content that mirrors should have.
type Sample struct {
	Target choice.Target
	What   choice.What // Blob or File
	Size   int64       // bytes
	// Read returns our own bytes of a range.
	Read func(ctx context.Context, offset, length int64) ([]byte, error)
}

// Name is a name that the mirrors which serve names should know.
type Name struct {
	Target choice.Target
	Digest digest.Digest // what it is now
}

// Samples are what mirrors are asked for. Nil ones leave that part of a probe out.
type Samples struct {
	Content func(m *choice.Mirror) (Sample, bool)
	Name    func(m *choice.Mirror) (Name, bool)
}

// wrongError says that a mirror sent what it should not.
type wrongError struct{ error }

// fatalError says that a mirror is down by this alone.
type fatalError struct{ error }

// absentError says that a mirror lacks content.
type absentError struct{ error }

// probe asks a mirror for what it should have, as clients of each scheme would.
// Errors: wrongError, fatalError.
func (p *Prober) probe(ctx context.Context, m *choice.Mirror) error {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	for _, secure := range []bool{false, true} {
		if secure && (m.URL(true) == nil || m.URL(true) == m.URL(false)) {
			break
		}
		if err := p.probeBy(ctx, m, secure); err != nil {
			return err
		}
	}
	return nil
}

// probeBy probes one URL of a mirror: that of clients which came by https, or not.
func (p *Prober) probeBy(ctx context.Context, m *choice.Mirror, secure bool) error {
	asked := false
	if of := p.cfg.Samples.Content; of != nil {
		if s, ok := of(m); ok {
			err := p.compare(ctx, m, secure, &s)
			if _, absent := errors.AsType[absentError](err); err != nil && (!absent || !m.Incomplete) {
				return err
			}
			asked = true
		}
	}
	if of := p.cfg.Samples.Name; of != nil && m.Kind != choice.Bucket && (m.Tier == choice.Origin || m.Names) {
		if n, ok := of(m); ok {
			if err := p.resolve(ctx, m, secure, &n); err != nil {
				return err
			}
			asked = true
		}
	}
	if asked {
		return nil
	}
	return p.reach(ctx, m, secure)
}

// reach asks whether the mirror answers at all.
func (p *Prober) reach(ctx context.Context, m *choice.Mirror, secure bool) error {
	base := *m.URL(secure)
	base.Path, base.RawPath = "/", ""
	if m.Kind == choice.Node || m.Kind == choice.Registry {
		base.Path = "/v2/"
	}
	resp, err := p.send(ctx, m, http.MethodHead, base.String(), "")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%s answers %s", base.Redacted(), resp.Status)
	}
	return nil
}

// compare fetches a random range and compares it with our own. A node may send bytes
// of a blob that is still on its way to it before they can be verified, and never a
// whole one: it is not called dishonest for a range that is right once the whole was.
func (p *Prober) compare(ctx context.Context, m *choice.Mirror, secure bool, s *Sample) error {
	location := m.Location(secure, &s.Target)
	if location == "" {
		return p.reach(ctx, m, secure)
	}
	length := min(sampleSize, s.Size)
	offset := rand.Int64N(s.Size - length + 1) //nolint:gosec // nobody gains by guessing it: it has to be right everywhere
	want, err := s.Read(ctx, offset, length)
	if err != nil {
		return p.reach(ctx, m, secure) // it is ours that is not there
	}
	err = p.compareRange(ctx, m, location, s, offset, want)
	if _, wrong := errors.AsType[wrongError](err); !wrong || length == s.Size {
		return err
	}
	whole, readErr := s.Read(ctx, 0, s.Size)
	if readErr != nil {
		return errors.New(err.Error()) // whether it is dishonest cannot be told
	}
	if err := p.compareRange(ctx, m, location, s, 0, whole); err != nil {
		return err
	}
	if err := p.compareRange(ctx, m, location, s, offset, want); err != nil {
		return err
	}
	return fmt.Errorf("%s, and are when they are asked for again", err.Error())
}

// compareRange fetches what should be our own bytes from an offset on. Errors:
// wrongError, absentError.
func (p *Prober) compareRange(ctx context.Context, m *choice.Mirror, location string, s *Sample, offset int64, want []byte) error {
	length, ranges := int64(len(want)), ""
	if length < s.Size {
		ranges = fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
	}
	resp, err := p.send(ctx, m, http.MethodGet, location, ranges)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
	case http.StatusOK: // it has no ranges
		if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
			return fmt.Errorf("reading %s: %w", location, err)
		}
	case http.StatusNotFound:
		return absentError{fmt.Errorf("%s answers %s", location, resp.Status)}
	default:
		return fmt.Errorf("%s answers %s", location, resp.Status)
	}
	got, err := io.ReadAll(io.LimitReader(resp.Body, length))
	if err != nil || int64(len(got)) < length {
		return fmt.Errorf("reading %s: %d of %d bytes came: %w", location, len(got), length, errors.Join(err, io.ErrUnexpectedEOF))
	}
	if !bytes.Equal(got, want) {
		return wrongError{fmt.Errorf("bytes %d to %d of %s are not those of %s", offset, offset+length-1, location, s.Target.Digest)}
	}
	return nil
}

// resolve asks what a name is.
func (p *Prober) resolve(ctx context.Context, m *choice.Mirror, secure bool, n *Name) error {
	location := m.Location(secure, &n.Target)
	if location == "" {
		return nil
	}
	resp, err := p.send(ctx, m, http.MethodHead, location, "")
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", location, resp.Status)
	}
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != string(n.Digest) {
		return fmt.Errorf("%s is %s there, and should be %s", location, got, n.Digest)
	}
	return nil
}

// send sends a request, and follows redirects to the mirror's own hosts and those
// that are allowed. Errors: fatalError for TLS and redirects elsewhere.
func (p *Prober) send(ctx context.Context, m *choice.Mirror, method, location, ranges string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, location, http.NoBody)
	if err != nil {
		return nil, err
	}
	if ranges != "" {
		req.Header.Set("Range", ranges)
	}
	req.Header.Set("Accept", acceptAll)
	resp, err := following(p.cfg.Client, m, p.cfg.RedirectHosts).Do(req)
	if err == nil {
		return resp, nil
	}
	if isTLS(err) {
		return nil, fatalError{err}
	}
	return nil, err
}

// following is a client that goes where a mirror leads only if it may: to its own
// hosts, and to those of a list. Errors: fatalError.
func following(client *http.Client, m *choice.Mirror, hosts []string) *http.Client {
	c := *client
	c.CheckRedirect = func(next *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return fatalError{errors.New("it redirects without end")}
		}
		if !mayLead(m, hosts, next.URL) {
			return fatalError{fmt.Errorf("it redirects to %s, which is not on the list", next.URL.Host)}
		}
		return nil
	}
	return &c
}

// mayLead says whether a mirror may redirect to a URL.
func mayLead(m *choice.Mirror, hosts []string, to *url.URL) bool {
	for _, u := range m.URLs {
		if to.Host == u.Host && (to.Scheme == u.Scheme || to.Scheme == "https") {
			return true
		}
	}
	for _, host := range hosts {
		if rest, wild := strings.CutPrefix(host, "*."); to.Scheme == "https" && (to.Host == host || wild && strings.HasSuffix(to.Host, "."+rest)) {
			return true
		}
	}
	return false
}

// isTLS reports that a connection failed for its certificate or protocol.
func isTLS(err error) bool {
	_, verification := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	return verification || record || alert || authority || host
}

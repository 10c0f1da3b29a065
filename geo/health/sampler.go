package health

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"entrepot/geo/choice"
	"entrepot/promote/ledger"
	"entrepot/registry/reach"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"
)

const (
	// MaxSample bounds content that mirrors are compared by: it is kept in memory.
	MaxSample = 8 << 20
	// keepSamples is how many of them are kept of what was promoted, and keepNames
	// how many names.
	keepSamples, keepNames = 4, 32
	// newSamples is after how long others are taken.
	newSamples = 10 * time.Minute
	// nameSettles is how long a new name may take to reach all who follow the
	// ledger: before, it is no reason to call one down.
	nameSettles = time.Minute
)

// SamplerConfig configures a [Sampler].
type SamplerConfig struct {
	// Origin is who has what is right; nil when nobody is known.
	Origin func() *choice.Mirror
	// Blobs are of at most MaxSample bytes, and every mirror of the namespace has
	// them.
	Blobs []choice.Target
	// Promoted has more to choose from.
	Promoted []Promoted
	// Retry is after how long what could not be fetched is tried again; 0 means
	// DefaultInterval.
	Retry  time.Duration
	Client *http.Client // nil means one of reach.NewClient
	Logger *slog.Logger // nil discards
}

// Promoted is what promotion wrote of an upstream.
type Promoted struct {
	Namespace string
	// Names are what the ledger calls the upstream: "registry.k8s.io".
	Names []string
	State func() *ledger.State
	// Immutable says of a file that its name never means another; nil says it of none.
	// Files that change are no samples: a mirror that lags behind is not dishonest.
	Immutable func(file string) bool
	// Private says of a repository or file that only who is trusted serves it; nil
	// says it of none.
	Private func(name string) bool
}

// Sampler has content and names by which mirrors are compared with an origin: the
// blobs that are configured, and a choice of what was promoted that changes every
// ten minutes, so that a mirror cannot prepare for it. Content is verified by its
// digest when it is fetched. It is safe for concurrent use.
type Sampler struct {
	cfg SamplerConfig

	mu         sync.Mutex
	configured map[digest.Digest]*contentSample
	promoted   []*contentSample
	names      []nameSample
	hungry     bool // the last choice brought no content
}

// contentSample is content, with the name by which it was promoted; nil of what is
// configured.
type contentSample struct {
	Sample

	promoted *nameSample
}

// nameSample is a name of an upstream that promotion writes.
type nameSample struct {
	of     *Promoted
	full   string        // as the ledger has it
	digest digest.Digest // that it had
	choice.Target
}

// holds says whether the name means what it did, and may be served.
func (n *nameSample) holds() bool {
	state := n.of.State()
	e, ok := state.LookupFull(n.full)
	_, revoked := state.Revoked(n.digest)
	return ok && e.Exists() && e.Digest == n.digest && !revoked
}

// NewSampler makes a sampler that has nothing before [Sampler.Run].
func NewSampler(cfg SamplerConfig) *Sampler {
	if cfg.Retry == 0 {
		cfg.Retry = DefaultInterval
	}
	if cfg.Client == nil {
		cfg.Client = reach.NewClient()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Sampler{cfg: cfg, configured: map[digest.Digest]*contentSample{}}
}

// Samples are what probes ask for.
func (s *Sampler) Samples() Samples { return Samples{Content: s.content, Name: s.name} }

// Run fetches samples until ctx ends.
func (s *Sampler) Run(ctx context.Context) {
	for {
		wait := newSamples
		err := s.renew(ctx)
		if s.lacking() { // nothing was promoted yet
			wait = s.cfg.Retry
		}
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			s.cfg.Logger.Warn("what mirrors are to be compared by cannot be fetched; until then they need only answer", "error", err)
			wait = s.cfg.Retry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// lacking says whether nothing could be had of what was promoted.
func (s *Sampler) lacking() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.cfg.Promoted) > 0 && (s.hungry || len(s.promoted) == 0)
}

// renew fetches what is configured and not there yet, and a new choice of what was
// promoted.
func (s *Sampler) renew(ctx context.Context) error {
	origin := s.cfg.Origin()
	if origin == nil {
		return nil
	}
	var failed []error
	for i := range s.cfg.Blobs {
		t := s.cfg.Blobs[i]
		s.mu.Lock()
		_, there := s.configured[t.Digest]
		s.mu.Unlock()
		if there {
			continue
		}
		data, err := s.fetch(ctx, origin, &t, t.Digest)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		s.mu.Lock()
		s.configured[t.Digest] = &contentSample{Sample: newSample(t, choice.Blob, data)}
		s.mu.Unlock()
	}
	promoted, names := s.choose(ctx, origin)
	s.mu.Lock()
	// What was chosen before is compared on while the origin cannot be reached: else
	// a mirror could be dishonest for as long.
	if s.hungry = len(promoted) == 0; !s.hungry {
		s.promoted = promoted
	}
	s.names = names
	s.mu.Unlock()
	return errors.Join(failed...)
}

func newSample(t choice.Target, what choice.What, data []byte) Sample {
	return Sample{Target: t, What: what, Size: int64(len(data)), Read: func(_ context.Context, offset, length int64) ([]byte, error) {
		return data[offset : offset+length], nil
	}}
}

// choose takes samples of what was promoted. What cannot be fetched is left out:
// the origin has its own probes.
func (s *Sampler) choose(ctx context.Context, origin *choice.Mirror) (contents []*contentSample, names []nameSample) {
	for i := range s.cfg.Promoted {
		of := &s.cfg.Promoted[i]
		for _, e := range pick(of.State(), keepSamples) {
			if sample, err := s.sample(ctx, origin, of, &e); err == nil {
				contents = append(contents, sample)
			} else {
				s.cfg.Logger.DebugContext(ctx, "no sample was taken", "name", e.Name, "error", err)
			}
		}
		for _, e := range pick(of.State(), keepNames) {
			if n, ok := of.nameOf(&e); ok && n.Repository != "" {
				names = append(names, n)
			}
		}
	}
	return contents, names
}

// pick takes entries of names that are there at random, each with the same chance.
func pick(state *ledger.State, most int) []ledger.Entry {
	var picked []ledger.Entry
	n := 0
	for e := range state.Names() {
		switch at := rand.IntN(n + 1); { //nolint:gosec // nobody gains by guessing it: it has to be right everywhere
		case len(picked) < most:
			picked = append(picked, e)
		case at < most:
			picked[at] = e
		}
		n++
	}
	return picked
}

// nameOf is a name as clients ask for it, if it is of the upstream, and a tag or a
// file.
func (p *Promoted) nameOf(e *ledger.Entry) (nameSample, bool) {
	for _, destination := range e.Destinations {
		for _, name := range p.Names {
			full := destination + "/" + e.Name
			below, ok := strings.CutPrefix(full, name+"/")
			if !ok {
				continue
			}
			n := nameSample{of: p, full: full, digest: e.Digest, Target: choice.Target{Namespace: p.Namespace}}
			if e.Kind == ledger.File {
				n.File = (&url.URL{Path: below}).EscapedPath()
				return n, p.Immutable != nil && p.Immutable(below)
			}
			at := strings.LastIndexByte(below, ':')
			if e.Kind != ledger.Image || at < 0 || strings.Contains(below, "@") {
				continue
			}
			n.Repository, n.Route = below[:at], "manifests/"+below[at+1:]
			return n, true
		}
	}
	return nameSample{}, false
}

// sample fetches a file, or a layer of an image.
func (s *Sampler) sample(ctx context.Context, origin *choice.Mirror, of *Promoted, e *ledger.Entry) (*contentSample, error) {
	n, ok := of.nameOf(e)
	if !ok {
		return nil, errors.New("it is no name of the upstream, or may change")
	}
	if e.Kind == ledger.File {
		data, err := s.fetch(ctx, origin, &n.Target, e.Digest)
		if err != nil {
			return nil, err
		}
		return &contentSample{Sample: newSample(n.Target, choice.File, data), promoted: &n}, nil
	}
	layer, err := s.layer(ctx, origin, n.Target, e.Digest)
	if err != nil {
		return nil, err
	}
	t := choice.Target{Namespace: n.Namespace, Repository: n.Repository, Route: "blobs/" + string(layer), Digest: layer}
	data, err := s.fetch(ctx, origin, &t, layer)
	if err != nil {
		return nil, err
	}
	return &contentSample{Sample: newSample(t, choice.Blob, data), promoted: &n}, nil
}

// layer is the largest layer of an image that is not too large.
func (s *Sampler) layer(ctx context.Context, origin *choice.Mirror, t choice.Target, d digest.Digest) (digest.Digest, error) {
	for range 2 { // an index, and one of its manifests
		t.Route = "manifests/" + string(d)
		data, err := s.fetch(ctx, origin, &t, d)
		if err != nil {
			return "", err
		}
		var m struct {
			Manifests []ocispec.Descriptor `json:"manifests"`
			Layers    []ocispec.Descriptor `json:"layers"`
		}
		if err := json.Unmarshal(data, &m); err != nil {
			return "", fmt.Errorf("reading %s: %w", d, err)
		}
		fits := slices.DeleteFunc(m.Layers, func(l ocispec.Descriptor) bool {
			return l.Size <= 0 || l.Size > MaxSample || l.Digest.Validate() != nil
		})
		if len(fits) > 0 {
			return slices.MaxFunc(fits, func(a, b ocispec.Descriptor) int { return int(a.Size - b.Size) }).Digest, nil
		}
		if len(m.Manifests) == 0 || m.Manifests[0].Digest.Validate() != nil {
			break
		}
		d = m.Manifests[rand.IntN(len(m.Manifests))].Digest //nolint:gosec // see pick
		if d.Validate() != nil {
			break
		}
	}
	return "", fmt.Errorf("%s has no layer of at most %d MiB", d, MaxSample>>20)
}

// fetch reads content of the origin and verifies it.
func (s *Sampler) fetch(ctx context.Context, origin *choice.Mirror, t *choice.Target, d digest.Digest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*DefaultTimeout)
	defer cancel()
	location := origin.Location(false, t)
	if location == "" {
		return nil, fmt.Errorf("%s has no URL for it", origin.Name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", acceptAll)
	resp, err := s.cfg.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxSample+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", location, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", location, resp.Status)
	case len(data) > MaxSample:
		return nil, fmt.Errorf("%s is larger than %d MiB", location, MaxSample>>20)
	case len(data) == 0 || d.Algorithm().FromBytes(data) != d:
		return nil, fmt.Errorf("%s is not %s there", location, d)
	}
	return data, nil
}

// content is a sample for a mirror.
func (s *Sampler) content(m *choice.Mirror) (Sample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fits []*contentSample
	for _, c := range s.configured {
		if c.suits(m) {
			fits = append(fits, c)
		}
	}
	for _, c := range s.promoted {
		if c.suits(m) {
			fits = append(fits, c)
		}
	}
	if len(fits) == 0 {
		return Sample{}, false
	}
	return fits[rand.IntN(len(fits))].Sample, true //nolint:gosec // see pick
}

// suits says whether a mirror should have the content.
func (c *contentSample) suits(m *choice.Mirror) bool {
	switch {
	case !m.Has(c.Target.Namespace), m.Location(false, &c.Target) == "":
		return false
	case c.promoted == nil:
		return true
	case m.MaxSize > 0 && c.Size > m.MaxSize, !c.promoted.holds():
		return false
	case m.Tier != choice.Community:
		return true
	}
	private := c.promoted.of.Private
	return (c.What != choice.Blob || c.Size >= choice.SmallBlob) && (private == nil || !private(cmp.Or(c.Target.Repository, c.Target.File)))
}

// name is a name for a mirror, with what it is now.
func (s *Sampler) name(m *choice.Mirror) (Name, bool) {
	s.mu.Lock()
	names := s.names
	s.mu.Unlock()
	for range 4 { // what is chosen may not be for this mirror, or just have changed
		if len(names) == 0 {
			break
		}
		n := names[rand.IntN(len(names))] //nolint:gosec // see pick
		e, ok := n.of.State().LookupFull(n.full)
		if ok && e.Exists() && time.Since(e.Time) > nameSettles && m.Has(n.Namespace) {
			return Name{Target: n.Target, Digest: e.Digest}, true
		}
	}
	return Name{}, false
}

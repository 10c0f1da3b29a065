package proxy

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"entrepot/proxy/upstream"
	"entrepot/registry/access"

	lru "github.com/hashicorp/golang-lru/v2"
)

// FileUpstreamConfig is one upstream of files.
type FileUpstreamConfig struct {
	// Config is how it is reached; Files and Observe are set by the node.
	upstream.Config
	// Policy is for all names. Its TTL is for files of which upstream does not
	// say how long they are fresh; MinTTL and MaxTTL bound what it says, 0 is no
	// bound. With a MinTTL, files are kept though upstream says no-store.
	Policy         Policy
	MinTTL, MaxTTL time.Duration
	// Immutable are patterns of paths that are never checked again; see
	// [access.Pattern].
	Immutable []string
	// Moving are patterns of the paths, besides those, that point to what is
	// newest: they are fresh for MovingTTL at most, and then checked before they
	// are answered.
	Moving    []string
	MovingTTL time.Duration
	// Verify says what is believed about a file's digest: "headers" are
	// Repr-Digest, Digest and Content-MD5; ".sha256", ".sha512" and "SHA256SUMS"
	// are files beside it, the first of which that is there counts.
	Verify []string
	// Ledger, when its Ledger is set, says what files the upstream has. Its
	// Names begin the full names of files: "https://dl.example.org".
	Ledger LedgerConfig
	// Private is as in [UpstreamConfig].
	Private bool
}

// forever is how long what is immutable is fresh.
const forever = maxSeconds * time.Second

// fileRules is what is configured about the names of a file upstream.
type fileRules struct {
	minTTL, maxTTL    time.Duration
	movingTTL         time.Duration
	immutable, moving []access.Pattern
	headers           bool
	sidecars          []string

	policies *lru.Cache[string, *Policy] // of names: matching patterns costs more than a hit
	// The policies of the kinds of names.
	pinned, pointers, others Policy
}

func newFileRules(cfg *FileUpstreamConfig) (*fileRules, error) {
	r := &fileRules{
		minTTL: cfg.MinTTL, maxTTL: cfg.MaxTTL, movingTTL: cfg.MovingTTL,
		policies: newLRU[string, *Policy](maxFiles),
		pinned:   cfg.Policy, pointers: cfg.Policy, others: cfg.Policy,
	}
	r.pinned.TTL = forever
	r.pointers.TTL, r.pointers.StaleWhileRevalidate = cfg.MovingTTL, 0
	for into, texts := range map[*[]access.Pattern][]string{&r.immutable: cfg.Immutable, &r.moving: cfg.Moving} {
		for _, text := range texts {
			p, err := access.ParsePattern(text)
			if err != nil {
				return nil, err
			}
			*into = append(*into, p)
		}
	}
	for _, evidence := range cfg.Verify {
		switch {
		case evidence == "headers":
			r.headers = true
		case slices.Contains([]string{".sha256", ".sha512", sumsFile}, evidence):
			r.sidecars = append(r.sidecars, evidence)
		default:
			return nil, fmt.Errorf(`cannot verify by %q: there are "headers", ".sha256", ".sha512" and %q`, evidence, sumsFile)
		}
	}
	return r, nil
}

// policy is that of a name, given by its decoded path.
func (r *fileRules) policy(name string) *Policy {
	if p, ok := r.policies.Get(name); ok {
		return p
	}
	matches := func(p access.Pattern) bool { return p.Match(name) }
	policy := &r.others
	switch {
	case slices.ContainsFunc(r.immutable, matches):
		policy = &r.pinned
	case slices.ContainsFunc(r.moving, matches):
		policy = &r.pointers
	}
	r.policies.Add(strings.Clone(name), policy)
	return policy
}

// rule is the policy for a version, given that of its name: what upstream says,
// within bounds.
func (r *fileRules) rule(v *fileVersion, policy *Policy) Policy {
	rule := *policy
	switch {
	case policy == &r.pinned:
		return rule
	case !v.said:
		rule.TTL = max(0, rule.TTL-v.kept)
		return rule
	}
	rule.TTL = max(v.fresh, r.minTTL)
	if r.maxTTL > 0 {
		rule.TTL = min(rule.TTL, max(0, r.maxTTL-v.kept))
	}
	if policy == &r.pointers {
		rule.TTL = min(rule.TTL, max(0, r.movingTTL-v.kept))
	}
	if rule.TTL == 0 { // no-cache: not without asking
		rule.StaleWhileRevalidate = 0
	}
	return rule
}

// sidecarsOf are the paths, percent-encoded, of the files that may tell a file's
// digest. What tells others' digests is not checked itself.
func (r *fileRules) sidecarsOf(escaped string) []string {
	folder, name := path.Split(escaped)
	for _, suffix := range []string{".sha256", ".sha512", ".md5", ".sha1", ".asc", ".sig"} {
		if strings.HasSuffix(name, suffix) {
			return nil
		}
	}
	if name == "" || strings.HasPrefix(name, sumsFile) {
		return nil
	}
	var paths []string
	for _, s := range r.sidecars {
		if s == sumsFile {
			paths = append(paths, folder+sumsFile)
		} else {
			paths = append(paths, escaped+s)
		}
	}
	return paths
}

// sumsFile lists the digests of a folder's files, as sha256sum writes them.
const sumsFile = "SHA256SUMS"

package promote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Difference is how production differs from ledger or configuration.
type Difference string

// The differences that an audit finds.
const (
	// Added is a name that promotion did not write.
	Added Difference = "added"
	// Moved is a name that has other content than promotion gave it.
	Moved Difference = "moved"
	// Missing is a name that promotion wrote and that is not there.
	Missing Difference = "missing"
	// Corrupt is content whose hash is not its digest, or that lacks a part.
	Corrupt Difference = "corrupt"
	// Unapplied is what the configuration asks for and the ledger has not.
	Unapplied Difference = "unapplied"
	// Unknown is what could not be looked at.
	Unknown Difference = "unknown"
)

// Finding is one difference.
type Finding struct {
	Difference  Difference    `json:"difference"`
	Kind        ledger.Kind   `json:"kind"`
	Destination string        `json:"destination,omitempty"`
	Name        string        `json:"name"`
	Want        digest.Digest `json:"want,omitempty"` // the ledger's, or of Unapplied the configuration's
	Have        digest.Digest `json:"have,omitempty"`
	Detail      string        `json:"detail,omitempty"`
}

// Auditor compares production with what the ledger says of it. Its fields are
// set before its first use.
type Auditor struct {
	Client *transfer.Client
	// Deep has all content read and hashed, and not only the names looked at.
	Deep bool
	// Concurrency is how many repositories are looked at in parallel; 0 means 16.
	Concurrency int
}

// Audit looks at every name of the ledger at each of its destinations, at what
// else is there, and at what the tree asks for; tree may be nil. The findings
// are sorted. Errors: those of ctx.
func (a *Auditor) Audit(ctx context.Context, state *ledger.State, tree *config.Tree) ([]Finding, error) {
	f := &findings{}
	if tree != nil {
		f.unapplied(state, tree)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(orDefault(a.Concurrency))
	for h, names := range holders(state) {
		group.Go(func() error {
			if h.kind == ledger.File {
				a.fileStore(ctx, h, names, f)
			} else {
				a.repository(ctx, h, names, f)
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("auditing: %w", err)
	}
	slices.SortFunc(f.list, func(x, y Finding) int {
		return cmp.Or(cmp.Compare(x.Destination, y.Destination), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Difference, y.Difference))
	})
	return f.list, nil
}

// holder is what is looked at in one go: a repository, or a file store.
type holder struct {
	kind        ledger.Kind
	destination string
	image       string // "" for a file store
}

// holders are those of all names that the ledger ever had, since a name that
// was deleted may be back, with the names that exist.
func holders(state *ledger.State) map[holder]map[string]digest.Digest {
	held := map[holder]map[string]digest.Digest{}
	each := func(e ledger.Entry, do func(names map[string]digest.Digest)) {
		h := holder{kind: e.Kind}
		if e.Kind == ledger.Image {
			h.image, _, _ = splitName(e.Name)
		}
		for _, h.destination = range e.Destinations {
			if held[h] == nil {
				held[h] = map[string]digest.Digest{}
			}
			do(held[h])
		}
	}
	for e := range state.Entries(0) {
		each(e, func(map[string]digest.Digest) {})
	}
	for n := range state.Names() {
		each(n, func(names map[string]digest.Digest) { names[n.Name] = n.Digest })
	}
	return held
}

// findings are gathered by many goroutines.
type findings struct {
	mu   sync.Mutex
	list []Finding
}

func (f *findings) add(d Difference, h holder, name string, want, have digest.Digest, err error) {
	found := Finding{Difference: d, Kind: h.kind, Destination: h.destination, Name: name, Want: want, Have: have}
	if err != nil {
		found.Detail = err.Error()
	}
	f.mu.Lock()
	f.list = append(f.list, found)
	f.mu.Unlock()
}

func (f *findings) unapplied(state *ledger.State, tree *config.Tree) {
	diff := newDiffer(state)
	for _, p := range tree.Projects {
		for _, i := range diff.project(p) {
			for _, destination := range i.Destinations {
				h := holder{kind: i.Kind, destination: destination}
				f.add(Unapplied, h, i.Name, i.Digest, i.Previous, fmt.Errorf("the configuration asks to %s it: run promote apply", i.Action))
			}
		}
	}
}

// repository compares one repository of a registry.
func (a *Auditor) repository(ctx context.Context, h holder, names map[string]digest.Digest, f *findings) {
	repository, err := transfer.ParseRepository(h.destination + "/" + h.image)
	if err != nil {
		f.add(Unknown, h, h.image, "", "", err)
		return
	}
	there, err := a.Client.Tags(ctx, repository)
	if err != nil && !errors.Is(err, transfer.ErrNotFound) {
		f.add(Unknown, h, h.image, "", "", err)
	}
	for _, tag := range there {
		name := h.image + ":" + tag
		if _, ours := names[name]; !ours && !companion(tag) {
			desc, _ := a.Client.Resolve(ctx, transfer.Ref{Repository: repository, Tag: tag}) // which content it has is only told
			f.add(Added, h, name, "", desc.Digest, nil)
		}
	}
	whole := map[digest.Digest]error{}
	for name, want := range names {
		_, tag, d := splitName(name)
		desc, err := a.Client.Resolve(ctx, transfer.Ref{Repository: repository, Tag: tag, Digest: d})
		switch {
		case errors.Is(err, transfer.ErrNotFound):
			f.add(Missing, h, name, want, "", nil)
			continue
		case err != nil:
			f.add(Unknown, h, name, want, "", err)
			continue
		case desc.Digest != want:
			f.add(Moved, h, name, want, desc.Digest, nil)
		}
		if !a.Deep {
			continue
		}
		if _, seen := whole[want]; !seen {
			whole[want] = a.Client.Verify(ctx, repository, want)
		}
		if err := whole[want]; err != nil {
			f.add(Corrupt, h, name, want, "", err)
		}
	}
}

// fileStore compares a file store.
func (a *Auditor) fileStore(ctx context.Context, h holder, names map[string]digest.Digest, f *findings) {
	store, err := a.Client.OpenFileStore(ctx, h.destination)
	if err != nil {
		f.add(Unknown, h, "", "", "", err)
		return
	}
	for info, err := range store.List(ctx, "") {
		if err != nil {
			f.add(Unknown, h, "", "", "", err)
			break
		}
		if _, ours := names[info.Name]; !ours {
			f.add(Added, h, info.Name, "", info.SHA256, nil)
		}
	}
	for name, want := range names {
		info, err := a.Client.SumFile(ctx, store, name, a.Deep)
		switch {
		case errors.Is(err, transfer.ErrCorrupt):
			f.add(Corrupt, h, name, want, info.SHA256, err)
		case errors.Is(err, transfer.ErrNotFound):
			f.add(Missing, h, name, want, "", nil)
		case err != nil:
			f.add(Unknown, h, name, want, "", err)
		case info.SHA256 != want:
			f.add(Moved, h, name, want, info.SHA256, nil)
		}
	}
}

// PrintFindings writes what an audit found for people.
func PrintFindings(w io.Writer, list []Finding) error {
	out := &printer{w: w}
	for _, f := range list {
		name := f.Name
		if f.Destination != "" {
			name = strings.TrimSuffix(f.Destination+"/"+f.Name, "/")
		}
		about := ""
		if f.Want != "" {
			about += " want " + string(f.Want)
		}
		if f.Have != "" {
			about += " have " + string(f.Have)
		}
		out.line("%s: %s%s", f.Difference, name, about)
		if f.Detail != "" {
			out.line("    %s", f.Detail)
		}
	}
	if len(list) == 0 {
		out.line("production is as the ledger says")
	} else {
		out.line("%d differences", len(list))
	}
	return out.err
}

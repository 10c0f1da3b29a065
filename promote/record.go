package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"entrepot/promote/ledger"
)

// record writes what was done to the ledger, and returns the results as they
// are then. A name that another promotion changed since the plan is the other's:
// it is put back to what the ledger says, and counts as failed.
func (a *Applier) record(ctx context.Context, since uint64, results []Result) ([]Result, error) {
	if a.Ledger == nil {
		return results, nil
	}
	var lost []overtaking
	var settled []Result
	_, err := a.Ledger.Append(ctx, func(s *ledger.State) ([]ledger.Entry, error) {
		lost, settled = nil, nil
		var entries []ledger.Entry
		for _, result := range results {
			if result.Item.Action == Revoke || result.Item.Action == Unrevoke {
				entries = append(entries, a.revocation(s, result)...)
				settled = append(settled, result)
				continue
			}
			if result.Item.Action == Attach {
				settled = append(settled, result)
				continue
			}
			var mine []string
			for _, destination := range result.Done {
				newest, known := s.Lookup(destination, result.Item.Name)
				if o := overtaken(s, since, result.Item, destination); o != nil {
					o.result = len(settled)
					lost = append(lost, *o)
				} else if !known || !result.Item.agrees(newest) {
					mine = append(mine, destination)
				} // else somebody else has recorded just that
			}
			entries = append(entries, a.entries(s, result.Item, mine)...)
			settled = append(settled, result)
		}
		return entries, nil
	})
	if err != nil {
		return nil, fmt.Errorf("writing the ledger: %w", err)
	}
	for _, o := range lost {
		result := &settled[o.result]
		result.Done = slices.DeleteFunc(slices.Clone(result.Done), func(destination string) bool { return destination == o.destination })
		result.Err = errors.Join(result.Err, &o, a.putBack(ctx, &o))
	}
	return settled, nil
}

// entries are an item's, one for each content that the name had before.
func (a *Applier) entries(s *ledger.State, i *Item, destinations []string) []ledger.Entry {
	var entries []ledger.Entry
	for _, destination := range destinations {
		e := ledger.Entry{
			Kind: i.Kind, Name: i.Name, Action: ledger.Set, Digest: i.Digest, Size: i.root.Size, MediaType: i.root.MediaType,
			Project: i.Project, Revision: a.Revision, Reason: i.Reason,
		}
		if i.Action == Adopt {
			e.Action = ledger.Adopt
		}
		if i.Action == Delete {
			e.Action, e.Digest, e.Size, e.MediaType = ledger.Delete, "", 0, ""
		}
		if before, known := s.Lookup(destination, i.Name); known && before.Exists() {
			e.Previous = before.Digest
		} else {
			e.Previous = i.Previous
		}
		at := slices.IndexFunc(entries, func(o ledger.Entry) bool { return o.Previous == e.Previous })
		if at < 0 {
			at, entries = len(entries), append(entries, e)
		}
		entries[at].Destinations = append(entries[at].Destinations, destination)
	}
	return entries
}

// revocation is the entry of a revocation, or of its end, unless the ledger has
// it.
func (a *Applier) revocation(s *ledger.State, r Result) []ledger.Entry {
	_, revoked := s.Revoked(r.Item.Digest)
	if revoked == (r.Item.Action == Revoke) {
		return nil
	}
	action := ledger.Revoke
	if r.Item.Action == Unrevoke {
		action = ledger.Unrevoke
	}
	return []ledger.Entry{{
		Kind: r.Item.Kind, Name: r.Item.Name, Action: action, Digest: r.Item.Digest,
		Project: r.Item.Project, Revision: a.Revision, Reason: r.Item.Reason,
	}}
}

// overtaking is a name that another promotion has changed since it was planned.
// As an error it says so.
type overtaking struct {
	item        *Item
	destination string
	newest      ledger.Entry
	result      int // index of the item's
}

func (o *overtaking) Error() string {
	return fmt.Sprintf("%s/%s: another promotion changed it meanwhile, in entry %d: plan again", o.destination, o.item.Name, o.newest.Sequence)
}

// overtaken says whether a name is another since the ledger had a size, and not
// as an item wants it; if not, it returns nil.
func overtaken(s *ledger.State, since uint64, i *Item, destination string) *overtaking {
	newest, known := s.Lookup(destination, i.Name)
	if !known || newest.Sequence < since || i.agrees(newest) {
		return nil
	}
	return &overtaking{item: i, destination: destination, newest: newest}
}

// agrees says whether an entry is what the item wants of its name.
func (i *Item) agrees(e ledger.Entry) bool {
	if i.Action == Delete {
		return !e.Exists()
	}
	return e.Exists() && e.Digest == i.Digest
}

// current is what of a job no other promotion has overtaken. Whoever overtakes
// it from now on is heard of when it is recorded.
func (r *recorder) current(j *job) *job {
	if r.applier.Ledger == nil {
		return j
	}
	left := &job{destination: j.destination}
	for _, i := range j.items {
		if o := overtaken(r.applier.Ledger.State(), r.since, i, j.destination); o != nil {
			r.done(i, j.destination, o)
		} else {
			left.items = append(left.items, i)
		}
	}
	return left
}

// putBack makes a name what the ledger says it is. Manifests by digest need no
// such care: what a digest stands for never changes.
func (a *Applier) putBack(ctx context.Context, o *overtaking) error {
	if err := a.restore(ctx, o); err != nil {
		return fmt.Errorf("putting %s/%s back to what the ledger says: %w", o.destination, o.item.Name, err)
	}
	return nil
}

func (a *Applier) restore(ctx context.Context, o *overtaking) error {
	if _, tag, _ := splitName(o.item.Name); o.item.Kind == ledger.Image && tag == "" {
		return nil
	}
	if !o.newest.Exists() {
		return a.remove(ctx, o.item, o.destination)
	}
	i := *o.item
	i.Action, i.Digest, i.Source, i.trusted = Move, o.newest.Digest, "", true
	if i.Kind == ledger.File {
		return a.file(ctx, &i, o.destination)
	}
	return a.image(ctx, &job{destination: o.destination, items: []*Item{&i}})
}

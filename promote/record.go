package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"entrepot/promote/ledger"
	"entrepot/promote/transfer"
)

// record writes what was done to the ledger, and returns the results as they
// are then. A name that another promotion changed since the plan is the other's:
// it is put back to what the ledger says, and counts as failed.
func (a *Applier) record(ctx context.Context, since uint64, results []Result) ([]Result, error) {
	if a.Ledger == nil {
		return results, nil
	}
	var overtaken []overtaking
	var settled []Result
	_, err := a.Ledger.Append(ctx, func(s *ledger.State) ([]ledger.Entry, error) {
		overtaken, settled = nil, nil
		var entries []ledger.Entry
		for _, result := range results {
			if result.Item.Action == Revoke || result.Item.Action == Unrevoke {
				entries = append(entries, a.revocation(s, result)...)
				settled = append(settled, result)
				continue
			}
			var mine []string
			for _, destination := range result.Done {
				newest, known := s.Lookup(destination, result.Item.Name)
				switch {
				case known && newest.Exists() && newest.Digest == result.Item.Digest && result.Item.Action != Delete:
					// Somebody else has recorded just that.
				case known && newest.Sequence >= since:
					overtaken = append(overtaken, overtaking{result.Item, destination, newest})
					result.Err = errors.Join(result.Err, fmt.Errorf(
						"%s/%s: another promotion changed it meanwhile, in entry %d: plan again", destination, result.Item.Name, newest.Sequence))
				default:
					mine = append(mine, destination)
				}
			}
			entries = append(entries, a.entries(s, result.Item, mine)...)
			settled = append(settled, result)
		}
		return entries, nil
	})
	if err != nil {
		return nil, fmt.Errorf("writing the ledger: %w", err)
	}
	for _, o := range overtaken {
		if err := a.putBack(ctx, o); err != nil {
			return settled, err
		}
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

// overtaking is a name that this apply set although another had changed it
// since it was planned.
type overtaking struct {
	item        *Item
	destination string
	newest      ledger.Entry
}

// putBack makes a tag what the ledger says it is. Other names need no such
// care: what a digest stands for never changes, and files do not move unless
// they were said to.
func (a *Applier) putBack(ctx context.Context, o overtaking) error {
	_, tag, _ := splitName(o.item.Name)
	if o.item.Kind != ledger.Image || tag == "" || !o.newest.Exists() {
		return nil
	}
	repository, err := o.item.repository(o.destination)
	if err != nil {
		return err
	}
	_, err = a.Client.Copy(ctx, transfer.Copy{
		From: repository, To: repository, Digest: o.newest.Digest, Tags: []string{tag}, Trusted: true,
	})
	if err != nil {
		return fmt.Errorf("putting %s/%s back to what the ledger says: %w", o.destination, o.item.Name, err)
	}
	return nil
}

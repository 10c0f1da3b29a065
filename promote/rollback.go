package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Rollback plans how to give names back what the ledger says they had in an
// earlier state. Names that were new since are deleted, names that were deleted
// since are set again: their content is still at the destinations, by digest.
// The deletion of names that promotion found there since, and did not write, is
// withheld. What was revoked stays revoked. Only the names of one project are
// looked at, unless project is "".
//
// A configuration that still asks for the newer state has to be put back too,
// or the next apply asks for it again. Errors: those of ctx.
func (p *Planner) Rollback(ctx context.Context, now, then *ledger.State, project, reason string) (*Plan, error) {
	plan := rollback(now, then, project, reason)
	c := &confirmer{client: p.Client, state: now}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(orDefault(p.Concurrency))
	for _, i := range plan.Items {
		group.Go(func() error {
			if i.Action != Delete {
				c.atDestination(ctx, i)
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("planning a rollback: %w", err)
	}
	p.limitDeletes(plan)
	return plan, nil
}

// atDestination makes sure that a rollback's content is still there.
func (c *confirmer) atDestination(ctx context.Context, i *Item) {
	i.trusted = true
	if i.Kind == ledger.File {
		c.fileContent(ctx, i)
		return
	}
	for _, destination := range i.Destinations {
		switch err := c.look(ctx, i, destination); {
		case err == nil:
		case errors.Is(err, transfer.ErrNotFound):
			i.blocked(Lost, err.Error())
		default:
			i.blocked(Failed, err.Error())
		}
	}
}

// fileContent makes sure that a file's destinations have its content, whatever
// it is called there.
func (c *confirmer) fileContent(ctx context.Context, i *Item) {
	for _, destination := range i.Destinations {
		store, err := c.open(ctx, destination)
		if err != nil {
			i.blocked(Failed, err.Error())
			return
		}
		mounter, ok := store.(transfer.Mounter)
		if !ok {
			i.blocked(Lost, destination+" keeps no content but by name: promote the file again from its source")
			return
		}
		if _, err = mounter.HasContent(ctx, i.Digest); err != nil {
			i.blocked(obstacleOf(err), err.Error())
		}
	}
}

func rollback(now, then *ledger.State, project, reason string) *Plan {
	plan := &Plan{Sequence: now.Len(), Items: []*Item{}}
	past := byPlace(then, project)
	present := byPlace(now, project)
	type change struct {
		kind             ledger.Kind
		name             string
		action           Action
		digest, previous digest.Digest
		obstacle         Obstacle
	}
	byChange := map[change]*Item{}
	add := func(i Item, destination string) {
		c := change{i.Kind, i.Name, i.Action, i.Digest, i.Previous, i.Obstacle}
		if byChange[c] == nil {
			i.Reason = reason
			byChange[c] = &i
			plan.Items = append(plan.Items, &i)
		}
		byChange[c].Destinations = append(byChange[c].Destinations, destination)
	}
	for at, was := range past {
		is, there := present[at]
		item := Item{Kind: was.Kind, Project: was.Project, Name: was.Name, Digest: was.Digest, Size: was.Size}
		switch {
		case !there:
			item.Action = Create
		case is.Digest != was.Digest:
			item.Action, item.Previous = Move, is.Digest
		default:
			plan.Unchanged++
			continue
		}
		add(item, at.destination)
	}
	for at, is := range present {
		if _, there := past[at]; there {
			continue
		}
		item := Item{Action: Delete, Kind: is.Kind, Project: is.Project, Name: is.Name, Digest: is.Digest, Size: is.Size}
		if !now.Wrote(at.destination, at.name) {
			item.blocked(Withheld, "promotion found it there and did not write it: list it under removed if it is to go")
		}
		add(item, at.destination)
	}
	for _, i := range plan.Items {
		slices.Sort(i.Destinations)
	}
	plan.sort()
	return plan
}

// place is a name at one destination.
type place struct{ destination, name string }

func byPlace(s *ledger.State, project string) map[place]ledger.Entry {
	places := map[place]ledger.Entry{}
	for n := range s.Names() {
		if project != "" && n.Project != project {
			continue
		}
		for _, destination := range n.Destinations {
			places[place{destination, n.Name}] = n
		}
	}
	return places
}

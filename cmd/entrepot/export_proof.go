package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"

	"github.com/spf13/cobra"
)

// writeProven fetches what is not there, and holds all names against the ledger. Where
// that has changed since it was read, names may have moved, come or gone meanwhile: it is
// read again, once.
func (e *exporting) writeProven(ctx context.Context, cmd *cobra.Command, w *bundle.Writer) error {
	err := e.write(ctx, cmd, w)
	if err == nil {
		err = e.prove()
	}
	if err == nil || e.log == nil || ctx.Err() != nil {
		return err
	}
	before := e.log.Checkpoint().Size
	if failed := e.log.Refresh(ctx); failed != nil {
		return errors.Join(err, failed)
	}
	if e.log.Checkpoint().Size == before {
		return err
	}
	if err := e.choose(); err != nil {
		return err
	}
	if err := e.write(ctx, cmd, w); err != nil {
		return err
	}
	return e.prove()
}

// hasLedger says whether an upstream has a ledger in the configuration.
func (e *exporting) hasLedger(kind ledger.Kind, upstream string) bool {
	return e.called(kind, upstream) != nil
}

// called are the names that the ledger has for an upstream; none without a ledger.
func (e *exporting) called(kind ledger.Kind, upstream string) []string {
	for i := range e.ups {
		if up := &e.ups[i]; up.Kind == kind && up.Name == upstream && up.ledger != nil {
			return up.names
		}
	}
	return nil
}

// prove holds the names of upstreams that have a ledger against it: where the node has
// something else, its ledger is another one, or was newer than what is read here.
func (e *exporting) prove() error {
	if e.log == nil {
		return nil
	}
	checked := bundle.Contents{
		Images: slices.DeleteFunc(slices.Clone(e.what.Images), func(i bundle.Image) bool { return !e.hasLedger(ledger.Image, i.Upstream) }),
		Files:  slices.DeleteFunc(slices.Clone(e.what.Files), func(f bundle.File) bool { return !e.hasLedger(ledger.File, f.Upstream) }),
	}
	err := checked.Check(e.log.State(), e.called, e.unproven)
	if err != nil {
		return fmt.Errorf("the ledger, up to entry %d, does not prove what these names are; nothing proves those that it never had (--unproven writes them), and the node is ahead of it, or behind, in the others: %w",
			e.log.Checkpoint().Size, err)
	}
	return nil
}

// unprovenNames counts the names that no ledger proves.
func (e *exporting) unprovenNames() (n int) {
	state := new(ledger.State)
	if e.log != nil {
		state = e.log.State()
	}
	for i := range e.what.Images {
		one := bundle.Contents{Images: e.what.Images[i : i+1]}
		if one.Check(state, e.called, false) != nil {
			n++
		}
	}
	return n
}

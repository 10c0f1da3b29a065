// Package promotetest makes the ledgers that tests and benchmarks of promotion
// begin with.
package promotetest

import (
	"context"
	"fmt"
	"slices"

	"entrepot/promote/config"
	"entrepot/promote/ledger"
)

// Record writes to a ledger what promotion would have that has set every name
// of the images of the projects.
func Record(ctx context.Context, log *ledger.Log, projects []*config.Project) error {
	var entries []ledger.Entry
	for _, p := range projects {
		destinations := slices.Sorted(slices.Values(p.Destinations))
		for _, image := range p.Images {
			for _, e := range image.Entries {
				for _, tag := range e.Tags {
					entries = append(entries, ledger.Entry{
						Kind: ledger.Image, Name: image.Name + ":" + tag, Destinations: destinations,
						Action: ledger.Set, Digest: e.Digest, Project: p.Name, Revision: "recorded",
					})
				}
			}
		}
	}
	_, err := log.Append(ctx, func(*ledger.State) ([]ledger.Entry, error) { return entries, nil })
	if err != nil {
		return fmt.Errorf("recording %d names: %w", len(entries), err)
	}
	return nil
}

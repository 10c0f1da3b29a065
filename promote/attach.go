package promote

import (
	"context"
	"fmt"
	"slices"

	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"
)

// attachable are the contents of a project's images that promotion has brought
// to all destinations, and that are not to change: one item each.
func (d *differ) attachable(p *config.Project, changing []*Item) []*Item {
	if p.Kind != config.Images {
		return nil
	}
	seen := map[string]bool{}
	for _, i := range changing {
		image, _, _ := splitName(i.Name)
		seen[byDigest(image, i.Digest)] = true
	}
	destinations := slices.Sorted(slices.Values(p.Destinations))
	var items []*Item
	for _, image := range p.Images {
		for _, e := range image.Entries {
			i := &Item{
				Action: Attach, Kind: ledger.Image, Project: p.Name, Name: byDigest(image.Name, e.Digest), Destinations: destinations,
				Source: p.Source, Digest: e.Digest, Position: e.Position,
			}
			if !seen[i.Name] && d.brought(i) {
				items = append(items, i)
			}
			seen[i.Name] = true
		}
	}
	return items
}

// unattached keeps of a guess the destinations that lack something about the
// image.
func (c *confirmer) unattached(ctx context.Context, guess *Item) []*Item {
	from, err := guess.repository(guess.Source)
	most := 0
	var lacking []string
	for _, destination := range guess.Destinations {
		n := 0
		if err == nil {
			var to transfer.Repository
			if to, err = guess.repository(destination); err == nil {
				n, err = c.client.Unattached(ctx, from, to, guess.Digest)
			}
		}
		if err != nil {
			guess.blocked(Failed, err.Error())
			return []*Item{guess}
		}
		if n > 0 {
			most, lacking = max(most, n), append(lacking, destination)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	if len(lacking) < len(guess.Destinations) {
		guess.Destinations = lacking
	}
	guess.Reason = fmt.Sprintf("staging has %d more signatures or referrers of it", most)
	return []*Item{guess}
}

package promote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Planner makes plans. Its fields are set before its first use.
type Planner struct {
	Client *transfer.Client
	// MaxDeletes is how many names one plan may delete; if it would be more,
	// none is.
	MaxDeletes int
	// Concurrency is how many items are looked at in parallel; 0 means 16.
	Concurrency int
	// Attachments says of which projects also the images that are as they should
	// be are compared with staging, for what is attached to them; nil is none.
	// It costs some requests for each image.
	Attachments func(project string) bool
	// NoLedger says that nothing is recorded, so that a name that is right
	// already is no change.
	NoLedger bool
}

// Plan compares a tree with the ledger's state and confirms at source and
// destination what differs. Errors: those of ctx. Whatever else goes wrong is
// an obstacle of the items it concerns.
func (p *Planner) Plan(ctx context.Context, tree *config.Tree, state *ledger.State) (*Plan, error) {
	plan := &Plan{Sequence: state.Len(), Problems: tree.Problems, Items: []*Item{}}
	diff := newDiffer(state)
	c := &confirmer{client: p.Client, state: state, projects: map[string]*config.Project{}}
	var guesses []*Item
	for _, project := range tree.Projects {
		items := diff.project(project)
		plan.Unchanged += countNames(project)
		if p.Attachments != nil && p.Attachments(project.Name) {
			items = append(items, diff.attachable(project, items)...)
		}
		guesses = append(guesses, items...)
		c.projects[key(project.Name, kindOf(project))] = project
	}
	c.expect(guesses)

	found := make([][]*Item, len(guesses))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(orDefault(p.Concurrency))
	for i, guess := range guesses {
		group.Go(func() error {
			found[i] = c.confirm(groupCtx, guess)
			return groupCtx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("planning: %w", err)
	}
	changed := map[string]bool{}
	for i, items := range found {
		if p.NoLedger {
			items = slices.DeleteFunc(items, func(i *Item) bool { return i.Action == Adopt && i.Obstacle == "" })
			if len(items) == 0 {
				continue // it is as it should be
			}
		}
		plan.Items = append(plan.Items, items...)
		if guesses[i].Action == Create || guesses[i].Action == Move {
			changed[key(guesses[i].Project, guesses[i].Kind)+" "+guesses[i].Name] = true
		}
	}
	plan.Unchanged -= len(changed)
	p.limitDeletes(plan)
	plan.sort()
	return plan, nil
}

func countNames(p *config.Project) int {
	n := 0
	for range wanted(p) {
		n++
	}
	return n
}

func key(project string, k ledger.Kind) string { return string(k) + " " + project }

// defaultConcurrency is how much is done in parallel unless told otherwise.
const defaultConcurrency = 16

func orDefault(concurrency int) int {
	if concurrency > 0 {
		return concurrency
	}
	return defaultConcurrency
}

// limitDeletes withholds all deletions when they are more than allowed: a
// mistake that would delete much must not delete a part of it either.
func (p *Planner) limitDeletes(plan *Plan) {
	deletes := plan.filter(func(i *Item) bool { return i.Action == Delete && i.Obstacle == "" })
	if len(deletes) <= p.MaxDeletes {
		return
	}
	for _, i := range deletes {
		i.blocked(Withheld, fmt.Sprintf("%d names would be deleted, and at most %d may be: say --max-deletes %d if this is meant",
			len(deletes), p.MaxDeletes, len(deletes)))
	}
}

// confirmer asks sources and destinations, each thing once.
type confirmer struct {
	client   *transfer.Client
	projects map[string]*config.Project // by key
	asked    map[string]int             // by destination repository: how many names are asked for there

	state *ledger.State

	images once[transfer.Image]     // by repository and digest
	tags   once[map[string]bool]    // by destination repository
	stores once[transfer.FileStore] // by URL
}

// once remembers the answers to questions, and has each asked by one goroutine
// while the others wait.
type once[V any] struct {
	mu      sync.Mutex
	answers map[string]func() (V, error)
}

func (o *once[V]) get(key string, ask func() (V, error)) (V, error) {
	o.mu.Lock()
	if o.answers == nil {
		o.answers = map[string]func() (V, error){}
	}
	answer, ok := o.answers[key]
	if !ok {
		answer = sync.OnceValues(ask)
		o.answers[key] = answer
	}
	o.mu.Unlock()
	return answer()
}

// listFrom is how many names of a repository have to be in question for its
// tags to be listed in one request rather than asked for one by one.
const listFrom = 3

// expect counts what will be asked for in each destination repository.
func (c *confirmer) expect(guesses []*Item) {
	c.asked = map[string]int{}
	for _, g := range guesses {
		if g.Kind != ledger.Image {
			continue
		}
		image, _, _ := splitName(g.Name)
		for _, destination := range g.Destinations {
			c.asked[destination+"/"+image]++
		}
	}
}

// confirm turns a guess into what there really is to do.
func (c *confirmer) confirm(ctx context.Context, guess *Item) []*Item {
	switch guess.Action {
	case Create, Move:
		items := c.atDestinations(ctx, guess)
		for _, i := range items {
			if i.Obstacle == "" && i.Action != Adopt {
				c.atSource(ctx, i)
			}
		}
		return items
	case Attach:
		return c.unattached(ctx, guess)
	default:
		return []*Item{guess}
	}
}

// atDestinations splits a guess by what the destinations have under the name.
func (c *confirmer) atDestinations(ctx context.Context, guess *Item) []*Item {
	var items []*Item
	var none ocispec.Descriptor
	add := func(destination string, action Action, previous digest.Digest, o Obstacle, detail string, root ocispec.Descriptor) {
		for _, i := range items {
			if i.Action == action && i.Previous == previous && i.Obstacle == o && i.Detail == detail {
				i.Destinations = append(i.Destinations, destination)
				return
			}
		}
		i := *guess
		i.Action, i.Previous, i.Destinations, i.root = action, previous, []string{destination}, root
		i.blocked(o, detail)
		items = append(items, &i)
	}
	moving := guess.Name
	if _, tag, _ := splitName(guess.Name); guess.Kind == ledger.Image {
		moving = tag
	}
	movable := c.projects[key(guess.Project, guess.Kind)].MayMove(moving)
	for _, destination := range guess.Destinations {
		has, err := c.at(ctx, destination, guess)
		switch {
		case err != nil:
			add(destination, guess.Action, guess.Previous, Failed, err.Error(), none)
		case has.Digest == guess.Digest:
			add(destination, Adopt, guess.Previous, "", "", has)
		case has.Digest == "" && guess.Action == Create:
			add(destination, Create, "", "", "", none)
		case has.Digest == "":
			// Somebody took it away behind promotion's back. The name is
			// nobody's now, so that it does not move.
			add(destination, Create, guess.Previous, "", "", none)
		case movable:
			add(destination, Move, has.Digest, "", "", none)
		default:
			add(destination, Move, has.Digest, Conflict, fmt.Sprintf(
				"it stands for %s there, and names do not move: give this content a new name, or list a pattern for it in mutable_tags", has.Digest), none)
		}
	}
	if len(items) == 1 {
		items[0].Destinations = guess.Destinations // the shared set, not a copy
	}
	return items
}

// at says what a name has at one destination; the zero descriptor is nothing.
func (c *confirmer) at(ctx context.Context, destination string, guess *Item) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	if guess.Kind == ledger.File {
		info, err := c.file(ctx, destination, guess.Name)
		if errors.Is(err, transfer.ErrNotFound) {
			return none, nil
		}
		return ocispec.Descriptor{Digest: info.SHA256, Size: info.Size}, err
	}
	repository, err := guess.repository(destination)
	if err != nil {
		return none, err
	}
	_, tag, d := splitName(guess.Name)
	if tag != "" && c.asked[repository.String()] >= listFrom {
		tags, err := c.tags.get(repository.String(), func() (map[string]bool, error) { return c.list(ctx, repository) })
		if err == nil && !tags[tag] {
			return none, nil
		}
		// A registry that does not list its tags is asked for each.
	}
	desc, err := c.client.Resolve(ctx, transfer.Ref{Repository: repository, Tag: tag, Digest: d})
	if errors.Is(err, transfer.ErrNotFound) {
		return none, nil
	}
	return desc, err
}

func (c *confirmer) list(ctx context.Context, repository transfer.Repository) (map[string]bool, error) {
	tags, err := c.client.Tags(ctx, repository)
	if err != nil && !errors.Is(err, transfer.ErrNotFound) {
		return nil, err
	}
	set := make(map[string]bool, len(tags))
	for _, tag := range tags {
		set[tag] = true
	}
	return set, nil
}

// file describes a file of a store, with its SHA256.
func (c *confirmer) file(ctx context.Context, url, name string) (transfer.FileInfo, error) {
	store, err := c.open(ctx, url)
	if err != nil {
		return transfer.FileInfo{}, err
	}
	return c.client.SumFile(ctx, store, name, false)
}

func (c *confirmer) open(ctx context.Context, url string) (transfer.FileStore, error) {
	return c.stores.get(url, func() (transfer.FileStore, error) { return c.client.OpenFileStore(ctx, url) })
}

// atSource makes sure that there is content to copy, and of what size. Content
// that the destinations have already, under another name, needs no source.
func (c *confirmer) atSource(ctx context.Context, i *Item) {
	err := c.look(ctx, i, i.Source)
	if errors.Is(err, transfer.ErrNotFound) && i.Kind == ledger.Image {
		for _, destination := range i.Destinations {
			if c.look(ctx, i, destination) != nil {
				i.blocked(Lost, err.Error()) // it names the source
				return
			}
		}
		return
	}
	switch {
	case err == nil:
	case errors.Is(err, transfer.ErrNotFound):
		i.blocked(Lost, err.Error())
	default:
		i.blocked(Failed, err.Error())
	}
}

// look finds out what an item's content is in a registry or file store.
func (c *confirmer) look(ctx context.Context, i *Item, in string) error {
	if i.Kind == ledger.File {
		store, err := c.open(ctx, in)
		if err != nil {
			return err
		}
		info, err := store.Stat(ctx, i.Name)
		i.Size, i.root.Size = info.Size, info.Size
		return err
	}
	repository, err := i.repository(in)
	if err != nil {
		return err
	}
	image, err := c.images.get(repository.String()+"@"+string(i.Digest), func() (transfer.Image, error) {
		return c.client.Inspect(ctx, repository, i.Digest)
	})
	i.Size, i.root = image.Size, image.Root
	return err
}

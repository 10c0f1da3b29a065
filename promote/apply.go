package promote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Applier carries plans out. Its fields are set before its first use.
type Applier struct {
	Client *transfer.Client
	// Ledger is where changes are recorded; nil records none.
	Ledger *ledger.Log
	// Revision goes into the ledger's entries.
	Revision string
	// Concurrency is how many contents are copied at once; 0 means 16. Limits
	// of each host are the transfer's.
	Concurrency int
	// Progress hears of each item that is done or has failed; nil is nobody.
	Progress func(Result)
	// Logger is told of what was left out without harm to an item; nil
	// discards it.
	Logger *slog.Logger
}

// Result is what became of an item at its destinations.
type Result struct {
	Item *Item
	// Done are the destinations where the name is as the item says, and the
	// ledger has it.
	Done []string
	// Err says why the others are not; nil when there are none.
	Err error
}

// job is content to be brought to one destination, and the names that it is to
// have there: an image has its content copied once, whatever its tags.
type job struct {
	destination string
	items       []*Item
}

// jobKey says which items share a job.
type jobKey struct {
	kind        ledger.Kind
	destination string
	source      string
	image       string // or the name of a file
	digest      digest.Digest
	deletes     bool
}

// jobs groups what there is to do, in the order of the plan.
func jobs(items []*Item) []*job {
	var order []*job
	byKey := map[jobKey]*job{}
	for _, i := range items {
		image := i.Name
		if i.Kind == ledger.Image {
			image, _, _ = splitName(i.Name)
		}
		destinations := i.Destinations
		if len(destinations) == 0 {
			destinations = []string{""} // a revocation takes place in the ledger alone
		}
		for _, destination := range destinations {
			k := jobKey{i.Kind, destination, i.Source, image, i.Digest, i.Action == Delete}
			j := byKey[k]
			if j == nil {
				j = &job{destination: destination}
				byKey[k] = j
				order = append(order, j)
			}
			j.items = append(j.items, i)
		}
	}
	return order
}

// Apply does what the plan says and can be done. Errors: those of ctx, and of
// the ledger. What goes wrong with an item is in the report.
func (a *Applier) Apply(ctx context.Context, plan *Plan) (*Report, error) {
	changes := plan.Changes()
	if a.Ledger != nil && len(changes) > 0 {
		// What others did since the plan is not to be undone.
		if err := a.Ledger.Refresh(ctx); err != nil {
			return nil, fmt.Errorf("applying: reading the ledger: %w", err)
		}
	}
	rec := newRecorder(a, plan.Sequence, changes)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return rec.run(groupCtx) })

	work, workCtx := errgroup.WithContext(groupCtx)
	work.SetLimit(orDefault(a.Concurrency))
	for _, j := range jobs(changes) {
		work.Go(func() error {
			if current := rec.current(j); len(current.items) > 0 {
				a.do(workCtx, current, rec.done)
			}
			return workCtx.Err()
		})
	}
	err := work.Wait()
	rec.finish()
	if failed := group.Wait(); failed != nil {
		err = failed
	}
	if err != nil {
		err = fmt.Errorf("applying: %w", err)
	}
	report := rec.report()
	report.Blocked = plan.Blocked()
	return report, err
}

// do brings one content to one destination and sets its names there.
func (a *Applier) do(ctx context.Context, j *job, done func(*Item, string, error)) {
	first := j.items[0]
	if first.Kind == ledger.Image && j.destination != "" && first.Action != Delete {
		err := a.image(ctx, j)
		for _, i := range j.items {
			if i.Action.copies() {
				done(i, j.destination, err)
			} else {
				done(i, j.destination, nil) // only the ledger has to learn of it
			}
		}
		return
	}
	for _, i := range j.items {
		var err error
		switch i.Action {
		case Delete:
			err = a.remove(ctx, i, j.destination)
		case Create, Move:
			err = a.file(ctx, i, j.destination)
		case Adopt, Attach, Revoke, Unrevoke: // only the ledger has to learn of it
		}
		done(i, j.destination, err)
	}
}

// image copies an image and sets its tags.
func (a *Applier) image(ctx context.Context, j *job) error {
	var what transfer.Copy
	trusted := false
	for _, i := range j.items {
		if !i.Action.copies() {
			continue
		}
		to, err := i.repository(j.destination)
		if err != nil {
			return err
		}
		from := to // of a rollback: it is there
		if i.Source != "" {
			if from, err = i.repository(i.Source); err != nil {
				return err
			}
		}
		what.From, what.To, what.Digest = from, to, i.Digest
		if _, tag, _ := splitName(i.Name); tag != "" {
			what.Tags = append(what.Tags, tag)
		}
		trusted = trusted || i.trusted
	}
	if what.Digest == "" {
		return nil // nothing but adoptions
	}
	what.Trusted = trusted
	copied, err := a.Client.Copy(ctx, what)
	a.tell(ctx, &what, &copied)
	if !errors.Is(err, transfer.ErrNotFound) || what.From == what.To {
		return err
	}
	// The source has lost it. If the destination has it whole, that will do.
	if _, here := a.Client.Inspect(ctx, what.To, what.Digest); here != nil {
		return err
	}
	what.From = what.To
	_, err = a.Client.Copy(ctx, what)
	return err
}

// tell logs what was left out of an image that is promoted all the same.
func (a *Applier) tell(ctx context.Context, what *transfer.Copy, copied *transfer.Copied) {
	if a.Logger == nil {
		return
	}
	if len(copied.Lost) > 0 {
		a.Logger.WarnContext(ctx, "the source lists referrers that it has lost", "image", what.From.String()+"@"+string(what.Digest), "lost", copied.Lost)
	}
	if len(copied.Kept) > 0 {
		a.Logger.WarnContext(ctx, "source and destination have different signatures; the destination's are kept",
			"image", what.To.String()+"@"+string(what.Digest), "tags", copied.Kept)
	}
}

// file copies a file.
func (a *Applier) file(ctx context.Context, i *Item, destination string) error {
	to, err := a.Client.OpenFileStore(ctx, destination)
	if err != nil {
		return err
	}
	if i.Source == "" { // of a rollback: it is there
		return a.Client.MountFile(ctx, to, i.Name, i.Digest, i.Action == Move)
	}
	from, err := a.Client.OpenFileStore(ctx, i.Source)
	if err != nil {
		return err
	}
	_, err = a.Client.CopyFile(ctx, transfer.FileCopy{
		From: from, To: to, Name: i.Name, SHA256: i.Digest, Overwrite: i.Action == Move,
	})
	return err
}

// remove takes a name away. That it is gone already is what was wanted.
func (a *Applier) remove(ctx context.Context, i *Item, destination string) error {
	var err error
	if i.Kind == ledger.File {
		var store transfer.FileStore
		if store, err = a.Client.OpenFileStore(ctx, destination); err == nil {
			err = store.Delete(ctx, i.Name)
		}
	} else {
		var repository transfer.Repository
		if repository, err = i.repository(destination); err != nil {
			return err
		}
		if _, tag, d := splitName(i.Name); tag != "" {
			err = a.Client.DeleteTag(ctx, repository, tag)
		} else {
			err = a.Client.DeleteManifest(ctx, repository, d)
		}
	}
	if errors.Is(err, transfer.ErrNotFound) {
		return nil
	}
	return err
}

const (
	// recordAfter bounds how long a change waits for others to be written to
	// the ledger with: nodes follow it, and people wait for nodes.
	recordAfter = 500 * time.Millisecond
	// recordMany is how many changes are written at once.
	recordMany = 512
)

// recorder gathers what was done and writes it to the ledger, many changes at
// a time: each write is a signature and a few objects.
type recorder struct {
	applier *Applier
	since   uint64        // the ledger's size when the plan was made
	ready   chan struct{} // recordMany changes wait
	over    chan struct{}

	mu      sync.Mutex
	open    map[*Item]*Result // some destinations are missing
	missing map[*Item]int     // how many
	waiting []Result          // to be written
	results []Result
}

func newRecorder(a *Applier, since uint64, items []*Item) *recorder {
	r := &recorder{
		applier: a, since: since, ready: make(chan struct{}, 1), over: make(chan struct{}),
		open: map[*Item]*Result{}, missing: map[*Item]int{},
	}
	for _, i := range items {
		r.open[i], r.missing[i] = &Result{Item: i}, max(1, len(i.Destinations))
	}
	return r
}

// done hears that an item is done at a destination, or has failed there.
func (r *recorder) done(i *Item, destination string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	result := r.open[i]
	if err == nil {
		result.Done = append(result.Done, destination)
	} else {
		result.Err = errors.Join(result.Err, fmt.Errorf("%s/%s: %w", destination, i.Name, err))
	}
	if r.missing[i]--; r.missing[i] > 0 {
		return
	}
	delete(r.open, i)
	if len(result.Done) >= len(i.Destinations) {
		result.Done = i.Destinations // in their order, and the shared set
	}
	r.waiting = append(r.waiting, *result)
	if len(r.waiting) >= recordMany {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
}

// finish has what waits written, and what was done of items that were given up
// in the middle.
func (r *recorder) finish() {
	r.mu.Lock()
	for item, result := range r.open {
		if len(result.Done) > 0 {
			result.Err = errors.Join(result.Err, errGivenUp)
			r.waiting = append(r.waiting, *result)
			delete(r.open, item)
		}
	}
	r.mu.Unlock()
	close(r.over)
}

// errGivenUp says that an item was not tried at all of its destinations.
var errGivenUp = errors.New("given up before all destinations were reached")

// run writes until finish is called, and everything is written.
func (r *recorder) run(ctx context.Context) error {
	tick := time.NewTicker(recordAfter)
	defer tick.Stop()
	for {
		last := false
		select {
		case <-tick.C:
		case <-r.ready:
		case <-r.over:
			last = true
		}
		// What was done has to be in the ledger also when the rest is given up.
		if err := r.write(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		if last {
			return nil
		}
	}
}

func (r *recorder) write(ctx context.Context) error {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	if len(waiting) == 0 {
		return nil
	}
	waiting, err := r.applier.record(ctx, r.since, waiting)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.results = append(r.results, waiting...)
	r.mu.Unlock()
	for _, result := range waiting {
		if r.applier.Progress != nil {
			r.applier.Progress(result)
		}
	}
	return nil
}

// report says what was done, after run has returned.
func (r *recorder) report() *Report {
	report := &Report{Done: []*Item{}, Failed: []*Item{}}
	for _, result := range r.results {
		if result.Err == nil {
			report.Done = append(report.Done, result.Item)
			continue
		}
		failed := *result.Item
		failed.Destinations = slices.DeleteFunc(slices.Clone(failed.Destinations), func(destination string) bool {
			return slices.Contains(result.Done, destination)
		})
		failed.blocked(obstacleOf(result.Err), result.Err.Error())
		report.Failed = append(report.Failed, &failed)
	}
	for item := range r.open {
		failed := *item
		failed.blocked(Failed, errGivenUp.Error())
		report.Failed = append(report.Failed, &failed)
	}
	return report
}

// obstacleOf says what kind of failure an error is.
func obstacleOf(err error) Obstacle {
	switch {
	case errors.Is(err, transfer.ErrNotFound):
		return Lost
	case errors.Is(err, transfer.ErrConflict):
		return Conflict
	}
	return Failed
}

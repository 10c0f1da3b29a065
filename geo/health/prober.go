package health

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"entrepot/geo/choice"
	"entrepot/geo/locate"
	"entrepot/registry/reach"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of a [Config].
const (
	DefaultInterval = 10 * time.Second
	DefaultTimeout  = 5 * time.Second
)

// probesAtOnce bounds how many mirrors are asked at a time.
const probesAtOnce = 32

// suspectEvery is between two probes of a mirror that clients came back from.
const suspectEvery = time.Second

// freezeWithin is the time in which more than half of a continent's mirrors must
// fall for the others not to be trusted with what is left.
const freezeWithin = time.Minute

// Config configures a [Prober].
type Config struct {
	List *choice.List
	// Client sends probes; nil means one of reach.NewClient.
	Client *http.Client
	// Interval is between two probes of a mirror, give or take a fifth; 0 means
	// DefaultInterval. Timeout bounds one; 0 means DefaultTimeout.
	Interval, Timeout time.Duration
	// Samples are what mirrors are asked for.
	Samples Samples
	// RedirectHosts are whose URLs mirrors may redirect to, besides their own:
	// "host" or "*.domain", by https.
	RedirectHosts []string
	// QuarantineFile has the mirrors that are quarantined; "" keeps them in memory.
	QuarantineFile string
	Logger         *slog.Logger // nil discards
	Registerer     prometheus.Registerer
}

// Prober keeps the states of mirrors. It is safe for concurrent use.
type Prober struct {
	cfg     Config
	metrics *metrics

	mu       sync.Mutex
	list     *choice.List
	machines map[string]*machine
	suspects map[string]int // probes that are due at once
	wake     chan struct{}  // there is a new one
}

// New makes a prober. No mirror is up before its first probe. The error is that
// of the file of quarantined mirrors.
func New(cfg Config) (*Prober, error) {
	cfg.Interval, cfg.Timeout = cmp.Or(cfg.Interval, DefaultInterval), cmp.Or(cfg.Timeout, DefaultTimeout)
	if cfg.Client == nil {
		cfg.Client = reach.NewClient()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Prober{cfg: cfg, machines: map[string]*machine{}, suspects: map[string]int{}, wake: make(chan struct{}, 1), metrics: newMetrics(cfg.Registerer)}
	p.SetList(cfg.List)
	return p, p.readQuarantine()
}

// SetList takes a changed list into use. States are kept by name; a mirror that is
// new, or has other URLs, is probed at once.
func (p *Prober) SetList(list *choice.List) {
	p.mu.Lock()
	defer p.mu.Unlock()
	machines := map[string]*machine{}
	for i := range list.Len() {
		m := list.Mirror(i)
		s := p.machines[m.Name]
		if s == nil {
			s = new(machine)
		} else if !slices.EqualFunc(s.urls, m.URLs, func(a, b *url.URL) bool { return *a == *b }) {
			p.suspects[m.Name] = failuresInRow
		}
		s.urls = m.URLs
		machines[m.Name] = s
	}
	for name := range p.machines {
		if machines[name] == nil {
			p.metrics.forget(name)
		}
	}
	p.list, p.machines = list, machines
	p.metrics.describe(list)
	p.wakeUp()
}

// wakeUp has [Prober.Run] look for probes that are due.
func (p *Prober) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// States are the mirrors and what is known of each, by its index.
func (p *Prober) States() (*choice.List, []choice.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	states := make([]choice.State, p.list.Len())
	frozen := p.frozen(now)
	for i := range states {
		m := p.list.Mirror(i)
		states[i] = p.machines[m.Name].state(now, frozen[m.Continent])
		p.metrics.show(m.Name, &states[i])
	}
	return p.list, states
}

// Suspect says that a client came back from a mirror, which may have no other
// reason than the client's own: the mirror is probed now, and each second until it
// answers or is known to be down, in place of the usual interval.
func (p *Prober) Suspect(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.machines[name]; s == nil || !s.up || p.suspects[name] > 0 {
		return
	}
	p.suspects[name] = failuresInRow
	p.wakeUp()
}

// due is when a mirror is to be probed, by when that was done last, and when it is
// to be done next.
func (p *Prober) due(name string, last, next time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.suspects[name] > 0 {
		return earlier(next, last.Add(suspectEvery))
	}
	return next
}

// frozen are the continents more than half of whose mirrors, and at least two, fell
// within a minute and are down still.
func (p *Prober) frozen(now time.Time) map[locate.Continent]bool {
	var fallen, counted [locate.SA + 1][]time.Time
	for i := range p.list.Len() {
		m := p.list.Mirror(i)
		s := p.machines[m.Name]
		if !s.known || m.Draining {
			continue
		}
		counted[m.Continent] = append(counted[m.Continent], now)
		if !s.up {
			fallen[m.Continent] = append(fallen[m.Continent], s.since)
		}
	}
	var frozen map[locate.Continent]bool
	for c := range fallen {
		times := fallen[c]
		slices.SortFunc(times, time.Time.Compare)
		many := len(counted[c])/2 + 1
		for i := 0; many >= 2 && i+many <= len(times); i++ {
			if times[i+many-1].Sub(times[i]) <= freezeWithin {
				if frozen == nil {
					frozen = map[locate.Continent]bool{}
				}
				frozen[locate.Continent(c)] = true
			}
		}
	}
	return frozen
}

// Run probes every mirror until ctx ends.
func (p *Prober) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	room := make(chan struct{}, probesAtOnce)
	last, next := map[string]time.Time{}, map[string]time.Time{} // when each was probed, and is to be
	for {
		now, wake := time.Now(), time.Now().Add(p.cfg.Interval)
		p.mu.Lock()
		list := p.list
		p.mu.Unlock()
		if err := p.readQuarantine(); err != nil {
			p.cfg.Logger.Error("the quarantined mirrors stay as they were", "error", err)
		}
		for i := range list.Len() {
			m := list.Mirror(i)
			if at := p.due(m.Name, last[m.Name], next[m.Name]); at.After(now) {
				wake = earlier(wake, at)
				continue
			}
			last[m.Name], next[m.Name] = now, now.Add(jittered(p.cfg.Interval))
			p.mu.Lock()
			if p.suspects[m.Name] > 0 {
				p.suspects[m.Name]--
			}
			p.mu.Unlock()
			wake = earlier(wake, p.due(m.Name, now, next[m.Name]))
			running.Go(func() {
				select {
				case room <- struct{}{}:
					defer func() { <-room }()
					p.ProbeNow(ctx, m)
				case <-ctx.Done():
				}
			})
		}
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-p.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// jittered is a time give or take a fifth: routers that start together do not ask
// together.
func jittered(d time.Duration) time.Duration {
	return d - d/5 + rand.N(2*d/5+1) //nolint:gosec // spreads work, keeps no secret
}

// ProbeNow asks a mirror of the list, and takes in what it answers.
func (p *Prober) ProbeNow(ctx context.Context, m *choice.Mirror) {
	start := time.Now()
	err := p.probe(ctx, m)
	if ctx.Err() != nil {
		return
	}
	p.metrics.probed(m.Name, time.Since(start), err)
	if wrong, ok := errors.AsType[wrongError](err); ok {
		p.WrongBytes(m.Name, wrong.Error())
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.machines[m.Name]
	if s == nil {
		return // it left the list
	}
	was, now := s.up, time.Now()
	if err == nil {
		delete(p.suspects, m.Name)
		s.success(now)
	} else {
		_, atOnce := errors.AsType[fatalError](err)
		s.failure(now, err.Error(), atOnce)
	}
	if s.up != was {
		level, reason := slog.LevelInfo, ""
		if !s.up {
			level, reason = slog.LevelWarn, s.reason
		}
		p.cfg.Logger.Log(ctx, level, "a mirror changed", "mirror", m.Name, "up", s.up, "reason", reason)
	}
}

// WrongBytes takes in that a mirror sent content that is not what it should be.
// The second time quarantines it.
func (p *Prober) WrongBytes(name, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.machines[name]
	if s == nil || !s.wrongBytes(time.Now(), reason) {
		return
	}
	p.cfg.Logger.Error("a mirror is quarantined until a person lifts it, with entrepot geo lift", "mirror", name, "reason", reason)
	if p.cfg.QuarantineFile == "" {
		return
	}
	err := changeQuarantine(p.cfg.QuarantineFile, func(all map[string]Quarantined) error {
		all[name] = Quarantined{Reason: reason, Since: s.isolation.UTC()}
		return nil
	})
	if s.filed = err == nil; !s.filed {
		p.cfg.Logger.Error("a quarantine could not be written: it ends with this process", "mirror", name, "error", err)
	}
}

// readQuarantine takes in what the file says, which a person may have changed.
func (p *Prober) readQuarantine() error {
	if p.cfg.QuarantineFile == "" {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all, err := ReadQuarantine(p.cfg.QuarantineFile)
	if err != nil {
		return err
	}
	for name, s := range p.machines {
		q, isolated := all[name]
		switch {
		case isolated:
			s.isolated, s.isolation, s.filed = cmp.Or(q.Reason, "the file says so"), q.Since, true
		case s.isolated != "" && s.filed: // what could not be written was not lifted
			s.isolated, s.wrong, s.filed = "", 0, false
			p.cfg.Logger.Warn("the quarantine of a mirror was lifted", "mirror", name)
		}
	}
	return nil
}

// Status is what is known of a mirror, for people.
type Status struct {
	Name        string
	Up          bool
	Since       time.Time // up or down
	Ramp        float64
	Failures    int    // since the start
	Flaps       int    // lately
	Reason      string // of the last failure
	Quarantined string // why; "" when it is not
}

// Status is what is known of each mirror, in the order of the list.
func (p *Prober) Status() []Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Status, 0, len(p.machines))
	now := time.Now()
	for i := range p.list.Len() {
		name := p.list.Mirror(i).Name
		s := p.machines[name]
		all = append(all, Status{
			Name: name, Up: s.up, Since: s.since, Ramp: s.ramp(now), Failures: s.failures, Flaps: s.flaps, Reason: s.reason, Quarantined: s.isolated,
		})
	}
	return all
}

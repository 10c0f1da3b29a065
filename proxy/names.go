package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"entrepot/proxy/upstream"

	lru "github.com/hashicorp/golang-lru/v2"
)

const (
	// checkTimeout bounds one check of a name with upstream.
	checkTimeout = 30 * time.Second
	// foregroundTimeout is how long a request waits for the check of a name
	// whose record is too old to answer at once, before it gets the record.
	foregroundTimeout = 5 * time.Second
	// retryPause is how long upstream is left alone after a failed check, when
	// it does not say itself.
	retryPause = 5 * time.Second
)

// nameKey identifies a name: never less than upstream, repository and
// reference, so that nothing leaks between them.
type nameKey struct {
	up   *upstreamState
	repo string
	ref  string
}

// clone detaches the key from the request it was cut out of.
func (k nameKey) clone() nameKey {
	k.repo, k.ref = strings.Clone(k.repo), strings.Clone(k.ref)
	return k
}

// names answers one kind of name from the last check with upstream, and checks
// again when the policy says so, one check a name at a time. V is what a name
// leads to; it is immutable.
type names[V any] struct {
	entries *lru.Cache[nameKey, *nameEntry[V]]
	// load gives a name's record from the store; ok is false without one. After an error
	// it is asked again.
	load func(key nameKey) (v V, checked time.Time, ok bool, err error)
	// save keeps a record. It reports trouble itself: an answer does not
	// depend on it. changed says that v is not
	// what the record held.
	save func(key nameKey, v V, checked time.Time, changed bool)
	// rule is the policy for a value of which upstream says itself how long it
	// holds; nil means the policy as it is.
	rule func(key nameKey, v V, policy *Policy) Policy
	// settled, when set, is told of each value that a check found, once it is
	// what the name leads to.
	settled func(key nameKey, v V)
	// equal compares two values.
	equal func(a, b V) bool
	// drop forgets a record, touch notes that it is in use.
	drop, touch func(key nameKey)
	// check asks upstream. old is the known value, when there is one.
	check func(ctx context.Context, key nameKey, old V, known, head bool) (V, error)
	// spawn runs a check in a goroutine that the node waits for.
	spawn func(func(context.Context)) bool
}

func newNames[V any](size int) *names[V] {
	entries, err := lru.New[nameKey, *nameEntry[V]](size)
	if err != nil {
		panic("proxy: " + err.Error()) // size is a positive constant
	}
	return &names[V]{entries: entries}
}

// nameEntry is what is known about one name.
type nameEntry[V any] struct {
	mu       sync.Mutex
	loaded   bool // the store was asked
	known    bool // value holds
	value    V
	checked  time.Time
	touched  time.Time // when its record was last noted to be in use
	failure  string    // why the last check failed, "" when it did not
	notUntil time.Time // no check before
	refusal  error     // upstream's clear no, which holds until notUntil
	running  *check[V] // the check in progress
	expiries int       // how often expire was called
}

// check is one question to upstream that several requests wait for.
type check[V any] struct {
	done  chan struct{}
	value V // set, as err is, before done is closed
	err   error
}

// answer is a name's value and how it was come by.
type answer[V any] struct {
	value     V
	age       time.Duration // since the last check
	fresh     bool
	asked     bool   // this request waited for upstream
	collapsed bool   // the question was another request's
	failure   string // why the value could not be checked
}

// get answers a name. head says that the client does not need a body, which
// check may use to ask less of upstream.
func (n *names[V]) get(ctx context.Context, key nameKey, policy *Policy, head bool) (answer[V], error) {
	e, ok := n.entries.Get(key)
	if !ok {
		e = n.entry(key.clone())
	}
	now := time.Now()
	e.mu.Lock()
	if err := n.loadEntry(key, e); err != nil {
		e.mu.Unlock()
		return answer[V]{}, err
	}
	if e.known && now.Sub(e.touched) > touchInterval {
		e.touched = now
		n.touchSoon(key.clone())
	}
	act := checkOnly
	if e.known {
		act = n.decide(key, e.value, policy, now.Sub(e.checked))
	}
	if act == serve {
		a := answer[V]{value: e.value, age: now.Sub(e.checked), fresh: true}
		e.mu.Unlock()
		return a, nil
	}
	if now.Before(e.notUntil) {
		defer e.mu.Unlock()
		if e.refusal != nil {
			return answer[V]{}, e.refusal
		}
		if act != checkOnly {
			return answer[V]{value: e.value, age: now.Sub(e.checked), failure: e.failure}, nil
		}
	}
	stale := answer[V]{value: e.value, failure: e.failure}
	checked := e.checked
	c := e.running
	collapsed := c != nil
	if c == nil {
		c = n.start(ctx, key, e, policy, head)
	}
	e.mu.Unlock()

	switch act {
	case serveAndCheck:
		stale.age = now.Sub(checked)
		if stale.failure == "" {
			stale.failure = "revalidating"
		}
		return stale, nil
	case checkThenServe:
		timer := time.NewTimer(foregroundTimeout)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
			stale.age, stale.failure = time.Since(checked), "upstream-slow"
			return stale, nil
		case <-ctx.Done():
			return answer[V]{}, ctx.Err()
		}
	default:
		select {
		case <-c.done:
		case <-ctx.Done():
			return answer[V]{}, ctx.Err()
		}
	}
	return n.checked(e, c, collapsed, act)
}

// touchSoon notes that a name's record is in use, and keeps nobody waiting.
func (n *names[V]) touchSoon(key nameKey) { n.spawn(func(context.Context) { n.touch(key) }) }

func (n *names[V]) decide(key nameKey, v V, policy *Policy, age time.Duration) action {
	if n.rule == nil {
		return policy.decide(age)
	}
	rule := n.rule(key, v, policy)
	return rule.decide(age)
}

// peek is what a name is known to lead to, however long ago.
func (n *names[V]) peek(key nameKey) (v V, known bool) {
	e, ok := n.entries.Get(key)
	if !ok {
		e = n.entry(key.clone())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.loadEntry(key, e) != nil {
		return v, false
	}
	return e.value, e.known
}

// put sets what a name leads to, as if a check had found it now.
func (n *names[V]) put(key nameKey, v V) {
	e, ok := n.entries.Get(key)
	if !ok {
		e = n.entry(key.clone())
	}
	now := time.Now()
	e.mu.Lock()
	e.loaded, e.known, e.value, e.checked = true, true, v, now
	e.failure, e.refusal, e.notUntil = "", nil, time.Time{}
	e.mu.Unlock()
	n.save(key, v, now, true)
}

// change replaces a value, if the name still leads to it; ok false makes the
// name unknown. With a failure, the new value is an older one, last checked at a
// time, which counts again because of that: no check is made for a moment, and
// the record stays as it is.
func (n *names[V]) change(key nameKey, is func(V) bool, v V, ok bool, checked time.Time, failure error) {
	e, found := n.entries.Peek(key)
	if !found {
		return
	}
	e.mu.Lock()
	if !e.known || !is(e.value) {
		e.mu.Unlock()
		return
	}
	e.value, e.known = v, ok
	if failure != nil && ok {
		e.checked, e.failure, e.notUntil = checked, failureToken(failure), time.Now().Add(retryPause)
	}
	checked = e.checked
	e.mu.Unlock()
	switch {
	case failure != nil:
	case ok:
		n.save(key, v, checked, true)
	default:
		n.drop(key)
	}
}

// checked is the answer after a check has ended.
func (n *names[V]) checked(e *nameEntry[V], c *check[V], collapsed bool, act action) (answer[V], error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := answer[V]{value: e.value, age: time.Since(e.checked), asked: true, collapsed: collapsed}
	switch {
	case c.err == nil:
		a.value, a.age, a.fresh = c.value, 0, true // which may be another's by now
		return a, nil
	case e.known && act == checkThenServe:
		a.failure = e.failure
		return a, nil
	default:
		return answer[V]{}, c.err
	}
}

// start begins a check, for whom asks counts. Call with e.mu held.
func (n *names[V]) start(asks context.Context, key nameKey, e *nameEntry[V], policy *Policy, head bool) *check[V] {
	key = key.clone()
	c := &check[V]{done: make(chan struct{})}
	e.running = c
	old, known, expiries := e.value, e.known, e.expiries
	ok := n.spawn(func(base context.Context) {
		ctx, cancel := context.WithTimeout(carry(base, asks), checkTimeout)
		defer cancel()
		v, err := n.check(ctx, key, old, known, head)
		n.settle(key, e, c, policy, v, err, err == nil && known && n.equal(old, v))
		if n.overtaken(e, expiries) {
			n.expire(key, policy)
		}
	})
	if !ok {
		e.running = nil
		c.err = errClosing
		close(c.done)
	}
	return c
}

// settle takes in what a check found.
func (n *names[V]) settle(key nameKey, e *nameEntry[V], c *check[V], policy *Policy, v V, err error, same bool) {
	now := time.Now()
	switch {
	case err == nil:
		n.save(key, v, now, !same)
	case isRefusal(err):
		n.drop(key)
	}
	if n.settled != nil && err == nil {
		defer n.settled(key, v) // after e is unlocked
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running = nil
	e.refusal, e.failure = nil, ""
	switch {
	case err == nil:
		e.value, e.known, e.checked, e.notUntil = v, true, now, time.Time{}
	case isRefusal(err):
		var none V
		e.value, e.known = none, false
		e.refusal, e.notUntil = err, now.Add(policy.NegativeTTL)
	default:
		e.failure = failureToken(err)
		if e.known {
			e.notUntil = now.Add(max(retryPause, retryAfter(err)))
		}
	}
	c.value, c.err = v, err
	close(c.done)
}

// expire has the next request for a name wait for upstream, as if the record
// were long out of date; where upstream cannot be asked it still gets it.
func (n *names[V]) expire(key nameKey, policy *Policy) {
	e, ok := n.entries.Get(key)
	if !ok {
		e = n.entry(key.clone())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if n.loadEntry(key, e) != nil {
		return // who asks is told
	}
	e.expiries++
	e.notUntil, e.refusal = time.Time{}, nil
	past := policy.StaleWhileRevalidate
	if policy.MaxStale > 0 {
		past = min(past, policy.MaxStale-time.Second) // not so old that it is useless
	}
	if old := time.Now().Add(-policy.TTL - past); e.known && e.checked.After(old) {
		e.checked = old
		n.save(key, e.value, old, true)
	}
}

// overtaken reports that a name was expired since it was so many times.
func (n *names[V]) overtaken(e *nameEntry[V], expiries int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.expiries != expiries
}

func (n *names[V]) entry(key nameKey) *nameEntry[V] {
	e := new(nameEntry[V])
	if previous, ok, _ := n.entries.PeekOrAdd(key, e); ok {
		return previous
	}
	return e
}

// loadEntry takes a name from its record, unless that was done. Call with e.mu held.
func (n *names[V]) loadEntry(key nameKey, e *nameEntry[V]) error {
	if e.loaded {
		return nil
	}
	v, checked, ok, err := n.load(key)
	if err != nil {
		return err
	}
	e.loaded = true
	if ok {
		e.value, e.checked, e.known, e.touched = v, checked, true, time.Now()
	}
	return nil
}

// isRefusal reports whether upstream clearly said no: what is cached must not
// be served instead.
func isRefusal(err error) bool {
	var ue *upstream.Error
	return errors.As(err, &ue) && (ue.Kind == upstream.NotFound || ue.Kind == upstream.Denied)
}

// failureToken is the detail of Cache-Status for an answer that could not be
// checked.
func failureToken(err error) string {
	var ue *upstream.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "upstream-slow"
	case isBusy(err):
		return "node-busy"
	case !errors.As(err, &ue):
		return "upstream-error"
	case ue.Kind == upstream.RateLimited:
		return "upstream-rate-limited"
	case ue.Kind == upstream.Unavailable && ue.Timeout:
		return "upstream-slow"
	case ue.Kind == upstream.Unavailable:
		return "upstream-down"
	default:
		return "upstream-error"
	}
}

// recordKey is where a name's record lies in the store.
func (k nameKey) recordKey(kind string) string {
	return fmt.Sprintf("%s/%s/%s/%s", kind, k.up.name, k.repo, k.ref)
}

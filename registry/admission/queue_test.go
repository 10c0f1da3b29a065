package admission

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// by is a context that counts for the client at an address.
func by(t testing.TB, address string) context.Context {
	t.Helper()
	party := &Party{clients: []Client{ClientOf(netip.MustParseAddr(address))}}
	return party.Context(t.Context())
}

// take acquires a place that is there at once.
func take(ctx context.Context, t *testing.T, q *Queue) (release func()) {
	t.Helper()
	got := make(chan func(), 1)
	go func() {
		release, err := q.Acquire(ctx)
		if err != nil {
			t.Error(err)
		}
		got <- release
	}()
	synctest.Wait()
	select {
	case release := <-got:
		return release
	default:
		t.Fatal("no place was free")
		return nil
	}
}

// want begins to wait for a place. What it returns says whether it has one.
func want(ctx context.Context, t *testing.T, q *Queue) (served func() bool, release func()) {
	t.Helper()
	got := make(chan func(), 1)
	go func() {
		if release, err := q.Acquire(ctx); err == nil {
			got <- release
		}
		close(got)
	}()
	synctest.Wait()
	return func() bool { synctest.Wait(); return len(got) == 1 }, func() { (<-got)() }
}

func TestAClientWithAThousandWishesDelaysAnotherByOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{What: "places", Places: 2})
		greedy, modest := by(t, "127.0.0.2"), by(t, "127.0.0.3")
		first, second := take(greedy, t, q), take(greedy, t, q)
		ctx, giveUp := context.WithCancel(greedy)
		var waiting sync.WaitGroup
		for range 1000 {
			waiting.Go(func() {
				if release, err := q.Acquire(ctx); err == nil {
					<-ctx.Done()
					release()
				}
			})
		}
		synctest.Wait()
		served, release := want(modest, t, q)
		first()
		second()
		if !served() {
			t.Error("two places became free, and the client that wanted one has none")
		}
		release()
		giveUp()
		waiting.Wait()
		isEmpty(t, q)
	})
}

func TestEachClientLeavesAQuarterOfWhatItFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{What: "places", Places: 256})
		var held []func()
		fill := func(address string) (n int) {
			for {
				served, release := want(by(t, address), t, q)
				if !served() {
					return n
				}
				n++
				held = append(held, release)
			}
		}
		if n := fill("127.0.0.2"); n != 192 {
			t.Errorf("one client took %d of 256 places, want 192", n)
		}
		// A second one takes three quarters of what the first one left.
		if n := fill("127.0.0.3"); n != 48 {
			t.Errorf("the second took %d of the 64 left, want 48", n)
		}
		if n := fill("127.0.0.4"); n != 12 {
			t.Errorf("the third took %d of the 16 left, want 12", n)
		}
		// Who waits is served as places become free.
		for len(held) > 0 {
			held[0]()
			held = held[1:]
		}
	})
}

func TestWorkThatAnotherClientBeganWaitsInTheLineOfWhoeverJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{What: "places", Places: 1})
		greedy, modest := by(t, "127.0.0.2"), by(t, "127.0.0.3")
		release := take(greedy, t, q)
		var before []func() bool
		var ends []func()
		for range 10 {
			served, end := want(greedy, t, q)
			before, ends = append(before, served), append(ends, end)
		}
		party := NewParty(greedy)
		served, end := want(party.Context(t.Context()), t, q)
		party.Join(modest)
		release() // the greedy client's turn comes first
		if before[0]() {
			ends[0]()
		} else if !served() {
			t.Fatal("nobody was served")
		}
		if !served() {
			t.Error("the work waits behind all that the other client wants")
		}
		end()
		for _, end := range ends[1:] {
			end()
		}
		isEmpty(t, q)
	})
}

func TestTheWaitingRoomIsSharedAndItsEndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{What: "downloads", Places: 1, Waiting: 4})
		release := take(by(t, "127.0.0.2"), t, q)
		ctx, cancel := context.WithCancel(by(t, "127.0.0.2"))
		for range 3 {
			want(ctx, t, q)
		}
		refused := func(address string) *Busy {
			_, err := q.Acquire(by(t, address))
			var busy *Busy
			if !errors.As(err, &busy) || busy.RetryAfter <= 0 {
				t.Fatalf("got %v, want Busy with a time to retry", err)
			}
			return busy
		}
		if !refused("127.0.0.2").Share {
			t.Error("the client that fills the waiting room is not told that it is its own share")
		}
		other, cancelOther := context.WithCancel(by(t, "127.0.0.3"))
		want(other, t, q)
		if refused("127.0.0.4").Share {
			t.Error("a client that has nothing is told that it is over its share")
		}
		if s := q.Stats(); s.Waiting != 4 || s.Taken != 1 || s.RefusedShare != 1 || s.RefusedFull != 1 {
			t.Errorf("%+v", s)
		}
		cancel()
		cancelOther()
		synctest.Wait()
		release()
		isEmpty(t, q)
	})
}

func TestPatienceEndsButNotOfWorkThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{What: "downloads", Places: 1, Patience: 20 * time.Second})
		release := take(by(t, "127.0.0.2"), t, q)
		served, end := want(Patiently(by(t, "127.0.0.3")), t, q)
		start := time.Now()
		_, err := q.Acquire(by(t, "127.0.0.3"))
		var busy *Busy
		if !errors.As(err, &busy) || busy.Waited != 20*time.Second || time.Since(start) != 20*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		if q.Stats().RefusedLate != 1 {
			t.Errorf("%+v", q.Stats())
		}
		release()
		if !served() {
			t.Error("work that has begun was refused")
		}
		end()
		isEmpty(t, q)
	})
}

// isEmpty checks that a queue whose places are all free remembers nobody.
func isEmpty(t *testing.T, q *Queue) {
	t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serve()
	if q.free != q.cfg.Places || q.waiting != 0 || len(q.lines) != 0 || len(q.turns) != 0 {
		t.Errorf("%d of %d places are free, %d wait, %d lines and %d turns remain", q.free, q.cfg.Places, q.waiting, len(q.lines), len(q.turns))
	}
}

func TestNothingRemainsOfManyWhoComeJoinAndGiveUp(t *testing.T) {
	q := NewQueue(QueueConfig{What: "places", Places: 3, Waiting: 50, Patience: 5 * time.Millisecond})
	var running sync.WaitGroup
	for worker := range 40 {
		running.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithTimeout(by(t, fmt.Sprintf("127.0.0.%d", worker%7+1)), time.Duration(rand.IntN(int(4*time.Millisecond))))
				party := NewParty(ctx)
				if i%3 == 0 {
					go party.Join(by(t, "127.0.0.99"))
				}
				if release, err := q.Acquire(party.Context(ctx)); err == nil {
					if taken := q.Stats().Taken; taken > 3 {
						t.Errorf("%d of 3 places are taken", taken)
					}
					release()
				}
				cancel()
			}
		})
	}
	running.Wait()
	isEmpty(t, q)
}

func TestALineForgetsWhoGaveUpBehindOneWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue(QueueConfig{What: "places", Places: 1})
		client := by(t, "127.0.0.2")
		release := take(client, t, q)
		_, end := want(client, t, q)
		for range 1000 {
			ctx, cancel := context.WithCancel(client)
			want(ctx, t, q)
			cancel()
		}
		synctest.Wait()
		q.mu.Lock()
		if n := len(q.turns[0].waiters); n > 2*manyOver {
			t.Errorf("%d waiters are remembered, of whom one waits", n)
		}
		q.mu.Unlock()
		release()
		end()
	})
}

func TestAClientIsAnIPv4AddressOrANetworkOfIPv6(t *testing.T) {
	of := func(address string) Client { return ClientOf(netip.MustParseAddr(address)) }
	if of("192.0.2.1") == of("192.0.2.2") || of("::ffff:192.0.2.1") != of("192.0.2.1") {
		t.Error("IPv4 addresses are not told apart, or differ from themselves")
	}
	if of("2001:db8:0:1::1") != of("2001:db8:0:1:ffff::2") || of("2001:db8:0:1::1") == of("2001:db8:0:2::1") {
		t.Error("IPv6 is not told apart by its first 64 bits")
	}
	if of("fe80::1%eth0") != of("fe80::2") {
		t.Error("zones tell clients apart")
	}
	if got := of("2001:db8:0:1::5").String() + " " + of("192.0.2.1").String() + " " + (Client{}).String(); got != "2001:db8:0:1::/64 192.0.2.1 nobody" {
		t.Error(got)
	}
}

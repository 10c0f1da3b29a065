package filestore

import (
	"fmt"
	"sync"
	"testing"
)

func TestLocksKeepApartWhatLiesAboveAndBelowAndLeaveNothing(t *testing.T) {
	l := locks{held: map[Path]*lock{}}
	var shared struct {
		sync.Mutex
		file, below int // who hold a/b, and names below it
	}
	enter := func(p Path, add int) {
		shared.Lock()
		defer shared.Unlock()
		if p == "a/b" {
			shared.file += add
		} else {
			shared.below += add
		}
		if shared.file > 1 || shared.file > 0 && shared.below > 0 {
			t.Errorf("%d write the file while %d write below it", shared.file, shared.below)
		}
	}
	var all sync.WaitGroup
	for i := range 16 {
		p := Path("a/b")
		if i%4 != 0 {
			p = Path(fmt.Sprintf("a/b/%d/c", i%3))
		}
		all.Go(func() {
			for range 200 {
				unlock := l.write(p)
				enter(p, 1)
				enter(p, -1)
				unlock()
				l.read(p)()
			}
		})
	}
	all.Wait()
	if len(l.held) > 0 {
		t.Errorf("%d locks are kept", len(l.held))
	}
}

package filestore

import (
	"strings"
	"sync"
)

// locks are held on names, each apart, and kept only while they are in use. Who
// writes a name holds it alone, and the folders that it lies in together with
// others, so that none of them becomes a file meanwhile.
type locks struct {
	mu   sync.Mutex
	held map[Path]*lock
}

type lock struct {
	sync.RWMutex
	path  Path
	users int // who hold it or wait for it; guarded by locks.mu
}

func (l *locks) take(p Path) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[p]
	if k == nil {
		k = &lock{path: Path(strings.Clone(string(p)))}
		l.held[k.path] = k
	}
	k.users++
	return k
}

func (l *locks) give(k *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.users--; k.users == 0 {
		delete(l.held, k.path)
	}
}

// write waits until nobody else writes or reads p, or writes what lies above
// or below it. Folders are taken before what is in them, so that nobody waits
// in a circle.
func (l *locks) write(p Path) (unlock func()) {
	var folders []*lock
	for i := range len(p) {
		if p[i] == '/' {
			folder := l.take(p[:i])
			folder.RLock()
			folders = append(folders, folder)
		}
	}
	own := l.take(p)
	own.Lock()
	return func() {
		own.Unlock()
		l.give(own)
		for _, folder := range folders {
			folder.RUnlock()
			l.give(folder)
		}
	}
}

// read waits until nobody writes p.
func (l *locks) read(p Path) (unlock func()) {
	own := l.take(p)
	own.RLock()
	return func() {
		own.RUnlock()
		l.give(own)
	}
}

package blobstore

import (
	"fmt"
	"hash"
	"io"
	"sync"
	"sync/atomic"
)

// hashAhead hashes a partial from its file, while the partial is written: on
// another processor, so that a download goes on at the speed of the slower of
// writing and hashing and not of their sum. Reading the bytes back from the
// page cache costs a fifth of hashing them.
type hashAhead struct {
	running atomic.Bool // a goroutine hashes
	stop    atomic.Bool // it is to end
	done    sync.WaitGroup

	mu     sync.Mutex // guards what follows, and the partial's file while it is read
	hash   hash.Hash
	hashed atomic.Int64 // bytes of the file, from its start, that hash has taken in
}

// hashBacklog is how many bytes wait to be hashed before a goroutine is
// started for them.
const hashBacklog = 128 << 10

// startHashing has what is written hashed, if it is much.
func (p *Partial) startHashing() {
	if p.Size()-p.ahead.hashed.Load() < hashBacklog || !p.ahead.running.CompareAndSwap(false, true) {
		return
	}
	p.ahead.done.Go(func() {
		defer p.ahead.running.Store(false)
		for !p.ahead.stop.Load() {
			// An error shows again when Verify reads the same bytes.
			if n, err := p.hashSome(hashBacklog); n == 0 || err != nil {
				return
			}
		}
	})
}

// stopHashing ends it, whatever is left.
func (p *Partial) stopHashing() {
	p.ahead.stop.Store(true)
	p.ahead.done.Wait()
}

// hashRest hashes all that is written.
func (p *Partial) hashRest() error {
	for {
		if n, err := p.hashSome(1); n == 0 || err != nil {
			return err
		}
	}
}

// hashSome hashes a buffer of bytes, if at least backlog bytes wait. As many
// partials hash at once as there are processors: more would only hold buffers.
func (p *Partial) hashSome(backlog int64) (int, error) {
	p.dir.hashing <- struct{}{}
	defer func() { <-p.dir.hashing }()
	p.ahead.mu.Lock()
	defer p.ahead.mu.Unlock()
	waiting := p.Size() - p.ahead.hashed.Load()
	if waiting < backlog {
		return 0, nil
	}
	buffer := p.dir.buffer()
	defer p.dir.buffers.Put(buffer)
	n, err := p.file.ReadAt((*buffer)[:min(waiting, copyBuffer)], p.ahead.hashed.Load())
	p.ahead.hash.Write((*buffer)[:n])
	p.ahead.hashed.Add(int64(n))
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // somebody truncated the file
	}
	if err != nil {
		return n, fmt.Errorf("reading it back at %d: %w", p.ahead.hashed.Load(), err)
	}
	return n, nil
}

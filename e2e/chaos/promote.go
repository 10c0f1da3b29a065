package main

import (
	"bytes"
	"errors"
	"os/exec"
	"time"
)

// promotionTakes is about how long a promotion is at work.
const promotionTakes = 250 * time.Millisecond

// promotionTimeout is for how long a promotion may run.
const promotionTimeout = 60 * time.Second

func (w *world) promote(e event) (func(), bool) {
	ok := w.startPromotion(promotionTimeout, func(error) { w.bit(e.fault, 1) })
	return nil, ok
}

func (w *world) promoteKilled(e event) (func(), bool) {
	after := time.Duration(e.choice % uint64(promotionTakes))
	ok := w.startPromotion(after, func(err error) {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() < 0 { // by a signal
			w.bit(e.fault, 1)
		}
	})
	return nil, ok
}

// startPromotion promotes the next release, unless another one is on its way or
// there is none, and kills that after some time. What did not end well is for the
// next to finish, which has all of it. ended is told what came of it.
func (w *world) startPromotion(killAfter time.Duration, ended func(error)) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || w.next == len(w.releases) {
		return false
	}
	n := w.next
	cmd := w.PromoteCommand(w.releases[n])
	items := w.releaseItems(n) // of staging, which nothing happens to
	w.busy = true
	w.next++
	w.promoting.Go(func() {
		err := runFor(cmd, killAfter)
		ended(err)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.busy = false
		if err != nil {
			w.tally.add(killed, 1)
			w.owed = append(w.owed, items...)
			return
		}
		w.tally.add(promotions, 1)
		w.owed = append(w.owed, items...)
		w.acked = append(w.acked, w.owed...)
		w.owed = nil
	})
	return true
}

// runFor runs a command, and kills it after some time.
func runFor(cmd *exec.Cmd, limit time.Duration) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() }) // it may be gone
	defer timer.Stop()
	return cmd.Wait()
}

// settlePromotions waits for what runs, and promotes the last release once more,
// now that all is well: it has to finish whatever was killed. The ledger has to be
// sound.
func (w *world) settlePromotions() {
	w.promoting.Wait()
	last := w.PromoteCommand(w.releases[w.next-1])
	said, err := last.CombinedOutput()
	if err != nil {
		w.t.Errorf("promoting once more: %v\n%s", err, said)
	}
	said, err = w.command("ledger", "verify", "--ledger", w.Ledger, "--key", w.Key+".pub").CombinedOutput()
	if err != nil {
		w.tally.add(lostNames, 1)
		w.t.Errorf("the ledger is not sound: %v\n%s", err, said)
	}
	for n := range w.next {
		w.catalog.add(w.releaseItems(n)...)
	}
}

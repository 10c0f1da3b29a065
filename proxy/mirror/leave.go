package mirror

import (
	"context"
	"errors"
	"fmt"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// leave finds what is held and nothing selected needs, and removes it unless the run is
// dry.
func (s *syncing) leave(ctx context.Context) error {
	records, err := s.unwanted(ctx)
	if err != nil {
		return err
	}
	needed := s.needed(ctx)
	if !s.opts.DryRun {
		for _, key := range records {
			if err := s.cfg.Store.DeleteRecord(ctx, key); err != nil {
				return err
			}
		}
	}
	var failed []error
	for _, info := range s.contents.held() {
		if needed[info.Digest] {
			continue
		}
		s.progress.Leaving++
		s.progress.LeavingBytes += info.Size
		if s.opts.DryRun {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.contents.drop(ctx, info.Digest); err != nil {
			failed = append(failed, fmt.Errorf("removing %s: %w", info.Digest, err))
			continue
		}
		s.progress.Removed++
	}
	return errors.Join(failed...)
}

// unwanted are the records of images that are selected no longer.
func (s *syncing) unwanted(ctx context.Context) (keys []string, err error) {
	for key, err := range s.cfg.Store.RecordKeys(ctx, imageRecords) {
		if err != nil {
			return nil, fmt.Errorf("listing what is held: %w", err)
		}
		if r, ok := rootOfKey(key); ok && s.roots[r] == nil {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// needed is all that what is selected consists of, as far as it is here.
func (s *syncing) needed(ctx context.Context) map[digest.Digest]bool {
	needed := make(map[digest.Digest]bool, len(s.roots))
	for r := range s.roots {
		needed[r.digest] = true
		if r.kind == ledger.File {
			continue
		}
		var held image
		if s.readRecord(ctx, r.key(), &held) != nil {
			continue // nothing of it was fetched yet
		}
		for _, d := range held.Below {
			needed[d] = true
		}
	}
	return needed
}

package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// RepairDir checks the store in a directory, which no process has open
// meanwhile, does about each finding what it says, and tells done how that
// went. What may be worth something is not removed but moved to quarantine/,
// which here has no bound. Errors: those of [CheckDir]; and when a process has
// the store open, which cleans up by itself.
func RepairDir(ctx context.Context, path string, cfg CheckConfig, done func(Finding, error)) (*CheckReport, error) {
	report, err := repairDir(ctx, path, cfg, done)
	if err != nil {
		return nil, fmt.Errorf("repairing store %s: %w", path, err)
	}
	return report, nil
}

func repairDir(ctx context.Context, path string, cfg CheckConfig, done func(Finding, error)) (*CheckReport, error) {
	if err := looksLikeStore(path); err != nil {
		return nil, err
	}
	if _, err := readFormat(path); err != nil && !errors.Is(err, errNoFormat) {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(path, "lock"))
	if err != nil {
		return nil, err
	}
	defer lock.Close() // which frees it
	report, err := checkDir(ctx, path, cfg, true)
	if err != nil {
		return nil, err
	}
	r := repairer{root: path, aside: quarantineFor(path)}
	for _, f := range report.Findings {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		done(f, r.repair(&f))
	}
	return report, nil
}

// quarantineFor is the quarantine of a store that is not open here. A person
// looks on: nothing is removed from it.
func quarantineFor(path string) *quarantine {
	return &quarantine{path: quarantineDir(path), limit: -1, log: slog.New(slog.DiscardHandler), now: time.Now}
}

// repairer does what findings say, in a store whose lock is held.
type repairer struct {
	root  string
	aside *quarantine
}

func (r *repairer) repair(f *Finding) error {
	path := filepath.Join(r.root, f.Path)
	switch f.Repair {
	case ActionRemove:
		// An empty directory or one file; nothing is removed with what is in it.
		return os.Remove(path)
	case ActionMark:
		return r.mark()
	case ActionQuarantine:
		return r.putAside(f.Path, path)
	default:
		return fmt.Errorf("nothing is known to do about it: %q", f.Repair)
	}
}

func (r *repairer) putAside(name, path string) error {
	if d, ok := digestOfPath(name); ok {
		name = quarantineName(d.String())
	}
	if _, err := r.aside.take(path, name); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(path)) // an empty directory is no harm
	return nil
}

func (r *repairer) mark() error {
	spool := filepath.Join(r.root, "spool")
	if err := os.Mkdir(spool, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	file, err := os.CreateTemp(spool, tempPattern)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, storeFormat)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = renameDurable(file.Name(), formatFile(r.root))
	}
	if err != nil {
		_ = os.Remove(file.Name()) // the next open removes what is left
	}
	return err
}

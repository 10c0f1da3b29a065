package blobstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// CheckConfig says what [CheckDir] looks at.
type CheckConfig struct {
	// Deep has every blob read, and its digest compared.
	Deep bool
	// Rate bounds the bytes that Deep reads in a second; 0 is no bound.
	Rate int64
	// Record says whether a value can be one of its key; nil takes any.
	Record func(key string, value []byte) error
}

// FindingKind is what is wrong with something in a store.
type FindingKind string

// The kinds of findings.
const (
	FoundMisplaced  FindingKind = "misplaced"  // it lies where the store would not put it
	FoundEmpty      FindingKind = "empty"      // the directory of a blob that is not there
	FoundOrphan     FindingKind = "orphan"     // a temporary file that nobody writes
	FoundTruncated  FindingKind = "truncated"  // nothing under the digest of something
	FoundRotten     FindingKind = "rotten"     // the bytes do not have their digest
	FoundUnreadable FindingKind = "unreadable" // the disk does not give it
	FoundRecord     FindingKind = "record"     // its value cannot be one of its key
	FoundFormat     FindingKind = "format"     // the mark of the format is lost
	FoundState      FindingKind = "state"      // how far scrubbing is, is lost
)

// RepairAction is what [RepairDir] does about a finding.
type RepairAction string

// The actions.
const (
	ActionRemove     RepairAction = "remove"     // it is worth nothing
	ActionQuarantine RepairAction = "quarantine" // it is moved to quarantine/
	ActionMark       RepairAction = "mark"       // the store is marked anew
)

// Finding is something that is wrong with a store.
type Finding struct {
	Kind   FindingKind  `json:"kind"`
	Path   string       `json:"path"` // below the store
	Detail string       `json:"detail"`
	Repair RepairAction `json:"repair"`
}

// CheckReport is what [CheckDir] found. Sizes are in bytes.
type CheckReport struct {
	Store           string    `json:"store"`
	Format          int       `json:"format"`
	InUse           bool      `json:"in_use"` // another process has it open
	Deep            bool      `json:"deep"`   // contents were read
	Blobs           int       `json:"blobs"`
	Bytes           int64     `json:"bytes"`
	Records         int       `json:"records"`
	Partials        int       `json:"partials"`
	PartialBytes    int64     `json:"partial_bytes"`
	Quarantined     int       `json:"quarantined"`
	QuarantineBytes int64     `json:"quarantine_bytes"`
	Findings        []Finding `json:"findings"`
}

// CheckDir looks at the store in a directory, and changes nothing. A process
// may have it open: what is only passing through is then not reported. What
// lies beside the store's own files is not looked at: an origin has the store
// of its files there. Errors: ErrFormat for a store of a newer entrepot, and of
// reading directories.
func CheckDir(ctx context.Context, path string, cfg CheckConfig) (*CheckReport, error) {
	report, err := checkDir(ctx, path, cfg, false)
	if err != nil {
		return nil, fmt.Errorf("checking store %s: %w", path, err)
	}
	return report, nil
}

func checkDir(ctx context.Context, path string, cfg CheckConfig, locked bool) (*CheckReport, error) {
	if err := looksLikeStore(path); err != nil {
		return nil, err
	}
	c := &checker{root: path, cfg: cfg, report: &CheckReport{Store: path, Deep: cfg.Deep, Findings: []Finding{}}}
	if cfg.Deep {
		reader, err := newScrubReader(cfg.Rate, func(int) {})
		if err != nil {
			return nil, err
		}
		defer reader.close()
		c.reader = reader
	}
	before := !locked && inUse(path)
	for _, check := range []func(context.Context) error{c.format, c.blobs, c.records, c.spool, c.beside} {
		if err := check(ctx); err != nil {
			return nil, err
		}
	}
	// A process that came meanwhile cleans up, and has files of its own.
	if c.report.InUse = before || !locked && inUse(path); c.report.InUse {
		c.report.Findings = slices.DeleteFunc(c.report.Findings, func(f Finding) bool {
			return f.Kind == FoundOrphan || f.Kind == FoundEmpty
		})
	}
	return c.report, nil
}

// looksLikeStore keeps people from having the wrong directory repaired.
func looksLikeStore(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return errors.New("it is not a directory")
	}
	for _, name := range []string{"version", "blobs", "records", "spool"} {
		if _, err := os.Stat(filepath.Join(path, name)); err == nil {
			return nil
		}
	}
	return errors.New("it holds no store: neither version, blobs, records nor spool is there")
}

// inUse says whether a process has a store open.
func inUse(path string) bool {
	file, err := os.Open(filepath.Join(path, "lock"))
	if err != nil {
		return false
	}
	defer file.Close() // which frees the lock
	return unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// checker is one look at a store.
type checker struct {
	root   string
	cfg    CheckConfig
	report *CheckReport
	reader *scrubReader // nil unless contents are read
}

func (c *checker) found(kind FindingKind, path string, repair RepairAction, format string, args ...any) {
	c.report.Findings = append(c.report.Findings, Finding{Kind: kind, Path: path, Detail: fmt.Sprintf(format, args...), Repair: repair})
}

func (c *checker) misplaced(path, why string) {
	c.found(FoundMisplaced, path, ActionQuarantine, "%s", why)
}

// list lists a directory, which may be gone.
func (c *checker) list(path string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(filepath.Join(c.root, path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

func (c *checker) format(context.Context) (err error) {
	c.report.Format, err = readFormat(c.root)
	switch {
	case errors.Is(err, errNoFormat):
		c.found(FoundFormat, "version", ActionMark, "%v", err)
		return nil
	case err != nil:
		return err
	case c.report.Format == 0:
		c.found(FoundFormat, "version", ActionMark, "nothing says of what format the store is")
	}
	return nil
}

// spool looks at what is being written. A partial is as good as its name:
// whoever goes on with it hashes it.
func (c *checker) spool(context.Context) error {
	entries, err := c.list("spool")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := "spool/" + entry.Name()
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if _, ok := partialDigest(entry.Name()); !ok || !info.Mode().IsRegular() {
			c.found(FoundOrphan, path, ActionRemove, "nobody writes it any more: %d bytes", info.Size())
			continue
		}
		c.report.Partials++
		c.report.PartialBytes += info.Size()
	}
	return nil
}

// beside looks at the store's other files.
func (c *checker) beside(context.Context) error {
	text, err := os.ReadFile(scrubFile(c.root))
	if err == nil {
		_, err = parseScrubState(text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.found(FoundState, "scrub", ActionRemove, "%v", err)
	}
	q := quarantine{path: quarantineDir(c.root)}
	held, err := q.held()
	if err != nil {
		return err
	}
	for _, f := range held {
		c.report.Quarantined++
		c.report.QuarantineBytes += f.Size()
	}
	return nil
}

func (c *checker) records(ctx context.Context) error {
	root := filepath.Join(c.root, "records")
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil || entry.IsDir() {
			return err
		}
		c.record(strings.TrimPrefix(path, root+"/"), entry)
		return nil
	})
}

func (c *checker) record(path string, entry fs.DirEntry) {
	key, ok := recordKey(path)
	path = "records/" + path
	switch {
	case !ok:
		c.misplaced(path, "no record has this name")
		return
	case !entry.Type().IsRegular():
		c.misplaced(path, "it is not a file")
		return
	}
	c.report.Records++
	info, err := entry.Info()
	if errors.Is(err, fs.ErrNotExist) {
		c.report.Records-- // deleted meanwhile
		return
	}
	if err == nil && info.Size() > MaxRecordSize {
		c.found(FoundRecord, path, ActionQuarantine, "it has %d bytes, more than the %d a record may have", info.Size(), MaxRecordSize)
		return
	}
	if c.cfg.Record == nil {
		return
	}
	value, err := os.ReadFile(filepath.Join(c.root, path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		c.found(FoundUnreadable, path, ActionQuarantine, "%v", err)
	default:
		if err := c.cfg.Record(key, value); err != nil {
			c.found(FoundRecord, path, ActionQuarantine, "%v", err)
		}
	}
}

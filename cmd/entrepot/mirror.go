package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/mirror"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

func mirrorCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "mirror",
		Short: "Hold what others publish, all of it or a selection, and serve it",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("mirror needs a subcommand: init, sync, verify or status")
		},
	}
	group.AddCommand(mirrorInitCommand(), mirrorSyncCommand(), mirrorVerifyCommand(), mirrorStatusCommand())
	return group
}

// mirrorFlags are those of the commands about a mirror.
type mirrorFlags struct{ file, output string }

func (f *mirrorFlags) define(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "config", "entrepot.yaml", "configuration `FILE` of the node, with node.mirror")
	cmd.Flags().StringVar(&f.output, "output", "text", "text or json: a value a line, the last of which is the result")
}

func (f *mirrorFlags) check(*cobra.Command, []string) error {
	if f.output != "text" && f.output != "json" {
		return fmt.Errorf("--output %q is neither text nor json", f.output)
	}
	return nil
}

func mirrorSyncCommand() *cobra.Command {
	var f mirrorFlags
	var task mirrorTask
	cmd := &cobra.Command{
		Use:   "sync --config FILE",
		Short: "Fetch what is selected and not held, and remove what has left",
		Long: `Sync has a node hold what its ledgers have now, as node.mirror selects: it fetches
what is missing, and removes what was deleted, revoked, or is selected no longer. A
node that runs does so by itself; this asks it to do it now and shows how it goes on,
or does it in its place when it does not run. Interrupted at any point, it goes on
with what is missing. It keeps to node.mirror.bandwidth, and waits for a window of
node.mirror.windows unless --any-time is given.

The exit status is 1 when something could not be fetched; the rest is.`,
		Args:    cobra.NoArgs,
		PreRunE: f.check,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, &task)
		}),
	}
	f.define(cmd)
	cmd.Flags().BoolVar(&task.sync.DryRun, "dry-run", false, "say what would be fetched and removed, and do nothing")
	cmd.Flags().BoolVar(&task.sync.AnyTime, "any-time", false, "do not wait for a window")
	cmd.Flags().BoolVar(&task.sync.Recheck, "recheck", false, "look at everything, also for what was attached to images since they were fetched")
	return cmd
}

func mirrorVerifyCommand() *cobra.Command {
	var f mirrorFlags
	var rate string
	task := mirrorTask{verify: true}
	cmd := &cobra.Command{
		Use:   "verify --config FILE",
		Short: "Read every byte that is held, and compare it with the ledger",
		Long: `Verify reads everything that is selected from the disk and compares it with what the
ledger says, and names what is missing, wrong or unreadable. It changes nothing unless
--repair is given: then what is wrong is put aside and fetched again. A node that runs
serves on meanwhile. The exit status is 1 when anything was wrong and is still so.`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, args []string) error {
			var perSecond Rate
			if err := perSecond.UnmarshalText([]byte(rate)); err != nil {
				return fmt.Errorf("--rate %q %w", rate, err)
			}
			task.rate = int64(perSecond)
			return f.check(cmd, args)
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, &task)
		}),
	}
	f.define(cmd)
	cmd.Flags().BoolVar(&task.repair, "repair", false, "fetch again what is missing or wrong")
	cmd.Flags().StringVar(&rate, "rate", "0", "read at most so many bytes a second, such as 50MB/s; 0 is as fast as can be")
	return cmd
}

func mirrorStatusCommand() *cobra.Command {
	var f mirrorFlags
	cmd := &cobra.Command{
		Use:     "status --config FILE",
		Short:   "Say how far a mirror is behind its ledgers, what it holds, and how large that is",
		Args:    cobra.NoArgs,
		PreRunE: f.check,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			var status mirror.Status
			err := f.with(cmd.Context(), cmd.ErrOrStderr(), func(m *mirror.Mirror) error {
				status = m.Status()
				return nil
			}, func(c *mirrorClient) error {
				return c.status(cmd.Context(), &status)
			})
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), status)
			}
			return printMirrorStatus(cmd.OutOrStdout(), &status)
		}),
	}
	f.define(cmd)
	return cmd
}

// with does something with the mirror of the configuration: in this process when its
// store is free, else by asking the process that has it open.
func (f *mirrorFlags) with(ctx context.Context, stderr io.Writer, here func(*mirror.Mirror) error, there func(*mirrorClient) error) error {
	cfg, err := loadConfig(f.file)
	if err != nil {
		return err
	}
	if cfg.Node == nil || cfg.Node.Mirror == nil {
		return fmt.Errorf("%s has no mirror: add node.mirror, which may be {}", f.file)
	}
	cfg.Log.Access, cfg.Log.Level = false, "error"
	logs := newLoggers(cfg.Log, stderr)
	defer logs.close()
	n, err := openNode(cfg.Node, logs, prometheus.NewRegistry(), readVersion()) //nolint:contextcheck // it lives until it is closed
	if errors.Is(err, blobstore.ErrInUse) {
		return there(&mirrorClient{admin: string(cfg.Admin.Listen), token: string(cfg.Admin.Token), inUse: err})
	}
	if err != nil {
		return err
	}
	err = here(n.mirror)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return errors.Join(err, n.close(closing))
}

// run does a task until it is done or interrupted.
func (f *mirrorFlags) run(cmd *cobra.Command, task *mirrorTask) error {
	ctx, end := untilSignal(cmd)
	defer end()
	show := newMirrorDisplay(cmd.OutOrStdout(), cmd.ErrOrStderr(), f.output == "json")
	err := f.with(ctx, cmd.ErrOrStderr(), func(m *mirror.Mirror) error {
		return task.run(ctx, m, show.event)
	}, func(c *mirrorClient) error {
		return c.run(ctx, task, show.event)
	})
	show.end(task)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; the next sync goes on from here")
	case err != nil:
		return err
	case show.last.Verified != nil && show.last.Verified.Right < show.last.Verified.Names && !task.repair:
		return quiet(exitFailed)
	}
	return nil
}

// mirrorClient asks the process that runs.
type mirrorClient struct {
	admin string // host:port
	token string // of admin.token
	inUse error  // why it has to be asked
}

func (c *mirrorClient) do(ctx context.Context, method, query string) (*http.Response, error) {
	base, err := adminURL(c.admin)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, base+mirrorPath+"?"+query, http.NoBody)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w; and it cannot be asked at admin.listen: %w", c.inUse, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return nil, fmt.Errorf("%w; and at admin.listen it says %s: %s", c.inUse, resp.Status, strings.TrimSpace(string(said)))
	}
	return resp, nil
}

func (c *mirrorClient) status(ctx context.Context, into *mirror.Status) error {
	resp, err := c.do(ctx, http.MethodGet, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

// run has a task done, and passes on what is said about it.
func (c *mirrorClient) run(ctx context.Context, task *mirrorTask, tell func(mirrorEvent)) error {
	resp, err := c.do(ctx, http.MethodPost, task.query())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e mirrorEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("reading what the node says: %w", err)
		}
		tell(e)
		switch {
		case e.Event != "done":
		case e.Error != "":
			return errors.New(e.Error)
		default:
			return nil
		}
	}
	return errors.Join(errors.New("the node stopped before it was done"), lines.Err())
}

// mirrorDisplay shows how a task goes on: a line that changes on a terminal, a line for
// each result elsewhere.
type mirrorDisplay struct {
	out, err io.Writer
	json     bool
	terminal bool
	drawn    time.Time
	last     mirrorEvent
}

func newMirrorDisplay(out, err io.Writer, asJSON bool) *mirrorDisplay {
	return &mirrorDisplay{out: out, err: err, json: asJSON, terminal: isTerminal(err) && !asJSON}
}

func (d *mirrorDisplay) event(e mirrorEvent) {
	d.last = e
	if d.json {
		_ = e.write(d.out) // where would one tell that it cannot be told?
		return
	}
	begin := ""
	if d.terminal {
		begin = "\r\x1b[K"
	}
	switch {
	case e.Event == "failed":
		d.say("%sfailed: %s: %s\n", begin, e.Item.Name, e.Error)
	case e.Event == "finding":
		d.say("%s%s: %s %s: %s\n", begin, e.Finding.Name, e.Finding.Problem, e.Finding.Digest, e.Finding.Detail)
	case e.Event == "done":
		d.say("%s", begin)
		return
	case e.Event == "progress" && e.Progress != nil && !e.Progress.Waiting.IsZero() && !d.terminal:
		d.say("%s\n", e.progress())
	case e.Event == "fetched" && !d.terminal:
		d.say("%s %s\n", e.Item.Name, e.Item.Digest)
	}
	if d.terminal && time.Since(d.drawn) >= redraw {
		d.drawn = time.Now()
		d.say("%s%s", begin, e.progress())
	}
}

// progress is how far a task is, in a line.
func (e *mirrorEvent) progress() string {
	switch {
	case e.Verified != nil:
		return fmt.Sprintf("%d of %d names are right, %d wrong things, %s read", e.Verified.Right, e.Verified.Names, e.Verified.Findings, humanize.IBytes(uint64(e.Verified.Bytes)))
	case e.Progress != nil:
		p := e.Progress
		if !p.Waiting.IsZero() {
			return fmt.Sprintf("waiting for the window at %s; --any-time does not", p.Waiting.Format("15:04 MST"))
		}
		return fmt.Sprintf("%d of %d fetched, %d failed, %s, %v", p.Fetched, p.Wanted, p.Failed, humanize.IBytes(uint64(p.Bytes)), time.Since(p.Started).Round(time.Second))
	}
	return ""
}

// end tells what came of it.
func (d *mirrorDisplay) end(task *mirrorTask) {
	if d.json {
		return
	}
	switch {
	case d.last.Verified != nil:
		v := d.last.Verified
		repaired := ""
		if task.repair {
			repaired = fmt.Sprintf("; %d images and files fetched again", v.Repaired)
		}
		d.result("%d of %d names are right, %s in %d blobs; %d things are not as the ledger says%s\n",
			v.Right, v.Names, humanize.IBytes(uint64(v.Bytes)), v.Blobs, v.Findings, repaired)
	case d.last.Progress != nil && task.sync.DryRun:
		p := d.last.Progress
		d.result("%d names are selected and %d held; would fetch or look at %d images and files, and remove %d blobs (%s)\n",
			p.Names, p.Held, p.Wanted, p.Leaving, humanize.IBytes(uint64(p.LeavingBytes)))
	case d.last.Progress != nil:
		p := d.last.Progress
		d.result("%d of %d names are held; fetched %s for %d images and files, %d failed, removed %d blobs (%s)\n",
			p.Held, p.Names, humanize.IBytes(uint64(p.Bytes)), p.Fetched, p.Failed, p.Removed, humanize.IBytes(uint64(p.LeavingBytes)))
	}
}

func (d *mirrorDisplay) say(format string, args ...any) { _, _ = fmt.Fprintf(d.err, format, args...) }

func (d *mirrorDisplay) result(format string, args ...any) {
	_, _ = fmt.Fprintf(d.out, format, args...)
}

func printMirrorStatus(w io.Writer, s *mirror.Status) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(key, format string, args ...any) { _, _ = fmt.Fprintf(t, key+"\t"+format+"\n", args...) }
	row("coverage", "%d of %d names, %.1f%%", s.Held, s.Names, s.Coverage)
	row("size", "%s in %d blobs", humanize.IBytes(uint64(s.Bytes)), s.Blobs)
	for _, u := range s.Upstreams {
		behind := "holds all of"
		if u.Synced < u.Entries {
			behind = fmt.Sprintf("%v behind, %d entries of", (time.Duration(u.Lag) * time.Second), u.Entries-u.Synced)
		}
		row(fmt.Sprintf("%s (%ss)", u.Name, u.Kind), "%s the ledger's %d, checked %s", behind, u.Entries, ago(u.Checked))
		if u.Error != "" {
			row("", "%s", u.Error)
		}
	}
	failed := ""
	if s.Failed > 0 {
		failed = fmt.Sprintf("; %d images and files failed", s.Failed)
	}
	row("last sync", "%s%s", ago(s.Finished), failed)
	if s.Running != nil {
		row("now", "%s", (&mirrorEvent{Progress: s.Running}).progress())
	}
	if !s.Until.IsZero() {
		state := "closed"
		if s.Open {
			state = "open"
		}
		row("window", "%s until %s", state, s.Until.Format("15:04 MST"))
	}
	return t.Flush()
}

// ago is a time for a person.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return humanize.Time(t)
}

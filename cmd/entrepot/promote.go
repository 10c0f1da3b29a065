package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/spf13/cobra"
)

func promoteCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "promote",
		Short: "Make the names in production follow the reviewed configuration",
		Long: `Promote makes the names in production follow the reviewed configuration.
Each ROOT is the folder of a thin tree, of images or of files, or a plain file;
docs/PROMOTION.md has the formats and the workflow. Credentials for registries
come from the docker configuration ($DOCKER_CONFIG) and its helpers, those for
buckets from the AWS_ variables.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("promote needs a subcommand: plan, apply, rollback, audit, snapshot or add")
		},
	}
	group.AddCommand(planCommand(), applyCommand(), rollbackCommand(), auditCommand(), snapshotCommand(), addCommand())
	return group
}

// defaultMaxDeletes is how many names one run deletes without being told more.
const defaultMaxDeletes = 20

// promotion is what the subcommands share: flags, and what they open.
type promotion struct {
	ledger      string
	ledgerKey   string
	output      string
	strict      bool
	maxDeletes  int
	concurrency int
	rate        float64
	tokenHosts  []string
	attachments []string

	changes bool // the ledger is going to be written

	counts transfer.Counters
	client *transfer.Client
	log    *ledger.Log
	logger *slog.Logger
}

// Sets of flags.
func (p *promotion) ledgerFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.ledger, "ledger", "", "the ledger's `URL`: file://DIR, s3://BUCKET/PREFIX, or read-only https://…/ledger")
	cmd.Flags().StringVar(&p.ledgerKey, "ledger-key", "", "`FILE` with the ledger's key: private to change it, public (.pub) to check it")
}

func (p *promotion) outputFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.output, "output", "text", "text or json")
}

func (p *promotion) workFlags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&p.maxDeletes, "max-deletes", defaultMaxDeletes, "delete nothing if more than `N` names would be deleted")
	cmd.Flags().IntVar(&p.concurrency, "concurrency", 16, "work on `N` images or files at once")
	p.hostFlags(cmd)
}

func (p *promotion) hostFlags(cmd *cobra.Command) {
	cmd.Flags().Float64Var(&p.rate, "rate", 0, "send each host at most `N` requests a second; 0 is no limit")
	cmd.Flags().StringSliceVar(&p.tokenHosts, "token-host", nil, "`HOST` besides a registry's own that may issue its tokens, and so sees credentials; may be repeated")
}

// check is about flags alone: what is wrong with them is wrong usage.
func (p *promotion) check(cmd *cobra.Command, _ []string) error {
	switch {
	case p.output != "" && p.output != "text" && p.output != "json":
		return fmt.Errorf("--output %q is neither text nor json", p.output)
	case p.ledgerKey != "" && p.ledger == "":
		return errors.New("--ledger-key goes with --ledger, which is missing")
	case cmd.Flags().Lookup("concurrency") != nil && p.concurrency < 1:
		return errors.New("--concurrency must be at least 1")
	case slices.ContainsFunc(p.attachments, badPattern):
		return fmt.Errorf("--attachments %q: want the name of a project, or a pattern such as * or staging-*", p.attachments)
	case p.maxDeletes < 0 || p.rate < 0:
		return errors.New("--max-deletes and --rate must not be negative")
	}
	return nil
}

// open makes the client, and opens the ledger when there is one. Without a key
// to check it by, the ledger is taken on trust.
func (p *promotion) open(ctx context.Context, stderr io.Writer) (err error) {
	p.logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	p.client, err = transfer.New(transfer.Config{
		Progress:          &p.counts,
		RequestsPerSecond: p.rate,
		TokenHosts:        p.tokenHosts,
		UserAgent:         "entrepot/" + readVersion().Version,
		Logger:            p.logger,
	})
	if err != nil || p.ledger == "" {
		return err
	}
	cfg := ledger.Config{AnyKey: p.ledgerKey == "", Logger: p.logger}
	if p.ledgerKey != "" {
		if cfg.Key, err = ledger.LoadKey(p.ledgerKey); err != nil {
			return fmt.Errorf("--ledger-key: %w", err)
		}
		if p.changes && cfg.Key.Signer == nil {
			// Found out later, production would be changed and the ledger not.
			return fmt.Errorf("--ledger-key: %s is a public key; changing the ledger takes the private one", p.ledgerKey)
		}
	}
	if p.log, err = ledger.Open(ctx, p.ledger, cfg); err != nil {
		return fmt.Errorf("--ledger: %w", err)
	}
	return nil
}

// writable says whether the ledger can be changed with what the flags give.
func (p *promotion) writable() error {
	p.changes = true
	switch {
	case p.ledger == "":
		return nil
	case p.ledgerKey == "":
		return errors.New("--ledger needs --ledger-key with the private key that signs it; entrepot ledger keygen makes one")
	case strings.HasPrefix(p.ledger, "http://"), strings.HasPrefix(p.ledger, "https://"):
		return errors.New("--ledger is read-only over HTTP: to change it, give it as file://DIR or s3://BUCKET/PREFIX")
	}
	return nil
}

func (p *promotion) close() {
	if p.client != nil {
		_ = p.client.Close() // all that was asked for has been answered
	}
}

// state is the ledger's, or that of one without entries.
func (p *promotion) state() *ledger.State {
	if p.log == nil {
		return new(ledger.State)
	}
	return p.log.State()
}

func (p *promotion) planner() *promote.Planner {
	return &promote.Planner{
		Client: p.client, MaxDeletes: p.maxDeletes, Concurrency: p.concurrency, NoLedger: p.log == nil,
		Attachments: func(project string) bool {
			return slices.ContainsFunc(p.attachments, func(pattern string) bool {
				ok, err := path.Match(pattern, project)
				return ok && err == nil
			})
		},
	}
}

// attachmentsFlag is of the commands that compare the configuration with
// production.
func (p *promotion) attachmentsFlag(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&p.attachments, "attachments", nil,
		"look also for signatures and other referrers that the images of `PROJECT`, a name or a pattern, were given after they were promoted; may be repeated")
}

func badPattern(pattern string) bool {
	_, err := path.Match(pattern, "")
	return pattern == "" || err != nil
}

// read reads the configuration.
func (p *promotion) read(roots []string) (*config.Tree, error) {
	tree, err := config.Read(roots, config.Options{Strict: p.strict})
	if errors.Is(err, config.ErrProblems) {
		return tree, &problems{tree.Problems, err}
	}
	return tree, err
}

// problems tells each on a line of its own.
type problems struct {
	list []config.Problem
	err  error
}

func (p *problems) Error() string {
	var text strings.Builder
	for _, problem := range p.list {
		text.WriteString(problem.String() + "\n")
	}
	return text.String() + p.err.Error()
}

func (p *problems) Unwrap() error { return p.err }

// plan reads the configuration and compares it with production.
func (p *promotion) plan(ctx context.Context, roots []string) (*promote.Plan, error) {
	tree, err := p.read(roots)
	if err != nil {
		return nil, err
	}
	plan, err := p.planner().Plan(ctx, tree, p.state())
	if err != nil {
		return nil, err
	}
	plan.Revision, err = config.Revision(ctx, roots)
	return plan, err
}

func planCommand() *cobra.Command {
	var p promotion
	var offline bool
	cmd := &cobra.Command{
		Use:   "plan [flags] ROOT...",
		Short: "Show what apply would change",
		Long: `Plan compares the configuration with production and prints what apply would
copy, tag, move and delete, what is lost or in conflict, and what of the
configuration is wrong. It changes nothing.

The exit status is 0 when there is nothing to do, 3 when there are changes, 1
when something is wrong, lost or in conflict, and 2 for wrong usage.`,
		Args:    cobra.MinimumNArgs(1),
		PreRunE: p.check,
		RunE: runs(func(cmd *cobra.Command, roots []string) error {
			if offline {
				return p.validate(cmd, roots)
			}
			if err := p.open(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer p.close()
			plan, err := p.plan(cmd.Context(), roots)
			if err != nil {
				return err
			}
			if err := p.print(cmd.OutOrStdout(), plan); err != nil {
				return err
			}
			switch {
			case !plan.Sound():
				return quiet(exitFailed)
			case len(plan.Changes()) > 0:
				return quiet(exitChanges)
			}
			return nil
		}),
	}
	p.ledgerFlags(cmd)
	p.outputFlag(cmd)
	p.workFlags(cmd)
	p.attachmentsFlag(cmd)
	cmd.Flags().BoolVar(&p.strict, "strict", false, "fail on any problem of the configuration, instead of setting the entry aside")
	cmd.Flags().BoolVar(&offline, "offline", false, "check the configuration only, without any network")
	return cmd
}

// validate reports what is wrong with the configuration.
func (p *promotion) validate(cmd *cobra.Command, roots []string) error {
	tree, err := config.Read(roots, config.Options{})
	if err != nil {
		return err
	}
	if p.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), listOf(tree.Problems))
	} else {
		err = promote.PrintTree(cmd.OutOrStdout(), tree)
	}
	for _, problem := range tree.Problems {
		if err == nil && !problem.Notice {
			return quiet(exitFailed)
		}
	}
	return err
}

func (p *promotion) print(w io.Writer, plan *promote.Plan) error {
	if p.output == "json" {
		return writeJSON(w, plan)
	}
	return plan.Print(w)
}

// listOf has a list without items written as [], not null: whoever reads the
// JSON need not know the difference.
func listOf[E any](list []E) []E {
	if list == nil {
		return []E{}
	}
	return list
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func applyCommand() *cobra.Command {
	var p promotion
	cmd := &cobra.Command{
		Use:   "apply [flags] ROOT...",
		Short: "Make production what the configuration says",
		Long: `Apply does what plan shows: it copies content by digest, verified, and sets a
name only when all its content is there; each change is written to the ledger.
What cannot be done is named in the end and stops nothing else. Interrupted at
any point, it is simply run again.

The exit status is 0 when production is as the configuration says, 1 when
something was left, and 2 for wrong usage.`,
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			return errors.Join(p.check(cmd, args), p.writable())
		},
		RunE: runs(func(cmd *cobra.Command, roots []string) error {
			if err := p.open(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer p.close()
			plan, err := p.plan(cmd.Context(), roots)
			if err != nil {
				return err
			}
			return p.apply(cmd, plan)
		}),
	}
	p.ledgerFlags(cmd)
	p.outputFlag(cmd)
	p.workFlags(cmd)
	p.attachmentsFlag(cmd)
	cmd.Flags().BoolVar(&p.strict, "strict", false, "do nothing if the configuration has any problem")
	return cmd
}

// apply does what a plan says, and tells how it went.
func (p *promotion) apply(cmd *cobra.Command, plan *promote.Plan) error {
	if p.output == "text" {
		if err := plan.Print(cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	start := time.Now()
	display := newDisplay(cmd.ErrOrStderr(), len(plan.Changes()), &p.counts)
	applier := &promote.Applier{
		Client: p.client, Ledger: p.log, Revision: plan.Revision, Concurrency: p.concurrency, Progress: display.result,
		Logger: p.logger,
	}
	report, err := applier.Apply(cmd.Context(), plan)
	display.end()
	if report != nil {
		report.Problems = plan.Problems
		report.Seconds = time.Since(start).Seconds()
		report.Transfer = p.counts.Counts()
		if told := p.report(cmd.OutOrStdout(), report); told != nil {
			err = errors.Join(err, told)
		}
	}
	if err != nil {
		return err
	}
	if !report.Sound() {
		return quiet(exitFailed)
	}
	return nil
}

func (p *promotion) report(w io.Writer, report *promote.Report) error {
	if p.output == "json" {
		return writeJSON(w, report)
	}
	return report.Print(w)
}

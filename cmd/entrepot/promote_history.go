package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/ledger"

	"github.com/spf13/cobra"
)

func rollbackCommand() *cobra.Command {
	var p promotion
	var to, project string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "rollback --ledger URL --ledger-key FILE --to TIME|SEQUENCE",
		Short: "Give names back what the ledger says they were",
		Long: `Rollback shows and then restores what names were right after the entry of a
sequence number, or at a time (RFC 3339, or 2006-01-02 15:04 in UTC). Content is
still there by digest, so that nothing is copied. Names that are new since are
deleted; what was revoked stays revoked. The ledger records all of it.

The configuration is not changed: put it back too, or the next apply asks for
the newer names again.`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(cmd, args); err != nil {
				return err
			}
			if p.ledger == "" || to == "" {
				return errors.New("rollback needs --ledger, --ledger-key and --to")
			}
			if !dryRun {
				if err := p.writable(); err != nil {
					return err
				}
			}
			_, err := then(new(ledger.State), to)
			if errors.Is(err, errNoSuchEntry) {
				return nil // it may be there
			}
			return err
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if err := p.open(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer p.close()
			if err := existing(p.log, p.ledger); err != nil {
				return err
			}
			past, err := then(p.state(), to)
			if err != nil {
				return err
			}
			plan, err := p.planner().Rollback(cmd.Context(), p.state(), past, project, "rollback to "+to)
			if err != nil {
				return err
			}
			plan.Revision = "rollback to " + to
			if !dryRun {
				return p.apply(cmd, plan)
			}
			if err := p.print(cmd.OutOrStdout(), plan); err != nil {
				return err
			}
			if len(plan.Blocked()) > 0 {
				return quiet(exitFailed)
			}
			return nil
		}),
	}
	p.ledgerFlags(cmd)
	p.outputFlag(cmd)
	p.workFlags(cmd)
	cmd.Flags().StringVar(&to, "to", "", "`TIME|SEQUENCE` to go back to")
	cmd.Flags().StringVar(&project, "project", "", "only names of this project")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would change")
	return cmd
}

var errNoSuchEntry = errors.New("the ledger has no such entry")

// then is the state that a person means by a time or a sequence number.
func then(s *ledger.State, to string) (*ledger.State, error) {
	if sequence, err := strconv.ParseUint(to, 10, 64); err == nil {
		if sequence >= s.Len() {
			return nil, fmt.Errorf("--to %d: %w: it has %d, numbered from 0", sequence, errNoSuchEntry, s.Len())
		}
		return s.AsOf(sequence), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.Parse(layout, to); err == nil {
			return s.AsOfTime(t), nil
		}
	}
	return nil, fmt.Errorf("--to %q is neither a sequence number nor a time such as 2026-11-23T14:00:00Z", to)
}

func auditCommand() *cobra.Command {
	var p promotion
	var deep bool
	cmd := &cobra.Command{
		Use:   "audit --ledger URL [--deep] [ROOT...]",
		Short: "Tell where production differs from ledger and configuration",
		Long: `Audit looks at every name that the ledger has, at each of its destinations, and
tells which were added, moved or taken away behind promotion's back; with --deep
it also reads all content and checks its hashes. With ROOTs it tells too what
the configuration asks for and was not applied. The exit status is 1 when
anything differs, or was set aside of the configuration and not compared.`,
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if p.ledger == "" {
				return errors.New("audit needs --ledger: it says what production should be")
			}
			return p.check(cmd, args)
		},
		RunE: runs(func(cmd *cobra.Command, roots []string) error {
			if err := p.open(cmd.Context(), cmd.ErrOrStderr()); err != nil {
				return err
			}
			defer p.close()
			if err := existing(p.log, p.ledger); err != nil {
				return err
			}
			var tree *config.Tree
			if len(roots) > 0 {
				var err error
				if tree, err = p.read(roots); err != nil {
					return err
				}
			}
			setAside := tellProblems(cmd.ErrOrStderr(), tree)
			auditor := &promote.Auditor{Client: p.client, Deep: deep, Concurrency: p.concurrency}
			findings, err := auditor.Audit(cmd.Context(), p.state(), tree)
			if err != nil {
				return err
			}
			if p.output == "json" {
				err = writeJSON(cmd.OutOrStdout(), listOf(findings))
			} else {
				err = promote.PrintFindings(cmd.OutOrStdout(), findings)
			}
			if err == nil && (len(findings) > 0 || setAside) {
				return quiet(exitFailed)
			}
			return err
		}),
	}
	p.ledgerFlags(cmd)
	p.outputFlag(cmd)
	p.workFlags(cmd)
	cmd.Flags().BoolVar(&deep, "deep", false, "read all content and check its hashes")
	return cmd
}

// tellProblems tells what is wrong with a tree, which may be nil, and says
// whether anything of it was set aside.
func tellProblems(w io.Writer, tree *config.Tree) (setAside bool) {
	if tree == nil {
		return false
	}
	for _, problem := range tree.Problems {
		_, _ = fmt.Fprintln(w, problem) // there is nowhere else to tell it
		setAside = setAside || !problem.Notice
	}
	return setAside
}

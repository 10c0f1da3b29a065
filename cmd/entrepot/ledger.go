package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

func ledgerCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "ledger",
		Short: "Read and check the log of every promotion",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("ledger needs a subcommand: show, verify or keygen")
		},
	}
	group.AddCommand(ledgerShowCommand(), ledgerVerifyCommand(), ledgerKeygenCommand())
	return group
}

// shownEntry is an entry as JSON has it.
type shownEntry struct {
	Sequence     uint64        `json:"sequence"`
	Time         time.Time     `json:"time"`
	Kind         ledger.Kind   `json:"kind,omitempty"`
	Name         string        `json:"name"`
	Destinations []string      `json:"destinations,omitempty"`
	Action       ledger.Action `json:"action"`
	Digest       digest.Digest `json:"digest,omitempty"`
	Size         int64         `json:"size,omitempty"`
	MediaType    string        `json:"media_type,omitempty"`
	Previous     digest.Digest `json:"previous,omitempty"`
	Project      string        `json:"project,omitempty"`
	Revision     string        `json:"revision,omitempty"`
	Reason       string        `json:"reason,omitempty"`
}

// ledgerFlags are what reading a ledger needs.
type ledgerFlags struct {
	location, key, output string
}

func (f *ledgerFlags) define(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.location, "ledger", "", "the ledger's `URL`: file://DIR, s3://BUCKET/PREFIX or https://…/ledger")
	cmd.Flags().StringVar(&f.key, "key", "", "`FILE.pub` with the ledger's public key; without it, whoever signed is taken on trust")
	cmd.Flags().StringVar(&f.output, "output", "text", "text or json")
}

func (f *ledgerFlags) check(*cobra.Command, []string) error {
	if f.location == "" {
		return errors.New("--ledger is missing")
	}
	if f.output != "text" && f.output != "json" {
		return fmt.Errorf("--output %q is neither text nor json", f.output)
	}
	return nil
}

func (f *ledgerFlags) config() (ledger.Config, error) {
	if f.key == "" {
		return ledger.Config{AnyKey: true}, nil
	}
	key, err := ledger.LoadKey(f.key)
	if err != nil {
		return ledger.Config{}, fmt.Errorf("--key: %w", err)
	}
	return ledger.Config{Key: key}, nil
}

// existing says whether there is a ledger at a location. To begin one is for
// apply; whoever reads one that is not there has mistyped its name, and must not
// be told that all is as it says.
func existing(log *ledger.Log, location string) error {
	if log.Checkpoint().Signed == nil {
		return fmt.Errorf("there is no ledger at %s", redacted(location))
	}
	return nil
}

// redacted is a location without a password.
func redacted(location string) string {
	if u, err := url.Parse(location); err == nil {
		return u.Redacted()
	}
	return location
}

func ledgerShowCommand() *cobra.Command {
	var f ledgerFlags
	var project, name string
	var from uint64
	cmd := &cobra.Command{
		Use:     "show --ledger URL",
		Short:   "List the entries of a ledger, oldest first",
		Args:    cobra.NoArgs,
		PreRunE: f.check,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			log, err := ledger.Open(cmd.Context(), f.location, cfg)
			if err != nil {
				return err
			}
			if err := existing(log, f.location); err != nil {
				return err
			}
			shown := []shownEntry{}
			for e := range log.State().Entries(from) {
				if project != "" && e.Project != project || name != "" && !about(&e, name) {
					continue
				}
				shown = append(shown, shownEntry(e))
			}
			if f.output == "json" {
				return writeJSON(cmd.OutOrStdout(), shown)
			}
			for _, e := range shown {
				if err := e.print(cmd); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	f.define(cmd)
	cmd.Flags().StringVar(&project, "project", "", "only entries of this project")
	cmd.Flags().StringVar(&name, "name", "", "only entries about this name, with or without its destination")
	cmd.Flags().Uint64Var(&from, "from", 0, "only entries from this `SEQUENCE` on")
	return cmd
}

// about says whether an entry is about a name.
func about(e *ledger.Entry, name string) bool {
	if e.Name == name {
		return true
	}
	for _, destination := range e.Destinations {
		if destination+"/"+e.Name == name {
			return true
		}
	}
	return false
}

func (e *shownEntry) print(cmd *cobra.Command) error {
	to := ""
	switch n := len(e.Destinations); {
	case n == 1:
		to = " at " + e.Destinations[0]
	case n > 1:
		to = fmt.Sprintf(" at %s and %d more", e.Destinations[0], n-1)
	}
	was := ""
	if e.Previous != "" {
		was = " was " + string(e.Previous)
	}
	reason := ""
	if e.Reason != "" {
		reason = ": " + e.Reason
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d %s %s %s %s%s%s [%s]%s\n", e.Sequence, e.Time.Format(time.RFC3339), e.Action, e.Name,
		e.Digest, was, to, cmp.Or(e.Project, "-"), reason)
	return err
}

func ledgerVerifyCommand() *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "verify --ledger URL [--key FILE.pub] [NAME[@DIGEST]]",
		Short: "Check a ledger from its first entry to its signature",
		Long: `Verify checks that the key signed the ledger's checkpoint, that every entry is
there and as the checkpoint says, and that time and sequence never go back. With
a NAME, with its destination as in registry.k8s.io/pause:3.10, it also says what
the name stands for, and fails unless that is DIGEST. It needs nothing but the
ledger's files, which may be a copy.`,
		Args:    cobra.MaximumNArgs(1),
		PreRunE: f.check,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			storage, err := ledger.OpenStorage(f.location)
			if err != nil {
				return err
			}
			report, err := ledger.Verify(cmd.Context(), storage, cfg)
			if errors.Is(err, ledger.ErrNotExist) {
				err = fmt.Errorf("there is no ledger at %s: %w", redacted(f.location), err)
			}
			if err != nil {
				return err
			}
			signed := "signed by " + report.Checkpoint.Origin
			if f.key == "" {
				signed += " (taken on trust: no --key)"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%d entries in %d objects are right, root %s, %s\n",
				report.Checkpoint.Size, report.Objects, report.Checkpoint.Hash, signed); err != nil || len(args) == 0 {
				return err
			}
			return tellName(cmd, report.State, args[0])
		}),
	}
	f.define(cmd)
	return cmd
}

// tellName says what a verified ledger has under a name.
func tellName(cmd *cobra.Command, s *ledger.State, arg string) error {
	e, known := s.LookupFull(arg) // content by digest alone has a digest in its name
	name, want := arg, digest.Digest("")
	if at := strings.LastIndex(arg, "@"); !known && at >= 0 {
		name, want = arg[:at], digest.Digest(arg[at+1:])
		e, known = s.LookupFull(name)
	}
	switch {
	case !known:
		return fmt.Errorf("%s is not in the ledger", name)
	case !e.Exists():
		return fmt.Errorf("%s was deleted by entry %d at %s", name, e.Sequence, e.Time.Format(time.RFC3339))
	case want != "" && e.Digest != want:
		return fmt.Errorf("%s is %s since entry %d, and not %s", name, e.Digest, e.Sequence, want)
	}
	if r, revoked := s.Revoked(e.Digest); revoked {
		return fmt.Errorf("%s is %s, which entry %d revoked: %s", name, e.Digest, r.Sequence, r.Reason)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is %s since entry %d of %s\n", name, e.Digest, e.Sequence, e.Time.Format(time.RFC3339))
	return err
}

func ledgerKeygenCommand() *cobra.Command {
	var name, out string
	cmd := &cobra.Command{
		Use:   "keygen --name NAME --out FILE",
		Short: "Make the key that signs a ledger",
		Long: `Keygen writes a new private key to FILE and its public key to FILE.pub, never over
existing files. NAME becomes the ledger's: its URL without scheme is a good one,
such as origin.example.org/ledger.`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if name == "" || out == "" {
				return errors.New("keygen needs --name and --out")
			}
			return nil
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if err := ledger.GenerateKey(name, out); err != nil {
				return err
			}
			key, err := ledger.LoadKey(out)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s (private) and %s.pub\nfingerprint %s\n", out, out, key.Fingerprint())
			return err
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "the ledger's `NAME`")
	cmd.Flags().StringVar(&out, "out", "", "`FILE` for the private key")
	return cmd
}

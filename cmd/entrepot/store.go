package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"entrepot/blobstore"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

func storeCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "store",
		Short: "Look after the directory that a node or an origin keeps content in",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("store needs a subcommand: check, repair or scrub")
		},
	}
	group.AddCommand(storeCheckCommand(), storeRepairCommand(), storeScrubCommand())
	return group
}

// storeFlags are those of the commands about a store.
type storeFlags struct {
	deep   bool
	rate   string
	output string

	perSecond Rate
}

func (f *storeFlags) define(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.output, "output", "text", "text or json")
	cmd.Flags().StringVar(&f.rate, "rate", "0", "read at most so many bytes a second, such as 50MB/s; 0 is as fast as can be")
}

func (f *storeFlags) defineDeep(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.deep, "deep", false, "read every blob and compare its digest")
}

func (f *storeFlags) check(*cobra.Command, []string) error {
	if f.output != "text" && f.output != "json" {
		return fmt.Errorf("--output %q is neither text nor json", f.output)
	}
	if err := f.perSecond.UnmarshalText([]byte(f.rate)); err != nil {
		return fmt.Errorf("--rate %q %w", f.rate, err)
	}
	return nil
}

func (f *storeFlags) config() blobstore.CheckConfig {
	return blobstore.CheckConfig{Deep: f.deep, Rate: int64(f.perSecond), Record: checkRecord}
}

// checkRecord says whether a record's value can be one of those that nodes and
// origins write.
func checkRecord(key string, value []byte) error {
	family, _, _ := strings.Cut(key, "/")
	switch family {
	case "manifests", "lists", "referrers", "files", "queries":
	case "tags":
		// An origin's is the digest alone.
		if digest.Digest(value).Validate() == nil {
			return nil
		}
	default:
		return nil
	}
	if !json.Valid(value) {
		return fmt.Errorf("record %q is not JSON: %.40q", key, value)
	}
	return nil
}

// untilSignal is a command's context, which SIGINT and SIGTERM end.
func untilSignal(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
}

func storeCheckCommand() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Say what is wrong with a store, and change nothing",
		Long: `Check looks at the names, sizes and records in the directory of a store, and
with --deep at the contents too, and lists what is wrong. A node or an origin may
have the store open. The exit status is 1 when anything is wrong.

An origin has the store of its files in files/ below its directory: check that
too.`,
		Args:    cobra.ExactArgs(1),
		PreRunE: f.check,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ctx, end := untilSignal(cmd)
			defer end()
			report, err := blobstore.CheckDir(ctx, args[0], f.config())
			if err != nil {
				return err
			}
			if err := f.print(cmd.OutOrStdout(), report, "would "); err != nil {
				return err
			}
			if len(report.Findings) > 0 {
				return quiet(exitFailed)
			}
			return nil
		}),
	}
	f.define(cmd)
	f.defineDeep(cmd)
	return cmd
}

func storeRepairCommand() *cobra.Command {
	var f storeFlags
	var confirm bool
	cmd := &cobra.Command{
		Use:   "repair DIR",
		Short: "Put right what store check finds",
		Long: `Repair shows what it would do about each finding of store check, and does it with
--confirm. Leftovers are removed; what may be worth something is moved to
quarantine/ in the directory. A node fetches again what is not in the store any
more; to an origin it has to be pushed again.

No process may have the store open. The exit status is 1 when something could
not be put right.`,
		Args:    cobra.ExactArgs(1),
		PreRunE: f.check,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ctx, end := untilSignal(cmd)
			defer end()
			if !confirm {
				report, err := blobstore.CheckDir(ctx, args[0], f.config())
				if err != nil {
					return err
				}
				return f.print(cmd.OutOrStdout(), report, "would ")
			}
			var failed error
			report, err := blobstore.RepairDir(ctx, args[0], f.config(), func(found blobstore.Finding, err error) {
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("%s: %s it: %w", shown(found.Path), found.Repair, err))
				}
			})
			if err != nil {
				return err
			}
			return errors.Join(f.print(cmd.OutOrStdout(), report, ""), failed)
		}),
	}
	f.define(cmd)
	f.defineDeep(cmd)
	cmd.Flags().BoolVar(&confirm, "confirm", false, "do it")
	return cmd
}

// print tells what was found. would comes before what is done about it.
func (f *storeFlags) print(w io.Writer, report *blobstore.CheckReport, would string) error {
	if f.output == "json" {
		return writeJSON(w, report)
	}
	var text strings.Builder
	for _, found := range report.Findings {
		_, _ = fmt.Fprintf(&text, "%s\t%s\t%s\trepair: %s%s\n", found.Kind, shown(found.Path), found.Detail, would, found.Repair)
	}
	use := ""
	if report.InUse {
		use = "; a process has it open"
	}
	_, _ = fmt.Fprintf(&text, "%s: %d blobs of %v, %d records, %d partials of %v, %d in quarantine of %v%s\n",
		report.Store, report.Blobs, Size(report.Bytes), report.Records, report.Partials, Size(report.PartialBytes),
		report.Quarantined, Size(report.QuarantineBytes), use)
	switch n := len(report.Findings); {
	case n > 0:
		_, _ = fmt.Fprintf(&text, "%d found to be wrong\n", n)
	case report.Deep:
		text.WriteString("all right, contents too\n")
	default:
		text.WriteString("all right; contents were not read (--deep does)\n")
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// shown is a path as it can be printed: anything can be the name of a file.
func shown(path string) string {
	if strconv.CanBackquote(path) && !strings.Contains(path, "\t") {
		return path
	}
	return strconv.Quote(path)
}

func storeScrubCommand() *cobra.Command {
	var f storeFlags
	var after string
	cmd := &cobra.Command{
		Use:   "scrub DIR|s3://BUCKET/PREFIX",
		Short: "Read every blob, and put aside those that the disk has changed",
		Long: `Scrub reads every blob in the directory of a store, in the order of digests, and
moves those to quarantine/ there that do not have their digest any more. A node or
an origin may have the store open: it notices at the next request, and a node
fetches the blob again. A node does this by itself, now and then and slowly: see
node.store.scrub in its configuration.

What is wrong in a bucket is reported and left there: nodes verify what they read
from theirs. Its endpoint, region and credentials come from the AWS_ variables.

The exit status is 1 when something was wrong, or could not be read.`,
		Args: cobra.ExactArgs(1),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if after != "" {
				if err := digest.Digest(after).Validate(); err != nil {
					return fmt.Errorf("--after %q: %w", after, err)
				}
			}
			return f.check(cmd, args)
		},
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ctx, end := untilSignal(cmd)
			defer end()
			return f.scrub(ctx, cmd, args[0], digest.Digest(after))
		}),
	}
	f.define(cmd)
	cmd.Flags().StringVar(&after, "after", "", "go on after the blob of this `DIGEST`")
	return cmd
}

func (f *storeFlags) scrub(ctx context.Context, cmd *cobra.Command, dir string, after digest.Digest) error {
	findings := []blobstore.ScrubFinding{}
	report, err := scrubStore(ctx, dir, blobstore.ScrubDirConfig{
		Rate: int64(f.perSecond), After: after,
		Found: func(found blobstore.ScrubFinding) {
			findings = append(findings, found)
			_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", found.Digest, found.Detail) // the report has it too
		},
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	stopped := err != nil
	if f.output == "json" {
		err = writeJSON(cmd.OutOrStdout(), struct {
			blobstore.ScrubDirReport
			Stopped  bool                     `json:"stopped"`
			Findings []blobstore.ScrubFinding `json:"findings"`
		}{report, stopped, findings})
	} else {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d blobs are right, %d are wrong, %d could not be read; %v read\n",
			report.Store, report.Blobs, report.Rotten, report.Unreadable, Size(report.Bytes))
	}
	switch {
	case err != nil:
		return err
	case stopped && report.Last != "":
		return fmt.Errorf("stopped; go on with --after %s", report.Last)
	case stopped:
		return errors.New("stopped before the first blob was read")
	case report.Rotten+report.Unreadable > 0:
		return quiet(exitFailed)
	}
	return nil
}

// scrubStore scrubs a directory, or a bucket.
func scrubStore(ctx context.Context, location string, cfg blobstore.ScrubDirConfig) (blobstore.ScrubDirReport, error) {
	rest, ok := strings.CutPrefix(location, "s3://")
	if !ok {
		return blobstore.ScrubDir(ctx, location, cfg)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	s3, err := blobstore.OpenS3(blobstore.S3Config{
		Endpoint: cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com"),
		Region:   cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")),
		Bucket:   bucket, Prefix: prefix,
	})
	if err != nil {
		return blobstore.ScrubDirReport{}, err
	}
	report, err := s3.Scrub(ctx, cfg)
	return report, errors.Join(err, s3.Close())
}

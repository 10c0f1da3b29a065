// Command entrepot serves container images and binaries near everyone, by the
// same names as at their origin, verified. See docs/ARCHITECTURE.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

// rootCommand is the table of contents: one file a subcommand.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "entrepot",
		Short:         "The same artifacts, by the same names, verified, near everyone",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(
		serveCommand(),
		readyCommand(),
		promoteCommand(),
		ledgerCommand(),
		storeCommand(),
		geoCommand(),
		mirrorCommand(),
		clientConfigCommand(),
		warmCommand(),
		exportCommand(),
		importCommand(),
		configCommand(),
		versionCommand(),
	)
	return root
}

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1 // the command was understood and could not be done
	exitUsage  = 2 // the command was not understood
	// exitChanges is promote plan's: it could be done, and there is something
	// to do.
	exitChanges = 3
)

// run executes a command line, tells its error on stderr, and returns the exit
// status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand() //nolint:contextcheck // cobra hands ctx to the commands
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return statusOf(root.ExecuteContext(ctx), stderr)
}

// statusOf tells the error of a command on stderr, and is its exit status.
func statusOf(err error, stderr io.Writer) int {
	tell := func(line string) { _, _ = fmt.Fprintln(stderr, "entrepot: "+line) } // there is nowhere else to tell it
	if err == nil {
		return exitDone
	}
	if status, ok := errors.AsType[quiet](err); ok {
		return int(status)
	}
	if _, failed := errors.AsType[failure](err); failed {
		// A configuration file may have several problems, a line for each.
		for line := range strings.Lines(err.Error()) {
			tell(strings.TrimSuffix(line, "\n"))
		}
		return exitFailed
	}
	// Every other error is cobra's own, about the command line.
	tell(err.Error() + "; see entrepot --help")
	return exitUsage
}

// quiet is the exit status of a command that has said all there is to say.
type quiet int

func (q quiet) Error() string { return fmt.Sprintf("exit status %d", int(q)) }

// failure is an error of a command that was used rightly.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// runs makes a command's function mark its errors as failures.
func runs(do func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := do(cmd, args); err != nil {
			return failure{err}
		}
		return nil
	}
}

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func configCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "config",
		Short: "Work with configuration files",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("config needs a subcommand: check or schema")
		},
	}
	group.AddCommand(configSchemaCommand(), &cobra.Command{
		Use:   "check FILE",
		Short: "Report everything that is wrong with a configuration file",
		Long: `Check reads a configuration file as serve would, with its variables and the
files it names, and reports every problem with its line. Nothing is opened or
started. The exit status is 1 when there is a problem, also when FILE cannot be
read or is not YAML, and 2 when the command itself is wrong.`,
		Args: cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(args[0])
			if err != nil {
				return err
			}
			var roles []string
			if n := cfg.Node; n != nil {
				roles = append(roles, fmt.Sprintf("a node on %s for %d upstreams, store %s", n.Listen, len(n.Upstreams)+len(n.Files), n.Store))
			}
			if o := cfg.Origin; o != nil {
				roles = append(roles, fmt.Sprintf("an origin on %s, store %s", o.Listen, o.Store))
			}
			if r := cfg.Router; r != nil {
				roles = append(roles, fmt.Sprintf("a router on %s for %d mirrors", r.Listen, len(r.Mirrors)))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is right: %s\n", args[0], strings.Join(roles, "; "))
			return err
		}),
	})
	return group
}

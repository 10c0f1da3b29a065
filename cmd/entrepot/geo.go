package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"entrepot/geo"
	"entrepot/geo/choice"
	"entrepot/geo/health"
	"entrepot/geo/locate"

	"github.com/spf13/cobra"
)

func geoCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "geo",
		Short: "Explain the router's choices, renew what clients are located by, and lift quarantines",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("geo needs a subcommand: where, update or lift")
		},
	}
	group.AddCommand(geoWhereCommand(), geoUpdateCommand(), geoLiftCommand())
	return group
}

// routerOf reads a configuration file that has a router.
func routerOf(file string) (*RouterConfig, error) {
	cfg, err := loadConfig(file)
	if err != nil {
		return nil, err
	}
	if cfg.Router == nil {
		return nil, fmt.Errorf("%s has no router: add router: with mirrors", file)
	}
	return cfg.Router, nil
}

func geoWhereCommand() *cobra.Command {
	var file, client, request, output string
	var size int64
	cmd := &cobra.Command{
		Use:   "where --config FILE --client ADDRESS --request PATH",
		Short: "Say where a router would send a client, and why",
		Long: `Where says, without asking anybody, where a router with this configuration
would send a client for a request: every mirror with its rank, or the reason it
is passed over. All mirrors count as up, but for those in quarantine.`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("--output %q: want text or json", output)
			}
			return nil
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			e, err := explain(cmd, file, client, request, size)
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(e)
			}
			return printExplanation(cmd.OutOrStdout(), e)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&file, "config", "", "configuration file with a router")
	flags.StringVar(&client, "client", "", "address of the client")
	flags.StringVar(&request, "request", "/v2/", "path that is asked for, such as /v2/library/nginx/manifests/latest")
	flags.Int64Var(&size, "size", -1, "size of the content in bytes, if it is known")
	flags.StringVar(&output, "output", "text", "text or json")
	for _, name := range []string{"config", "client"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag was defined above
		}
	}
	return cmd
}

// explain makes a router that asks nobody, and has it explain.
func explain(cmd *cobra.Command, file, client, request string, size int64) (*geo.Explanation, error) {
	cfg, err := routerOf(file)
	if err != nil {
		return nil, err
	}
	address, err := clientAddress(client)
	if err != nil {
		return nil, fmt.Errorf("--client: %w", err)
	}
	atlas, err := locate.NewAtlas()
	if err != nil {
		return nil, err
	}
	list, err := cfg.mirrors(atlas)
	if err != nil {
		return nil, err
	}
	where, err := cfg.Geo.location(atlas)
	if err != nil {
		return nil, err
	}
	locator, err := locate.Open(where)
	if err != nil {
		return nil, err
	}
	isolated := map[string]health.Quarantined{}
	if cfg.Probes.Quarantine != "" {
		if isolated, err = health.ReadQuarantine(string(cfg.Probes.Quarantine)); err != nil {
			return nil, err
		}
	}
	states := make([]choice.State, list.Len())
	for i := range states {
		_, quarantined := isolated[list.Mirror(i).Name]
		states[i] = choice.State{Up: true, Ramp: 1, Quarantined: quarantined}
	}
	surface := geo.Config{
		Mirrors:       func() (*choice.List, []choice.State) { return list, states },
		Locate:        locator.Locate,
		DefaultImages: cfg.DefaultUpstream, DefaultFiles: cfg.DefaultFiles,
	}
	if surface.Images, surface.Files, err = cfg.upstreams(); err != nil {
		return nil, err
	}
	router, err := geo.New(surface)
	if err != nil {
		return nil, err
	}
	return router.Explain(cmd.Context(), address, cfg.bySecure(list), request, size)
}

// bySecure says whether clients come to the router by https, as far as the
// configuration tells: behind a forwarder that may be either, and is https where any
// mirror has such a URL.
func (r *RouterConfig) bySecure(list *choice.List) bool {
	if r.TLS != nil || len(r.TrustedProxies) == 0 {
		return r.TLS != nil
	}
	for i := range list.Len() {
		if list.Mirror(i).URL(true) != nil {
			return true
		}
	}
	return false
}

// printExplanation writes an explanation for a person.
func printExplanation(out io.Writer, e *geo.Explanation) error {
	place := []string{e.Place.Country, e.Place.Cloud, e.Place.Region}
	if e.Place.ASN != 0 {
		place = append(place, fmt.Sprintf("AS%d", e.Place.ASN))
	}
	known := strings.Join(strings.Fields(strings.Join(place, " ")), " ")
	if known == "" {
		known = "nowhere that is known"
	}
	if _, err := fmt.Fprintf(out, "%s is in %s (source: %s); %s asks for %s\n", e.Client, known, e.Place.Source, e.Request, e.What); err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "RANK\tMIRROR\tTIER\tCOST\tWHY\tURL") // Flush tells errors
	for _, m := range e.Mirrors {
		rank, cost := "-", ""
		if m.Rank > 0 {
			rank, cost = fmt.Sprint(m.Rank), fmt.Sprintf("%.1f ms", m.CostMs)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", rank, m.Name, m.Tier, cost, m.Class+m.Reason, m.URL)
	}
	return w.Flush()
}

func geoUpdateCommand() *cobra.Command {
	var file string
	var force bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "update --config FILE",
		Short: "Download address ranges and location databases",
		Long: `Update downloads what router.geo.sources names into router.geo.dir, checks it,
and puts it in place at once; a running router takes it into use within 30 s.
What fails leaves the file that was there. Run it once a day, or have it run on
with --every: then what fails is told, and tried again within the hour.`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			cfg, err := routerOf(file)
			if err != nil {
				return err
			}
			if cfg.Geo.Dir == "" {
				return fmt.Errorf("%s has no router.geo.dir, the folder for what is downloaded; add it", file)
			}
			update := func(ctx context.Context) error {
				all, err := locate.Update(ctx, locate.UpdateConfig{Dir: string(cfg.Geo.Dir), Sources: cfg.Geo.Sources.urls(), Force: force})
				if err != nil {
					return err
				}
				return printUpdates(cmd.OutOrStdout(), all)
			}
			if !cmd.Flags().Changed("every") {
				return update(cmd.Context())
			}
			if every < time.Minute {
				return fmt.Errorf("--every is %v: sources are not to be asked more than once a minute", every)
			}
			ctx, end := untilSignal(cmd)
			defer end()
			repeat(ctx, every, update, func(err error) {
				_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "entrepot: "+err.Error()) // there is nowhere else to tell it
			})
			return nil
		}),
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file with a router")
	cmd.Flags().BoolVar(&force, "force", false, "take also what is older than what is there, or less than half of it")
	cmd.Flags().DurationVar(&every, "every", 0, "run on, and do it again so long after the last time, such as 24h")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

// retryUpdate is how long after a failure an update is tried again, at most.
const retryUpdate = time.Hour

// repeat does something at once, and again and again until ctx is over. What fails is
// told, and done again sooner.
func repeat(ctx context.Context, every time.Duration, do func(context.Context) error, tell func(error)) {
	for {
		wait := every
		err := do(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			tell(err)
			wait = min(every, retryUpdate)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// printUpdates says what became of each file. The error is that of those that
// failed.
func printUpdates(out io.Writer, all []locate.Updated) error {
	var failed []error
	for _, u := range all {
		var err error
		switch {
		case u.Err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", u.Name, u.Err))
		case u.Unchanged:
			_, err = fmt.Fprintf(out, "%s: nothing newer than %s\n", u.Name, u.Path)
		default:
			_, err = fmt.Fprintf(out, "%s: %d networks, in %s\n", u.Name, u.Entries, u.Path)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func geoLiftCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "lift --config FILE MIRROR",
		Short: "Lift the quarantine of a mirror that sent wrong bytes",
		Args:  cobra.ExactArgs(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			cfg, err := routerOf(file)
			if err != nil {
				return err
			}
			if cfg.Probes.Quarantine == "" {
				return fmt.Errorf("%s keeps quarantines in the router's memory only: restart it, or set router.probes.quarantine to a file", file)
			}
			if err := health.Lift(string(cfg.Probes.Quarantine), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is lifted; a running router sees it with its next probes\n", args[0])
			return err
		}),
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file with a router")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag was defined above
	}
	return cmd
}

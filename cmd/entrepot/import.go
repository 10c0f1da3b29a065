package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/spf13/cobra"
)

// importing is a bundle on its way in.
type importing struct {
	config, to, keyFile string
	names               []string // what the ledger calls what is pushed to
	unproven            bool

	step func() // after each step of an import into a node; tests break off there. Nil for nothing
}

func importCommand() *cobra.Command {
	var i importing
	cmd := &cobra.Command{
		Use:   "import BUNDLE... --config FILE | --to URL --key FILE.pub --name NAME...",
		Short: "Take in a bundle of entrepot export, verified",
		Long: `Import compares every byte of a bundle with its sums and digests, and its names with
its ledger by your copy of the ledger's public key. BUNDLE is its path, its parts, or the
folder that it lies in.

With --config it goes into the store of a node, which must not run meanwhile, and whose
upstreams are offline: true; the ledger goes to where the node's configuration says that
it is (a file:// URL). A bundle whose ledger is older than, or not the same as, what came
before is refused. The node then serves what bundles brought, and nothing else.

With --to it is pushed to an origin, or any registry and file server, with the login of
the docker configuration. --name is what the ledger calls the registry, and the file
server, whose names these are: registry.example.org, https://dl.example.org. A bundle is
not believed about that.`,
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if (i.to == "") == !cmd.Flags().Changed("config") {
				return errors.New("import needs one of --config and --to")
			}
			if i.to != "" && i.keyFile == "" {
				return errors.New("import --to needs --key, the ledger's public key")
			}
			if i.to != "" && len(i.names) == 0 {
				return errors.New("import --to needs --name, what the ledger calls the registry or the file server whose names these are")
			}
			return nil
		},
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			ctx, end := untilSignal(cmd)
			defer end()
			err := i.run(ctx, cmd, args)
			if ctx.Err() != nil {
				return errors.New("interrupted; the same command goes on from here")
			}
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&i.config, "config", "", "configuration `FILE` of the node")
	flags.StringVar(&i.to, "to", "", "`URL` of the origin")
	flags.StringVar(&i.keyFile, "key", "", "`FILE.pub` with the ledger's public key, for --to")
	flags.StringArrayVar(&i.names, "name", nil, "`NAME` that the ledger has for the registry or the file server, for --to; may be repeated, and the first counts that ever had a name")
	flags.BoolVar(&i.unproven, "unproven", false, "take in names that no ledger has, too: they are what whoever wrote the bundle says")
	return cmd
}

func (i *importing) run(ctx context.Context, cmd *cobra.Command, paths []string) error {
	r, err := bundle.Open(ctx, paths...)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read from only
	url, end, err := serveHere(ctx, r.Handler())
	if err != nil {
		return err
	}
	defer end()
	if i.to != "" {
		err = i.push(ctx, cmd, r, url)
	} else {
		err = i.load(ctx, cmd, r, url)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d images and %d files are in\n", len(r.Contents.Images), len(r.Contents.Files))
	return err
}

// state is that of the bundle's ledger, which follows the one in a storage, where it is put;
// nil is nowhere.
func (i *importing) state(ctx context.Context, r *bundle.Reader, keyFile string, to ledger.Storage) (*ledger.State, error) {
	if !r.HasLedger() {
		if i.unproven {
			return new(ledger.State), nil
		}
		return nil, errors.New("the bundle has no ledger, so that nothing proves its names; --unproven takes them as they are")
	}
	key, err := ledger.LoadKey(keyFile)
	if err != nil {
		return nil, err
	}
	follower, err := ledger.NewFollower(ctx, ledger.FollowerConfig{Source: r, Key: key, Copy: to})
	if err == nil {
		err = follower.Poll(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("the bundle's ledger: %w", err)
	}
	return follower.State(), nil
}

// push sends the bundle to an origin.
func (i *importing) push(ctx context.Context, cmd *cobra.Command, r *bundle.Reader, from string) error {
	state, err := i.state(ctx, r, i.keyFile, nil)
	if err != nil {
		return err
	}
	called := func(ledger.Kind, string) []string { return i.names }
	if err := r.Contents.Check(state, called, i.unproven); err != nil {
		return err
	}
	client, err := transfer.New(transfer.Config{})
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // idle connections
	host := func(url string) string {
		_, rest, _ := strings.Cut(strings.TrimRight(url, "/"), "://")
		return rest
	}
	show := newLines(cmd.ErrOrStderr(), len(r.Contents.Images)+len(r.Contents.Files))
	defer show.end()
	for n := range r.Contents.Images {
		image := &r.Contents.Images[n]
		what := transfer.Copy{
			From:   transfer.Repository{Host: host(from), Name: image.Upstream + "/" + image.Repository},
			To:     transfer.Repository{Host: host(i.to), Name: image.Repository},
			Digest: image.Root.Digest,
		}
		if image.Tag != "" {
			what.Tags = []string{image.Tag}
		}
		if _, err := client.Copy(ctx, what); err != nil {
			return err
		}
		show.done(image.Ref())
	}
	to, err := client.OpenFileStore(ctx, strings.TrimRight(i.to, "/"))
	if err != nil {
		return err
	}
	for n := range r.Contents.Files {
		f := &r.Contents.Files[n]
		store, err := client.OpenFileStore(ctx, from+"/"+f.Upstream)
		if err != nil {
			return err
		}
		if _, err := client.CopyFile(ctx, transfer.FileCopy{From: store, To: to, Name: f.Path, SHA256: f.Digest, Overwrite: true}); err != nil {
			return err
		}
		show.done(f.Path)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"entrepot/blobstore"
	"entrepot/promote/bundle"
	"entrepot/promote/ledger"
	"entrepot/promote/transfer"

	"github.com/dustin/go-humanize"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

// exporting is a bundle on its way out.
type exporting struct {
	config, from string
	imageFile    string
	patterns     []string // of files
	out          string
	splitText    string
	unproven     bool

	split Size
	lines []string // of imageFile
	cfg   *NodeConfig
	ups   []exported // with names of the ledger
	log   *ledger.Log
	store ledger.Reader
	what  bundle.Contents
}

// exported is an upstream of the node.
type exported struct {
	bundle.Upstream

	ledger *LedgerConfig // nil without one
	names  []string      // what it calls the upstream
}

func exportCommand() *cobra.Command {
	var e exporting
	cmd := &cobra.Command{
		Use:   "export --config FILE --images FILE --files PATTERN -o BUNDLE",
		Short: "Write images and files, with the ledger's proofs, for where there is no network",
		Long: `Export has the node of a configuration fetch images and files, and writes them with
everything attached to them, and with the whole ledger that proves what their names are,
to BUNDLE: a tar that is an OCI image layout, which other tools can read as an
oci-archive. BUNDLE.sha256sums, written last, says that it is complete. Interrupted at any
point, the same command goes on, and keeps what is whole.

The file of --images has a line for each NAME:TAG or NAME@DIGEST, as clients of the node
write it with the upstream before it, or for a pattern of names that the ledger has, such
as registry.k8s.io/coredns/*:v1.9.*; "-" is standard input. --files is a pattern of paths
that the ledger has, with or without the upstream, and can be given several times.

A name that the ledger of its upstream does not have, or has as something else, is not
written: the ledger is read again once, since somebody may have promoted meanwhile, and
then export fails. Names of upstreams without a ledger are written, and told.`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if e.out == "" || e.imageFile == "" && len(e.patterns) == 0 {
				return errors.New("export needs -o, and --images or --files")
			}
			if err := e.split.UnmarshalText([]byte(e.splitText)); err != nil {
				return fmt.Errorf("--split %q %w", e.splitText, err)
			}
			return nil
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			ctx, end := untilSignal(cmd)
			defer end()
			err := e.run(ctx, cmd)
			if ctx.Err() != nil {
				return errors.New("interrupted; the same command goes on from here")
			}
			return err
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&e.config, "config", "entrepot.yaml", "configuration `FILE` of the node")
	flags.StringVar(&e.from, "from", "", "`URL` at which the node is asked, unless that is node.listen on this machine")
	flags.StringVar(&e.imageFile, "images", "", "`FILE` with the images, a line for each; - is standard input")
	flags.StringArrayVar(&e.patterns, "files", nil, "`PATTERN` of the files")
	flags.StringVarP(&e.out, "output", "o", "", "`BUNDLE` to write")
	flags.BoolVar(&e.unproven, "unproven", false, "write names that the ledger of their upstream has never had, too: import takes them by its --unproven only")
	flags.StringVar(&e.splitText, "split", "0", "most bytes of a part, such as 4GiB: then there are BUNDLE.001, BUNDLE.002 and so on")
	return cmd
}

func (e *exporting) run(ctx context.Context, cmd *cobra.Command) error {
	cfg, err := loadConfig(e.config)
	if err != nil {
		return err
	}
	if e.cfg = cfg.Node; e.cfg == nil {
		return fmt.Errorf("%s has no node", e.config)
	}
	stop, err := e.reach(ctx, cfg, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer stop()
	if err := e.openLedger(ctx); err != nil {
		return err
	}
	if err := e.readList(cmd.InOrStdin()); err != nil {
		return err
	}
	if err := e.choose(); err != nil {
		return err
	}
	w, err := bundle.Create(ctx, e.out, int64(e.split))
	if err != nil {
		return err
	}
	if err := e.writeProven(ctx, cmd, w); err != nil {
		return errors.Join(err, w.Close())
	}
	var checkpoint ledger.Checkpoint
	var log ledger.Reader // an interface that holds nil is not nil
	if e.log != nil {
		checkpoint, log = e.log.Checkpoint(), e.store
	}
	if e.log != nil {
		e.what.Created = newest(e.log.State())
	}
	if err := w.Finish(ctx, &e.what, log, checkpoint); err != nil {
		return err
	}
	if _, err = fmt.Fprintf(cmd.OutOrStdout(), "%d images and %d files are in %s, the ledger up to entry %d with them\n",
		len(e.what.Images), len(e.what.Files), e.out, checkpoint.Size); err != nil || e.unprovenNames() == 0 {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "no ledger proves what %d of them are: import takes them with --unproven only\n", e.unprovenNames())
	return err
}

// newest is when the last entry of a ledger was written. It stands for when a bundle was
// made, so that the same content comes to the same bytes.
func newest(s *ledger.State) (t time.Time) {
	if s.Len() > 0 {
		for e := range s.Entries(s.Len() - 1) {
			t = e.Time.UTC()
		}
	}
	return t
}

// reach finds the node: the one that runs, or else one of this process.
func (e *exporting) reach(ctx context.Context, cfg *Config, stderr io.Writer) (stop func(), err error) {
	nothing := func() {}
	if e.from != "" {
		e.from = strings.TrimRight(e.from, "/")
		return nothing, nil
	}
	quietly := cfg.Log
	quietly.Access, quietly.Level = false, "error"
	logs := newLoggers(quietly, stderr)
	n, err := openNode(cfg.Node, logs, prometheus.NewRegistry(), readVersion()) //nolint:contextcheck // it lives until it is closed
	if errors.Is(err, blobstore.ErrInUse) {
		if cfg.Node.TLS != nil {
			return nothing, errors.New("the node runs, with a certificate: say by --from at which URL it is asked")
		}
		host, port, err := net.SplitHostPort(string(cfg.Node.Listen))
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		e.from = "http://" + net.JoinHostPort(host, port)
		return nothing, err
	}
	if err != nil {
		return nothing, err
	}
	for _, f := range n.follow {
		_ = f.Poll(ctx) // openLedger tells of one that cannot be read
	}
	url, end, err := serveHere(ctx, n.handler())
	e.from = url
	return func() {
		end()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		_ = n.close(closing) // all that was asked of it is done
		logs.close()
	}, err
}

// serveHere serves something to this process alone, as far as loopback is that.
func serveHere(ctx context.Context, h http.Handler) (url string, end func(), err error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", func() {}, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln) // until it is closed
	}()
	return "http://" + ln.Addr().String(), func() { _ = s.Close(); <-done }, nil
}

// openLedger reads the ledger of the node's upstreams, of which there may be one.
func (e *exporting) openLedger(ctx context.Context) error {
	var one *LedgerConfig
	add := func(name string, kind ledger.Kind, urls []URL, l *LedgerConfig) error {
		up := exported{Upstream: bundle.Upstream{Name: name, Kind: kind}, ledger: l}
		if l != nil {
			texts := make([]string, len(urls))
			for i, u := range urls {
				texts[i] = string(u)
			}
			up.names = ledgerNames(l, name, texts)
			if one != nil && ledgerID(one) != ledgerID(l) {
				return errors.New("the node follows several ledgers, and a bundle has one: write a configuration for each")
			}
			one = l
		}
		e.ups = append(e.ups, up)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Upstreams)) {
		u := e.cfg.Upstreams[name]
		if err := add(name, ledger.Image, u.URLs, u.Ledger); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Files)) {
		f := e.cfg.Files[name]
		if err := add(name, ledger.File, f.URLs, f.Ledger); err != nil {
			return err
		}
	}
	if one == nil {
		return nil
	}
	key, err := ledger.LoadKey(string(one.Key))
	if err != nil {
		return err
	}
	storage, err := ledger.OpenStorage(one.URL)
	if err != nil {
		return err
	}
	if e.log, err = ledger.New(ctx, storage, ledger.Config{Key: key}); err == nil {
		err = existing(e.log, one.URL)
	}
	e.store = storage
	return err
}

// write fetches what is not there.
func (e *exporting) write(ctx context.Context, cmd *cobra.Command, w *bundle.Writer) error {
	client, err := transfer.New(transfer.Config{})
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // idle connections
	host := strings.TrimPrefix(strings.TrimPrefix(e.from, "http://"), "https://")
	show := newFetchLine(cmd.ErrOrStderr(), len(e.what.Images)+len(e.what.Files))
	defer show.end()
	source := &bundle.Source{Client: client, Host: host, URL: e.from, Wrote: show.wrote, Done: show.done}
	if kept := w.Kept(); kept > 0 {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s were there already, and are right\n", humanize.IBytes(uint64(kept)))
	}
	return w.Fetch(ctx, source, &e.what)
}

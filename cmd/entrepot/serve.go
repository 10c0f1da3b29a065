package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"entrepot/cmd/internal/certs"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

const (
	// certInterval is how often the certificate's files are looked at.
	certInterval = 10 * time.Second
	// closeTimeout bounds what remains to be done after the last transfer
	// ended or was cut: putting fills away, closing the store.
	closeTimeout = 10 * time.Second
)

func serveCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run every role that the configuration file has",
		Long: `Serve runs every role that the configuration file has, until SIGTERM or
SIGINT. Running transfers then get node.shutdown_timeout to finish; a second
signal cuts them. SIGHUP has the certificate's files read at once.

Without a file it runs a node for the public registries on :5000, with its store
in ./data, and the admin listener on 127.0.0.1:9090.`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				file = os.Getenv("ENTREPOT_CONFIG")
			}
			cfg := standaloneConfig()
			if file != "" {
				var err error
				if cfg, err = loadConfig(file); err != nil {
					return err
				}
			}
			return serve(cmd.Context(), cfg, cmd.ErrOrStderr())
		}),
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file, default $ENTREPOT_CONFIG; without either, standalone")
	return cmd
}

// serve runs the roles of cfg until a signal or ctx ends it, or a listener
// fails.
func serve(ctx context.Context, cfg *Config, stderr io.Writer) error {
	stop, cut, endSignals := onSignals(ctx)
	defer endSignals()
	limitMemory(cfg.Node.Memory, os.LookupEnv)
	logs := newLoggers(cfg.Log, stderr)
	defer logs.close()

	p, err := listenAll(stop, cfg, logs.main)
	if err != nil {
		return err
	}
	defer p.closeListeners()
	build := readVersion()
	p.registry.MustRegister(buildMetrics(build)...)

	// The admin listener comes first, so that a store that takes long to open
	// can be watched; the node's accepts from the start and answers once the
	// store is open.
	p.start(p.admin, newServer(adminHandler(p.registry, &p.ready, build.Version), nil, logs.main))
	node, err := openNode(cfg.Node, logs, p.registry, build) //nolint:contextcheck // the node lives until close, not until the signal
	if err != nil {
		return errors.Join(err, p.shutdown(cut, 0))
	}
	p.start(p.node, newServer(node.handler, p.tls, logs.main))
	p.ready.Store(true)
	announce(logs.main, stderr, cfg, p, build)

	var failed error
	select {
	case <-stop.Done():
	case failed = <-p.failed:
	}
	logs.main.Info("stopping; running transfers may finish", "timeout", cfg.Node.ShutdownTimeout.String())
	if err := p.shutdown(cut, time.Duration(cfg.Node.ShutdownTimeout)); err != nil {
		logs.main.Warn("transfers were cut", "reason", err)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := node.close(closing); err != nil {
		logs.main.Error("closing the node", "error", err)
	}
	logs.close() // lines of requests come before the last one
	logs.main.Info("stopped")
	return failed
}

// onSignals returns a context that ends with the first SIGTERM or SIGINT, and
// one that ends with the second; a third kills the process as if nobody
// listened.
func onSignals(ctx context.Context) (stop, cut context.Context, end func()) {
	stop, endStop := context.WithCancel(ctx)
	cut, endCut := context.WithCancel(context.WithoutCancel(ctx))
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for _, endNext := range []func(){endStop, endCut} {
			select {
			case <-signals:
				endNext()
			case <-over:
				return
			}
		}
		signal.Stop(signals)
	})
	return stop, cut, func() {
		signal.Stop(signals)
		close(over)
		running.Wait()
		endStop()
		endCut()
	}
}

// process is the listeners, what serves on them, and what watches them.
type process struct {
	node, admin net.Listener
	tls         *tls.Config // of the node; nil is plain HTTP
	registry    *prometheus.Registry
	ready       atomic.Bool
	failed      chan error // a server ended by itself

	servers []*http.Server // in the order they were started
	running sync.WaitGroup
	end     context.CancelFunc // of what watches
}

// listenAll takes the addresses and the certificate, so that what is wrong
// with them is told before anything runs.
func listenAll(ctx context.Context, cfg *Config, log *slog.Logger) (*process, error) {
	p := &process{registry: prometheus.NewRegistry(), failed: make(chan error, 2)}
	watching, end := context.WithCancel(context.WithoutCancel(ctx))
	p.end = end
	var err error
	if p.admin, err = listen(ctx, "admin.listen", cfg.Admin.Listen); err != nil {
		p.closeListeners()
		return nil, err
	}
	if p.node, err = listen(ctx, "node.listen", cfg.Node.Listen); err != nil {
		p.closeListeners()
		return nil, err
	}
	if cfg.Node.TLS == nil {
		return p, nil
	}
	pair, err := certs.Load(string(cfg.Node.TLS.Cert), string(cfg.Node.TLS.Key), log)
	if err != nil {
		p.closeListeners()
		return nil, fmt.Errorf("node.tls: %w", err)
	}
	p.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.Certificate}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	p.running.Go(func() {
		defer signal.Stop(hangup)
		pair.Watch(watching, certInterval, hangup)
	})
	return p, nil
}

func (p *process) start(ln net.Listener, s *http.Server) {
	p.servers = append(p.servers, s)
	p.running.Go(func() {
		if err := serveOn(s, ln); err != nil {
			p.failed <- err
		}
	})
}

// shutdown stops taking requests and waits for the running ones until timeout
// or until cut ends; then it cuts them and says why. The admin listener, which
// came first, goes last: meanwhile it tells that the process is not ready.
func (p *process) shutdown(cut context.Context, timeout time.Duration) error {
	p.ready.Store(false)
	finishing, cancel := context.WithTimeoutCause(cut, timeout, fmt.Errorf("not finished after %v", timeout))
	defer cancel()
	var why error
	for i, s := range slices.Backward(p.servers) {
		if i == 0 {
			_ = s.Close() // nobody waits for an answer of the admin listener
			continue
		}
		if err := s.Shutdown(finishing); err != nil {
			why = context.Cause(finishing)
			_ = s.Close() // it was told above why
		}
	}
	p.end()
	p.running.Wait()
	return why
}

// closeListeners frees the addresses, where no server did.
func (p *process) closeListeners() {
	p.end()
	for _, ln := range []net.Listener{p.node, p.admin} {
		if ln != nil {
			ln.Close()
		}
	}
}

// announce tells what runs, and a person what to try.
func announce(log *slog.Logger, stderr io.Writer, cfg *Config, p *process, build buildVersion) {
	log.Info("serving", "version", build.Version,
		"node", p.node.Addr().String(), "tls", p.tls != nil, "admin", p.admin.Addr().String(),
		"store", cfg.Node.Store.String(), "memory", cfg.Node.Memory.String(),
		"upstreams", slices.Sorted(maps.Keys(cfg.Node.Upstreams)), "default_upstream", cfg.Node.DefaultUpstream)
	if !isTerminal(stderr) {
		return
	}
	_, port, err := net.SplitHostPort(p.node.Addr().String())
	if err != nil {
		return
	}
	name := slices.Sorted(maps.Keys(cfg.Node.Upstreams))[0]
	image := "NAME"
	if _, ok := cfg.Node.Upstreams["docker.io"]; ok {
		name, image = "docker.io", "library/alpine"
	}
	scheme := "http"
	if p.tls != nil {
		scheme = "https"
	}
	_, _ = fmt.Fprintf(stderr, `
Try it:      crane pull localhost:%[2]s/%[3]s/%[4]s image.tar
containerd:  /etc/containerd/certs.d/%[3]s/hosts.toml
             [host."%[1]s://localhost:%[2]s"]
               capabilities = ["pull", "resolve"]

`, scheme, port, name, image)
}

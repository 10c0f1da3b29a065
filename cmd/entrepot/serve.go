package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"entrepot/cmd/internal/certs"
	"entrepot/proxy/mirror"

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
signal cuts them. SIGHUP has the certificate's files and the router's list of
mirrors read at once.

Without a file it runs a node for the public registries on :5000, with its store
in ./data, an empty origin on :5001 that nobody may write, and the admin
listener on 127.0.0.1:9090.`,
		Args: cobra.NoArgs,
		RunE: runs(func(cmd *cobra.Command, _ []string) error {
			cfg, file, err := servedConfig(file)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, file, cmd.ErrOrStderr())
		}),
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file, default $ENTREPOT_CONFIG; without either, standalone")
	return cmd
}

// servedConfig is the configuration that a process runs by which is told a file, or
// none, and that file.
func servedConfig(file string) (*Config, string, error) {
	if file == "" {
		file = os.Getenv("ENTREPOT_CONFIG")
	}
	if file == "" {
		return standaloneConfig(), "", nil
	}
	cfg, err := loadConfig(file)
	return cfg, file, err
}

// role is one of the parts that a process can play, ready to be served.
type role interface {
	handler() http.Handler
	// close ends the role; its server is shut down before.
	close(ctx context.Context) error
}

// serve runs the roles of cfg, which file has unless it is "", until a signal or ctx ends it, or a listener
// fails.
func serve(ctx context.Context, cfg *Config, file string, stderr io.Writer) error {
	stop, cut, endSignals := onSignals(ctx)
	defer endSignals()
	limitMemory(cfg.memory(), os.LookupEnv)
	logs := newLoggers(cfg.Log, stderr)
	defer logs.close()

	cfg.fitHandles(openFiles(), logs.main)
	p, err := listenAll(stop, cfg, logs.main)
	if err != nil {
		return err
	}
	defer p.closeListeners()
	build := readVersion()
	p.registry.MustRegister(buildMetrics(build)...)

	// The admin listener comes first, so that a store that takes long to open
	// can be watched; the others accept from the start and answer once their
	// stores are open.
	own := new(LimitsConfig)
	own.SetDefaults()
	operators := withToken(string(cfg.Admin.Token), adminHandler(p.registry, &p.ready, build.Version, mirrorAdmin(p.mirror.Load)))
	p.start(p.admin, newServer(operators, nil, own, logs.main))
	roles, err := openRoles(cfg, file, logs, p.registry, build) //nolint:contextcheck // roles live until close, not until the signal
	if err != nil {
		return errors.Join(err, p.shutdown(cut, 0))
	}
	if n, ok := roles["node"].(*node); ok {
		p.mirror.Store(n.mirror)
	}
	for _, d := range p.doors {
		p.startDoor(&d, roles[d.role].handler(), logs.main)
	}
	p.ready.Store(true)
	announce(logs.main, stderr, cfg, p, build)

	var failed error
	select {
	case <-stop.Done():
	case failed = <-p.failed:
	}
	p.ready.Store(false) // before anybody is told
	timeout := cfg.shutdownTimeout()
	logs.main.Info("stopping; running transfers may finish", "timeout", timeout.String())
	if err := p.shutdown(cut, timeout); err != nil {
		logs.main.Warn("transfers were cut", "reason", err)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	for _, d := range p.doors {
		if err := roles[d.role].close(closing); err != nil {
			logs.main.Error("closing a role", "role", d.role, "error", err)
		}
	}
	logs.close() // lines of requests come before the last one
	logs.main.Info("stopped")
	return failed
}

// openRoles makes the roles that cfg has, by their keys in the configuration.
func openRoles(cfg *Config, file string, logs *loggers, reg prometheus.Registerer, build buildVersion) (map[string]role, error) {
	roles := map[string]role{}
	var err error
	if cfg.Node != nil {
		var n *node
		if n, err = openNode(cfg.Node, logs, reg, build); err == nil {
			n.start(logs.main)
			roles["node"] = n
		}
	}
	if cfg.Origin != nil && err == nil {
		var o *originRole
		if o, err = openOrigin(cfg.Origin, logs, reg); err == nil {
			roles["origin"] = o
		}
	}
	if cfg.Router != nil && err == nil {
		var own http.Handler // an interface that holds a nil *node is not nil
		if n := roles["node"]; n != nil {
			own = n.handler()
		}
		var r *routerRole
		if r, err = openRouter(cfg.Router, file, own, logs, reg); err == nil {
			roles["router"] = r
		}
	}
	if err == nil {
		return roles, nil
	}
	closing, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for _, r := range roles {
		err = errors.Join(err, r.close(closing))
	}
	return nil, err
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
	admin    *net.TCPListener
	doors    []door // of the roles
	registry *prometheus.Registry
	ready    atomic.Bool
	mirror   atomic.Pointer[mirror.Mirror] // of the node, once it is open
	failed   chan error                    // a server ended by itself

	servers []*http.Server // in the order they were started
	running sync.WaitGroup
	watches context.Context    // of what watches
	end     context.CancelFunc // of watches
}

// door is where a role listens.
type door struct {
	*net.TCPListener
	role    string         // its key in the configuration
	tls     *tls.Config    // nil is plain HTTP
	clients *x509.CertPool // authorities of the certificates that clients are asked for; nil asks for none
	limits  *LimitsConfig
	trusted []netip.Prefix // whose forwarding headers are believed
}

// listenAll takes the addresses and the certificates, so that what is wrong
// with them is told before anything runs.
func listenAll(ctx context.Context, cfg *Config, log *slog.Logger) (_ *process, err error) {
	p := &process{registry: prometheus.NewRegistry(), failed: make(chan error, 4)}
	p.watches, p.end = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			p.closeListeners()
		}
	}()
	if p.admin, err = listen(ctx, "admin.listen", cfg.Admin.Listen); err != nil {
		return nil, err
	}
	clients, err := cfg.Node.clientAuthorities()
	if err != nil {
		return nil, err
	}
	if cfg.Node != nil {
		if err := p.open(ctx, door{role: "node", limits: &cfg.Node.Limits, clients: clients}, cfg.Node.Listen, cfg.Node.TLS, cfg.Node.TrustedProxies, log); err != nil {
			return nil, err
		}
	}
	if cfg.Origin != nil {
		if err := p.open(ctx, door{role: "origin", limits: &cfg.Origin.Limits}, cfg.Origin.Listen, cfg.Origin.TLS, cfg.Origin.TrustedProxies, log); err != nil {
			return nil, err
		}
	}
	if cfg.Router != nil {
		d := door{role: "router", limits: &cfg.Router.Limits}
		if cfg.Router.Fixed.any() { // then the node answers here too
			d.clients = clients
		}
		if err := p.open(ctx, d, cfg.Router.Listen, cfg.Router.TLS, cfg.Router.TrustedProxies, log); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// open takes a role's address and loads its certificate.
func (p *process) open(ctx context.Context, d door, address Address, files *TLSConfig, trusted []string, log *slog.Logger) (err error) {
	if d.trusted, err = prefixes(trusted); err != nil {
		return fmt.Errorf("%s.trusted_proxies: %w", d.role, err)
	}
	if d.TCPListener, err = listen(ctx, d.role+".listen", address); err != nil {
		return err
	}
	if files != nil {
		pair, err := certs.Load(string(files.Cert), string(files.Key), log)
		if err != nil {
			_ = d.Close()
			return fmt.Errorf("%s.tls: %w", d.role, err)
		}
		p.registry.MustRegister(certMetric(d.role, pair))
		d.tls = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.Certificate}
		askClients(d.tls, d.clients)
		hangup := make(chan os.Signal, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		p.running.Go(func() {
			defer signal.Stop(hangup)
			pair.Watch(p.watches, certInterval, hangup)
		})
	}
	p.doors = append(p.doors, d)
	return nil
}

// startDoor serves a role within its limits.
func (p *process) startDoor(d *door, h http.Handler, log *slog.Logger) {
	gate := d.limits.gate(d.role, d.trusted, log, p.registry)
	p.running.Go(func() { gate.Run(p.watches) })
	s := newServer(gate.Handler(h), d.tls, d.limits, log)
	s.ConnContext = gate.ConnContext
	p.start(gate.Listen(d.TCPListener), s)
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
	if p.admin != nil {
		_ = p.admin.Close()
	}
	for _, d := range p.doors {
		_ = d.Close()
	}
}

// announce tells what runs, and a person what to try.
func announce(log *slog.Logger, stderr io.Writer, cfg *Config, p *process, build buildVersion) {
	attrs := []any{"version", build.Version, "admin", p.admin.Addr().String()}
	for _, d := range p.doors {
		attrs = append(attrs, d.role, d.Addr().String(), d.role+"_tls", d.tls != nil)
	}
	if n := cfg.Node; n != nil {
		attrs = append(attrs, "store", n.Store.String(), "memory", n.Memory.String(),
			"upstreams", slices.Sorted(maps.Keys(n.Upstreams)), "default_upstream", n.DefaultUpstream,
			"files", slices.Sorted(maps.Keys(n.Files)))
	}
	if o := cfg.Origin; o != nil {
		attrs = append(attrs, "origin_store", o.Store.String(), "origin_writable", o.Htpasswd != "")
	}
	if r := cfg.Router; r != nil {
		attrs = append(attrs, "mirrors", len(r.Mirrors))
	}
	log.Info("serving", attrs...)
	if !isTerminal(stderr) {
		return
	}
	for _, d := range p.doors {
		if d.role == "node" {
			tellHowToTry(stderr, cfg.Node, d)
		}
	}
}

// tellHowToTry writes what a person can do with a node right away.
func tellHowToTry(stderr io.Writer, n *NodeConfig, d door) {
	_, port, err := net.SplitHostPort(d.Addr().String())
	if err != nil {
		return
	}
	if len(n.Upstreams) == 0 {
		return
	}
	name := slices.Sorted(maps.Keys(n.Upstreams))[0]
	image := "NAME"
	if _, ok := n.Upstreams["docker.io"]; ok {
		name, image = "docker.io", "library/alpine"
	}
	scheme := "http"
	if d.tls != nil {
		scheme = "https"
	}
	_, _ = fmt.Fprintf(stderr, `
Try it:      crane pull localhost:%[2]s/%[3]s/%[4]s image.tar
containerd:  /etc/containerd/certs.d/%[3]s/hosts.toml
             [host."%[1]s://localhost:%[2]s"]
               capabilities = ["pull", "resolve"]

`, scheme, port, name, image)
}

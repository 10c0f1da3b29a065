package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"entrepot/cmd/internal/clientconf"

	"github.com/spf13/cobra"
)

// clientConfig is the command line of client-config.
type clientConfig struct {
	client       clientconf.Client
	node, router string
	upstreams    []string
	root, ca     string
	output       string
	dialTimeout  time.Duration
	images       []string

	write, undo, check, force, untrusted bool
}

// describeTimeout bounds the question what a server is.
const describeTimeout = 10 * time.Second

func clientConfigCommand() *cobra.Command {
	var c clientConfig
	names := make([]string, 0, len(clientconf.Clients()))
	for _, client := range clientconf.Clients() {
		names = append(names, string(client))
	}
	cmd := &cobra.Command{
		Use:   "client-config " + strings.Join(names, "|") + " --node URL|--router URL [--write|--check] | --undo",
		Short: "Point a client of this machine at a node or router",
		Long: `Client-config prints the files that have a client pull through a node or router,
for every upstream that it has. --write puts them in place: what is in them
stays, what was there is kept in /var/lib/entrepot/client-config, and --undo puts
it back. Run again, it changes only what has changed at the server.

--check asks for a manifest as the client would, and says what is wrong when it
does not come.

The exit status is 0 when it is done, 1 when something failed or a check did, and
2 for wrong usage.`,
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names,
		PreRunE: func(_ *cobra.Command, args []string) error {
			c.client = clientconf.Client(args[0])
			return c.usage()
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error { return c.run(cmd) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&c.node, "node", "", "URL of the node, such as https://node.example.org")
	flags.StringVar(&c.router, "router", "", "URL of the router")
	flags.StringSliceVar(&c.upstreams, "upstream", nil, "only these upstreams; they are not asked for then")
	flags.BoolVar(&c.write, "write", false, "write the files")
	flags.BoolVar(&c.undo, "undo", false, "put back what was there before --write")
	flags.BoolVar(&c.check, "check", false, "pull a manifest, and say what is wrong")
	flags.BoolVar(&c.force, "force", false, "with --undo: also what somebody changed since")
	flags.BoolVar(&c.untrusted, "untrusted", false, "the server is not trusted with what tags mean: ask it for content by digest only")
	flags.StringVar(&c.root, "root", "/", "folder that has the machine's files")
	flags.StringVar(&c.ca, "ca", "", "PEM file of the certificate authority of the server, for the client to trust")
	flags.DurationVar(&c.dialTimeout, "dial-timeout", time.Second, "how long the client waits for the server before it goes on without, where it can be told")
	flags.StringSliceVar(&c.images, "image", nil, "with --check: images to ask for, such as docker.io/library/alpine:3")
	flags.StringVar(&c.output, "output", "text", "text or json")
	return cmd
}

// usage says what is wrong with the command line.
func (c *clientConfig) usage() error {
	switch {
	case c.output != "text" && c.output != "json":
		return fmt.Errorf("--output %q: want text or json", c.output)
	case c.write && c.undo || c.write && c.check || c.undo && c.check:
		return errors.New("--write, --undo and --check are one or the other")
	case c.force && !c.undo:
		return errors.New("--force goes with --undo")
	case len(c.images) > 0 && !c.check:
		return errors.New("--image goes with --check")
	case c.dialTimeout < 0:
		return errors.New("--dial-timeout must be 0s (the client's own) or more")
	case c.undo:
		return nil
	case (c.node == "") == (c.router == ""):
		return errors.New("client-config needs --node URL or --router URL")
	}
	for _, name := range c.upstreams {
		if err := clientconf.CheckName(name); err != nil {
			return fmt.Errorf("--upstream: %w", err)
		}
	}
	if _, err := clientconf.ParseURL(c.node + c.router); err != nil {
		return fmt.Errorf("--node or --router: %w", err)
	}
	return nil
}

func (c *clientConfig) run(cmd *cobra.Command) error {
	machine, err := clientconf.Open(c.root)
	if err != nil {
		return err
	}
	if c.undo {
		return c.putBack(cmd, machine)
	}
	server, err := c.server()
	if err != nil {
		return err
	}
	if c.check {
		return c.tryPull(cmd, machine, server)
	}
	if err := c.describe(cmd.Context(), server); err != nil {
		return err
	}
	plan, err := machine.Plan(c.client, server)
	if err != nil {
		return err
	}
	if !c.write {
		return c.show(cmd.OutOrStdout(), plan)
	}
	return c.apply(cmd, machine, plan)
}

// server is what the command line says of the server.
func (c *clientConfig) server() (*clientconf.Server, error) {
	s, err := openServer(c.node+c.router, c.ca)
	if err != nil {
		return nil, err
	}
	s.Untrusted, s.DialTimeout = c.untrusted, c.dialTimeout
	return s, nil
}

// openServer is a node or router by its URL, with the authority in a file, which may
// be "".
func openServer(at, ca string) (*clientconf.Server, error) {
	u, err := clientconf.ParseURL(at)
	if err != nil {
		return nil, err
	}
	s := &clientconf.Server{URL: u}
	if ca == "" {
		return s, nil
	}
	if s.CA, err = readSmall(ca); err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(s.CA) {
		return nil, fmt.Errorf("--ca: %s holds no PEM certificate", ca)
	}
	return s, nil
}

// describe has the server say what it is. Upstreams that are named are believed
// without.
func (c *clientConfig) describe(ctx context.Context, s *clientconf.Server) error {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	d, err := clientconf.Describe(ctx, clientOf(s), s.URL)
	if len(c.upstreams) == 0 {
		if err != nil {
			return fmt.Errorf("%s does not say which upstreams it has: name them with --upstream, or see --check: %w", s.URL, err)
		}
		s.Description = *d
		if len(d.Upstreams) == 0 && c.client != clientconf.Curl {
			return fmt.Errorf("the %s %s names no upstreams of images: name them with --upstream", d.Role, s.URL)
		}
		return nil
	}
	if err != nil { // docker.io is what a node takes for the default unless it is told otherwise
		d = &clientconf.Description{DefaultUpstream: "docker.io"}
	}
	s.Description = *d
	s.Upstreams = nil
	for _, name := range c.upstreams {
		known := clientconf.Upstream{Name: name}
		if i := slices.IndexFunc(d.Upstreams, func(u clientconf.Upstream) bool { return u.Name == name }); i >= 0 {
			known = d.Upstreams[i]
		}
		s.Upstreams = append(s.Upstreams, known)
	}
	return nil
}

// clientOf is an HTTP client that trusts what the machine trusts, and the CA. It
// follows no redirect: a server describes itself.
func clientOf(s *clientconf.Server) *http.Client {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if s.CA != nil {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		pool.AppendCertsFromPEM(s.CA)
		transport.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// show prints what would be written.
func (c *clientConfig) show(out io.Writer, plan *clientconf.Plan) error {
	if c.output == "json" {
		return writeJSON(out, plan)
	}
	var b strings.Builder
	for _, f := range plan.Files {
		fmt.Fprintf(&b, "# %s (%s)\n%s\n", f.Path, f.Action, f.Content)
	}
	b.WriteString(plan.Advice)
	for _, note := range plan.Notes {
		fmt.Fprintf(&b, "# Note: %s\n", note)
	}
	if plan.Changed() {
		b.WriteString("# Nothing was written. With --write, this is.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// apply writes the plan, and says what was done.
func (c *clientConfig) apply(cmd *cobra.Command, machine *clientconf.Machine, plan *clientconf.Plan) error {
	if err := machine.Write(plan); err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if c.output == "json" {
		return writeJSON(out, plan)
	}
	var b strings.Builder
	for _, f := range plan.Files {
		fmt.Fprintf(&b, "%s: %s\n", map[clientconf.Action]string{
			clientconf.Create: "created", clientconf.Change: "changed", clientconf.Unchanged: "unchanged",
		}[f.Action], f.Path)
	}
	b.WriteString(plan.Advice)
	for _, note := range plan.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	if plan.Changed() {
		for _, command := range plan.After {
			fmt.Fprintf(&b, "now run: %s\n", command)
		}
	} else {
		b.WriteString("nothing had to be changed\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// putBack undoes what was written.
func (c *clientConfig) putBack(cmd *cobra.Command, machine *clientconf.Machine) error {
	undone, err := machine.Undo(c.client, c.force)
	if err != nil {
		return err
	}
	if c.output == "json" {
		return writeJSON(cmd.OutOrStdout(), undone)
	}
	if len(undone) == 0 {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "nothing was written for %s\n", c.client)
		return err
	}
	for _, u := range undone {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", u.Outcome, u.Path); err != nil {
			return err
		}
	}
	return nil
}

// pullTimeout bounds each request of a check.
const pullTimeout = 20 * time.Second

// tryPull looks at the way to the images, and says what is wrong with it.
func (c *clientConfig) tryPull(cmd *cobra.Command, machine *clientconf.Machine, s *clientconf.Server) error {
	for _, name := range c.upstreams {
		s.Upstreams = append(s.Upstreams, clientconf.Upstream{Name: name})
	}
	client := clientOf(s)
	client.CheckRedirect, client.Timeout = nil, pullTimeout // a router redirects
	findings := machine.Check(cmd.Context(), c.client, s, c.images, client)
	bad := slices.ContainsFunc(findings, func(f clientconf.Finding) bool { return !f.OK })
	if c.output == "json" {
		if err := writeJSON(cmd.OutOrStdout(), findings); err != nil {
			return err
		}
	} else {
		for _, f := range findings {
			verdict := "ok  "
			if !f.OK {
				verdict = "FAIL"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s: %s\n", verdict, f.What, f.Detail); err != nil {
				return err
			}
		}
	}
	if bad {
		return quiet(exitFailed)
	}
	return nil
}

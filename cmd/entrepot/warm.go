package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"entrepot/cmd/internal/clientconf"
	"entrepot/proxy/warm"

	"github.com/dustin/go-humanize"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// warming is the command line of warm.
type warming struct {
	node, router, ca string
	list             string
	output           string
	jobs             int
	platforms        []string

	wanted []ocispec.Platform // platforms, read
}

func warmCommand() *cobra.Command {
	var w warming
	cmd := &cobra.Command{
		Use:   "warm --node URL|--router URL [--list FILE] [NAME...]",
		Short: "Have a node fetch images and files before anybody asks",
		Long: `Warm pulls images and files through a node, so that it has them when somebody
asks: manifests, configurations and layers, verified. What the node has already is
not sent again.

The list has a name on each line, such as "kubeadm config images list" writes, or
is manifests of Kubernetes, in which every image is taken ("helm template",
"kustomize build", "kubectl get -o yaml"); "-" is the standard input. A name is an
image, the URL of a file, or a path that begins with a file server of the node.
A name and password for the node are taken from the docker configuration.

It shows progress on a terminal, and writes a line of JSON for each name elsewhere.
The exit status is 0 when all is there, 1 when something failed, 2 for wrong usage.`,
		PreRunE: func(_ *cobra.Command, names []string) error { return w.usage(names) },
		RunE:    runs(w.run),
	}
	flags := cmd.Flags()
	flags.StringVar(&w.node, "node", "", "URL of the node, such as https://node.example.org")
	flags.StringVar(&w.router, "router", "", "URL of the router: the mirrors that it sends this machine to are warmed")
	flags.StringVar(&w.ca, "ca", "", "PEM file of the certificate authority of the server")
	flags.StringVar(&w.list, "list", "", `file with the names, "-" for the standard input`)
	flags.StringSliceVar(&w.platforms, "platform", nil, "platforms that are wanted of images, such as linux/amd64; all without")
	flags.IntVar(&w.jobs, "jobs", 8, "how much is fetched at once")
	flags.StringVar(&w.output, "output", "auto", "text, json, or auto: text on a terminal, else json")
	return cmd
}

func (w *warming) usage(names []string) error {
	switch {
	case (w.node == "") == (w.router == ""):
		return errors.New("warm needs --node URL or --router URL")
	case w.list == "" && len(names) == 0:
		return errors.New("warm needs --list FILE or names")
	case !slices.Contains([]string{"auto", "text", "json"}, w.output):
		return fmt.Errorf("--output %q: want auto, text or json", w.output)
	case w.jobs < 1:
		return fmt.Errorf("--jobs %d: want at least 1", w.jobs)
	}
	for _, text := range w.platforms {
		p, err := warm.ParsePlatform(text)
		if err != nil {
			return fmt.Errorf("--platform: %w", err)
		}
		w.wanted = append(w.wanted, p)
	}
	if _, err := clientconf.ParseURL(w.node + w.router); err != nil {
		return fmt.Errorf("--node or --router: %w", err)
	}
	return nil
}

func (w *warming) run(cmd *cobra.Command, names []string) error {
	server, err := openServer(w.node+w.router, w.ca)
	if err != nil {
		return err
	}
	client := clientOf(server)
	ctx, cancel := context.WithTimeout(cmd.Context(), describeTimeout)
	described, err := clientconf.Describe(ctx, client, server.URL)
	cancel()
	isFile := func(string) bool { return false }
	switch {
	case err == nil:
		isFile = func(name string) bool {
			return slices.ContainsFunc(described.Files, func(u clientconf.Upstream) bool { return u.Name == name })
		}
	case !errors.Is(err, clientconf.ErrNoDescription):
		return err // it cannot be reached
	}
	list, err := w.read(cmd.InOrStdin(), names, isFile)
	if err != nil {
		return err
	}
	client.CheckRedirect = nil // a router redirects
	if client.Transport, err = withLogin(cmd.Context(), client.Transport, server.URL); err != nil {
		return err
	}
	d := newWarmDisplay(cmd.OutOrStdout(), cmd.ErrOrStderr(), w.output, len(list.Items))
	for _, p := range list.Problems {
		d.event(warmEvent{Event: "failed", Name: p.Text, Error: fmt.Sprintf("line %d: %v", p.Line, p.Err)})
	}
	sum := warm.Run(cmd.Context(), warm.Config{
		Source: &warm.HTTP{URL: server.URL, Client: client}, Platforms: w.wanted, Jobs: w.jobs, Report: d.result,
	}, list.Items)
	sum.Failed += len(list.Problems)
	d.done(&sum)
	if sum.Failed > 0 {
		return quiet(exitFailed)
	}
	return cmd.Context().Err()
}

// login sends a name and password to one server, and to nobody that it redirects to.
type login struct {
	next           http.RoundTripper
	server         *url.URL
	user, password string
}

// withLogin logs in at a server with what the docker configuration has for it; where
// it has nothing, or the password would be sent in the clear, nobody does.
func withLogin(ctx context.Context, next http.RoundTripper, server *url.URL) (http.RoundTripper, error) {
	ip := net.ParseIP(server.Hostname())
	if server.Scheme != "https" && server.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return next, nil
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the docker configuration: %w", err)
	}
	c, err := store.Get(ctx, server.Host)
	if err != nil {
		return nil, fmt.Errorf("looking for a login at %s in the docker configuration: %w", server.Host, err)
	}
	if c.Username == "" || c.Password == "" {
		return next, nil
	}
	return &login{next, server, c.Username, c.Password}, nil
}

// RoundTrip implements [http.RoundTripper].
func (l *login) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host == l.server.Host && req.URL.Scheme == l.server.Scheme {
		req = req.Clone(req.Context())
		req.SetBasicAuth(l.user, l.password)
	}
	return l.next.RoundTrip(req)
}

// read is what the list and the command line name.
func (w *warming) read(stdin io.Reader, names []string, isFile func(string) bool) (*warm.List, error) {
	from := stdin
	switch w.list {
	case "":
		from = strings.NewReader("")
	case "-":
	default:
		f, err := os.Open(w.list)
		if err != nil {
			return nil, fmt.Errorf("reading the list: %w", err)
		}
		defer f.Close()
		from = f
	}
	list, err := warm.ReadList(from, isFile)
	if err != nil {
		return nil, fmt.Errorf("reading the list: %w", err)
	}
	for _, name := range names {
		item, err := warm.ParseName(name, isFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list.Items = append(list.Items, item)
	}
	if len(list.Items)+len(list.Problems) == 0 {
		return nil, fmt.Errorf("%s names no image and no file", w.list)
	}
	return list, nil
}

// warmEvent is a line of what warm says to programs.
type warmEvent struct {
	Event   string        `json:"event"` // "fetched", "failed", "done"
	Name    string        `json:"name,omitempty"`
	Digest  string        `json:"digest,omitempty"`
	Blobs   int           `json:"blobs,omitempty"`
	Bytes   int64         `json:"bytes"` // that came; 0 where all was there
	Seconds float64       `json:"seconds,omitempty"`
	Error   string        `json:"error,omitempty"`
	Summary *warm.Summary `json:"summary,omitempty"`
}

// warmDisplay shows how warming goes on.
type warmDisplay struct {
	*live // nil for JSON

	out       io.Writer
	total     int
	start     time.Time
	good, bad int // names; guarded, as bytes, by the line's mu
	bytes     int64
}

func newWarmDisplay(out, stderr io.Writer, output string, total int) *warmDisplay {
	d := &warmDisplay{out: out, total: total, start: time.Now()}
	if output == "text" || output == "auto" && isTerminal(out) {
		d.live = newLive(stderr, d.line)
	}
	return d
}

func (d *warmDisplay) line() string {
	failed := ""
	if d.bad > 0 {
		failed = fmt.Sprintf(", %d failed", d.bad)
	}
	return fmt.Sprintf("%d of %d%s, %s fetched, %v", d.good+d.bad, d.total, failed,
		humanize.IBytes(uint64(d.bytes)), time.Since(d.start).Round(time.Second))
}

// result is told of each name that is done.
func (d *warmDisplay) result(r warm.Result) {
	e := warmEvent{Event: "fetched", Name: r.Item.Name, Digest: r.Digest.String(), Blobs: r.Blobs, Bytes: r.Bytes, Seconds: r.Seconds}
	if r.Err != nil {
		e.Event, e.Error = "failed", r.Err.Error()
	}
	d.event(e)
}

func (d *warmDisplay) event(e warmEvent) {
	if d.live == nil {
		_ = writeLine(d.out, e)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += e.Bytes
	begin := ""
	if d.terminal {
		begin = "\r\x1b[K"
	}
	if e.Error != "" {
		d.bad++
		d.write("%sfailed: %s: %s\n", begin, e.Name, strings.ReplaceAll(e.Error, "\n", "; "))
		return
	}
	d.good++
	if !d.terminal {
		d.write("%s %s\n", e.Name, e.Digest)
	}
}

// done tells what came of it all.
func (d *warmDisplay) done(sum *warm.Summary) {
	if d.live == nil {
		_ = writeLine(d.out, warmEvent{Event: "done", Bytes: sum.Bytes, Seconds: time.Since(d.start).Seconds(), Summary: sum})
		return
	}
	d.end()
	_, _ = fmt.Fprintf(d.out, "%d names, %d failed, %d blobs; %s fetched in %v\n", sum.Names, sum.Failed, sum.Blobs,
		humanize.IBytes(uint64(sum.Bytes)), time.Since(d.start).Round(time.Millisecond)) // whoever reads it may be gone
}

// writeLine writes a value as a line of JSON.
func writeLine(w io.Writer, v warmEvent) error { return json.NewEncoder(w).Encode(v) }

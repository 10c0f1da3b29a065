package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"entrepot/cmd/internal/clientconf"
	"entrepot/promote/ledger"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"
)

// mirrorInit is what the configuration of a mirror is made from.
type mirrorInit struct {
	from, ledger         string
	keyFile, fingerprint string
	yes                  bool
	file, dir            string
	listen, admin        string
	images, files        []string // NAME[=DESTINATION]

	// Of the router's list.
	name, public, country, lat, lon string

	// origin is where content is fetched from, and told what a router said of it.
	origin string
	told   *clientconf.Description

	key   ledger.Key
	state *ledger.State
}

func mirrorInitCommand() *cobra.Command {
	var i mirrorInit
	cmd := &cobra.Command{
		Use:   "init --from URL",
		Short: "Write the configuration of a mirror of what an origin publishes",
		Long: `Init asks a router or an origin for its ledger and the key that signs it, shows the key's
fingerprint for you to compare with the one that the operator publishes elsewhere, reads
the whole ledger by that key, and writes a configuration for entrepot serve and the key
beside it. The key decides what the mirror believes: without a terminal, give --key,
--fingerprint, or --yes.

It prints the entry by which the operator of a router adds the mirror to the list.`,
		Args: cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if i.from == "" {
				return errors.New("init needs --from, the URL of a router or an origin")
			}
			return nil
		},
		RunE: runs(func(cmd *cobra.Command, _ []string) error { return i.run(cmd) }),
	}
	flags := cmd.Flags()
	flags.StringVar(&i.from, "from", "", "`URL` of the router or the origin, such as https://artifacts.example.org")
	flags.StringVar(&i.ledger, "ledger", "", "`URL` of the ledger, unless the router tells or it is /ledger below --from")
	flags.StringVar(&i.keyFile, "key", "", "`FILE.pub` with the ledger's public key; then nothing is to be confirmed")
	flags.StringVar(&i.fingerprint, "fingerprint", "", "`SHA256` of the ledger's public key, in hex; then nothing is to be confirmed")
	flags.BoolVar(&i.yes, "yes", false, "trust whatever key the origin sends")
	flags.StringVar(&i.file, "config", "entrepot.yaml", "`FILE` to write, which must not exist")
	flags.StringVar(&i.dir, "dir", "/var/lib/entrepot", "`DIR` that is to hold the content")
	flags.StringVar(&i.listen, "listen", ":5000", "`ADDRESS` to serve at")
	flags.StringVar(&i.admin, "admin", "127.0.0.1:9090", "`ADDRESS` of the admin listener")
	flags.StringArrayVar(&i.images, "images", nil, "`NAME[=DESTINATION]`: what clients call a registry of the ledger, and what the ledger calls it")
	flags.StringArrayVar(&i.files, "files", nil, "`NAME[=DESTINATION]`: the same of a file server")
	flags.StringVar(&i.name, "name", "my-mirror", "`NAME` of the mirror in the router's list")
	flags.StringVar(&i.public, "url", "https://mirror.example.edu", "`URL` at which the router's clients reach the mirror")
	flags.StringVar(&i.country, "country", "ZZ", "`CODE` of the country it is in, ISO 3166")
	flags.StringVar(&i.lat, "lat", "0", "its latitude in degrees, north is positive")
	flags.StringVar(&i.lon, "lon", "0", "its longitude in degrees, east is positive")
	return cmd
}

func (i *mirrorInit) run(cmd *cobra.Command) error {
	i.from = strings.TrimRight(i.from, "/")
	for _, file := range []string{i.file, i.keyPath()} {
		if _, err := os.Stat(file); err == nil {
			return fmt.Errorf("%s is there already; remove it or choose another --config", file)
		}
	}
	ctx, end := context.WithTimeout(cmd.Context(), 5*time.Minute)
	defer end()
	if err := i.discover(ctx); err != nil {
		return err
	}
	if err := i.readKey(ctx); err != nil {
		return err
	}
	storage, err := ledger.OpenStorage(i.ledger)
	if err != nil {
		return err
	}
	log, err := ledger.New(ctx, storage, ledger.Config{Key: i.key})
	if err == nil {
		err = existing(log, i.ledger)
	}
	if err != nil {
		return fmt.Errorf("reading the ledger at %s: %w", redacted(i.ledger), err)
	}
	i.state = log.State()
	if err := i.confirm(cmd); err != nil {
		return err
	}
	text, err := i.text()
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(i.keyPath(), []byte(i.key.Public()+"\n"), 0o644); err != nil { // it is public
		return err
	}
	if _, err := parseConfig(i.file, []byte(text), os.LookupEnv, readSmall); err != nil {
		return errors.Join(fmt.Errorf("what was to be written is not right: %w", err), os.Remove(i.keyPath()))
	}
	if err := renameio.WriteFile(i.file, []byte(text), 0o644); err != nil { // it has no secret
		return err
	}
	return i.tell(cmd.OutOrStdout())
}

// discover finds the ledger, and the origin that has the content: a router, or a node, says
// where its ledger is, and the origin is above that. Whoever says nothing is an origin.
func (i *mirrorInit) discover(ctx context.Context) error {
	server, err := url.Parse(i.from)
	if err != nil || server.Host == "" || server.Scheme != "http" && server.Scheme != "https" {
		return fmt.Errorf("--from %s: want a URL such as https://artifacts.example.org", i.from)
	}
	i.told, err = clientconf.Describe(ctx, http.DefaultClient, server)
	if errors.Is(err, clientconf.ErrNoDescription) {
		i.told, err = new(clientconf.Description), nil
	}
	if err != nil {
		return err
	}
	i.told.Upstreams = withLedger(i.told.Upstreams, i.ledger)
	i.told.Files = withLedger(i.told.Files, i.ledger)
	for _, up := range slices.Concat(i.told.Upstreams, i.told.Files) {
		i.ledger = cmp.Or(i.ledger, up.Ledger.URL)
		if up.Ledger.URL != i.ledger {
			return fmt.Errorf("%s has several ledgers, at %s and %s: choose one with --ledger", i.from, i.ledger, up.Ledger.URL)
		}
	}
	if i.told.Role != "" && len(i.told.Upstreams)+len(i.told.Files) == 0 {
		return fmt.Errorf("%s is a %s that tells of no ledger that can be followed by HTTP: give --from the origin, or --ledger", i.from, i.told.Role)
	}
	i.ledger = cmp.Or(i.ledger, i.from+"/ledger")
	i.origin = i.from
	if above, ok := strings.CutSuffix(i.ledger, "/ledger"); ok {
		i.origin = above
	}
	return nil
}

// withLedger are the upstreams that tell of a ledger, or of the one that is given.
func withLedger(ups []clientconf.Upstream, given string) []clientconf.Upstream {
	return slices.DeleteFunc(ups, func(u clientconf.Upstream) bool {
		return u.Private || u.Ledger == nil || u.Ledger.URL == "" || given != "" && u.Ledger.URL != given
	})
}

// keyPath is where the key goes: beside the configuration.
func (i *mirrorInit) keyPath() string {
	return strings.TrimSuffix(i.file, filepath.Ext(i.file)) + ".ledger.pub"
}

// maxPublicKey bounds what is read as a key, in bytes.
const maxPublicKey = 4 << 10

// readKey reads the key from its file, or asks the origin.
func (i *mirrorInit) readKey(ctx context.Context) (err error) {
	if i.keyFile != "" {
		if i.key, err = ledger.LoadKey(i.keyFile); err == nil && i.key.Signer != nil {
			err = fmt.Errorf("%s is a private key; a mirror needs the public one (.pub)", i.keyFile)
		}
		return err
	}
	at := i.ledger + "/key"
	fail := func(err error) error {
		return fmt.Errorf("asking for the ledger's key at %s: %w; get it from the operator, and give it with --key", at, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody)
	if err != nil {
		return fail(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPublicKey))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		return fail(err)
	}
	if i.key, err = ledger.ParseKey(string(text)); err != nil {
		return fail(err)
	}
	return nil
}

// confirm has the key confirmed by whoever is responsible for it.
func (i *mirrorInit) confirm(cmd *cobra.Command) error {
	names := 0
	for range i.state.Names() {
		names++
	}
	_, err := fmt.Fprintf(cmd.ErrOrStderr(), "The ledger at %s is signed by\n  %s\n  fingerprint %s\nand has %d entries, %d names.\n",
		redacted(i.ledger), i.key.Verifier.Name(), i.key.Fingerprint(), i.state.Len(), names)
	switch {
	case err != nil:
		return err
	case i.fingerprint != "":
		if got := i.key.Fingerprint(); !strings.EqualFold(i.fingerprint, got) {
			return fmt.Errorf("the key has the fingerprint %s, and not --fingerprint: somebody is between you and the origin, or the key is another now", got)
		}
		return nil
	case i.keyFile != "" || i.yes:
		return nil
	}
	in, isFile := cmd.InOrStdin().(*os.File)
	if !isFile || !isTerminal(in) {
		return errors.New("nobody is here to confirm the key: give --key FILE.pub or --fingerprint SHA256 as the operator publishes it, or --yes")
	}
	_, _ = fmt.Fprint(cmd.ErrOrStderr(), "Is this the fingerprint that its operator publishes? [y/N] ")
	answer, err := bufio.NewReader(in).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); err != nil || answer != "y" && answer != "yes" {
		return errors.New("the key was not confirmed; nothing was written")
	}
	return nil
}

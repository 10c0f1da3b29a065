package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"entrepot/promote/ledger"
)

// mirrored is an upstream of the mirror.
type mirrored struct {
	Name         string
	Destinations []string
}

// upstreams are what the ledger has of a kind: as the flags say, else a registry or a
// server for each host that names are at.
func (i *mirrorInit) upstreams(kind ledger.Kind, flags []string) ([]mirrored, error) {
	told := i.told.Upstreams
	if kind == ledger.File {
		told = i.told.Files
	}
	if flags == nil && i.told.Role != "" {
		var ups []mirrored
		for _, up := range told {
			ups = append(ups, mirrored{up.Name, ledgerNames(&LedgerConfig{Names: up.Ledger.Names}, up.Name, nil)})
		}
		return ups, nil
	}
	hosts := map[string]mirrored{}
	for e := range i.state.Names() {
		if e.Kind != kind {
			continue
		}
		for _, destination := range e.Destinations {
			if base, host, ok := baseOf(kind, destination); ok {
				hosts[base] = mirrored{host, []string{base}}
			}
		}
	}
	all := slices.Sorted(maps.Keys(hosts))
	var ups []mirrored
	for _, text := range flags {
		name, destination, given := strings.Cut(text, "=")
		if !given {
			if len(all) != 1 {
				return nil, fmt.Errorf("%q: the ledger has %ss at %s; write which of them, as in %s=%s", text, kind, strings.Join(all, " and "), name, append(all, "DESTINATION")[0])
			}
			destination = all[0]
		}
		ups = append(ups, mirrored{name, []string{strings.TrimRight(destination, "/")}})
	}
	if flags == nil {
		for _, base := range all {
			ups = append(ups, hosts[base])
		}
	}
	return ups, nil
}

// baseOf is the registry, or the file server, that a destination is at. A bucket is none:
// clients have it by another name, which the ledger does not tell.
func baseOf(kind ledger.Kind, destination string) (base, host string, ok bool) {
	if kind == ledger.Image {
		host, _, _ = strings.Cut(destination, "/")
		return host, host, true
	}
	u, err := url.Parse(destination)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", "", false
	}
	return u.Scheme + "://" + u.Host, u.Host, true
}

const mirrorTemplate = `# A mirror of {{.From}}, by entrepot mirror init.
# entrepot serve --config FILE serves it and keeps it in step; entrepot mirror status, sync
# and verify tell and check. docs/CONFIGURATION.md explains every key.
admin: {listen: {{.Admin}}}
node:
  listen: {{.Listen}}
  store: {dir: {{.Dir}}}
{{- with .DefaultImages}}
  default_upstream: {{.}}
{{- end}}
{{- with .DefaultFiles}}
  default_files: {{.}}
{{- end}}
{{- with .Images}}
  upstreams:
{{- range .}}
    {{.Name}}:
      urls: [{{$.Origin}}]
      ledger: {url: {{$.Ledger}}, key: {{$.Key}}, names: [{{join .Destinations}}]}
{{- end}}
{{- end}}
{{- with .Files}}
  files:
{{- range .}}
    {{.Name}}:
      urls: [{{$.Origin}}]
      ledger: {url: {{$.Ledger}}, key: {{$.Key}}, names: [{{join .Destinations}}]}
{{- end}}
{{- end}}
  mirror:
    # Everything that the ledger has. To hold less:
    # select:
    #   - {projects: ["kubernetes"], newest: 3}
    #   - {images: ["coredns/*"]}
    # bandwidth: 50MB/s
    # windows: ["22:00-06:00"]
    # time_zone: UTC
    every: 1m
`

// text is the configuration.
func (i *mirrorInit) text() (string, error) {
	images, err := i.upstreams(ledger.Image, i.images)
	if err != nil {
		return "", fmt.Errorf("--images %w", err)
	}
	files, err := i.upstreams(ledger.File, i.files)
	if err != nil {
		return "", fmt.Errorf("--files %w", err)
	}
	if len(images)+len(files) == 0 {
		return "", errors.New("the ledger has no names yet, so that it is not known of what this is a mirror: give --images NAME=DESTINATION or --files NAME=DESTINATION")
	}
	key, err := filepath.Abs(i.keyPath())
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(i.dir)
	if err != nil {
		return "", err
	}
	values := map[string]any{
		"From": i.from, "Origin": strconv.Quote(i.origin), "Ledger": strconv.Quote(i.ledger), "Key": strconv.Quote(key), "Dir": strconv.Quote(dir),
		"Listen": strconv.Quote(i.listen), "Admin": strconv.Quote(i.admin), "Images": quoted(images), "Files": quoted(files),
	}
	if len(images) > 0 {
		values["DefaultImages"] = strconv.Quote(images[0].Name)
	}
	if len(files) > 0 {
		values["DefaultFiles"] = strconv.Quote(files[0].Name)
	}
	t, err := template.New("").Funcs(template.FuncMap{"join": func(texts []string) string { return strings.Join(texts, ", ") }}).Parse(mirrorTemplate)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, values)
	return text.String(), err
}

// quoted are upstreams as YAML has them.
func quoted(ups []mirrored) []mirrored {
	all := make([]mirrored, len(ups))
	for i, u := range ups {
		all[i].Name = strconv.Quote(u.Name)
		for _, d := range u.Destinations {
			all[i].Destinations = append(all[i].Destinations, strconv.Quote(d))
		}
	}
	return all
}

// tell says what comes next.
func (i *mirrorInit) tell(w io.Writer) error {
	_, err := fmt.Fprintf(w, `%[1]s and %[2]s are written. Next:
  entrepot mirror sync --config %[1]s     # the first time, with progress; or let serve do it
  entrepot serve --config %[1]s
  entrepot mirror status --config %[1]s
For the operator of the router, to review and add to router.mirrors:
  - {name: %[3]s, urls: [%[4]q], kind: node, tier: community, country: %[5]s, lat: %[6]s, lon: %[7]s}
`, i.file, i.keyPath(), i.name, i.public, i.country, i.lat, i.lon)
	return err
}

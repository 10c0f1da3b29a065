package clientconf

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	containersDir  = "/etc/containers"
	registriesConf = containersDir + "/registries.conf"
	registriesDir  = registriesConf + ".d"
	// dropIn comes behind what others put there: the last file to name a registry
	// is the one that counts.
	dropIn = registriesDir + "/zz-entrepot.conf"
	crioIn = "/etc/crio/crio.conf.d/99-entrepot.conf"
)

// registry is an entry of containers-registries.conf(5).
type registry struct {
	Prefix             string   `toml:"prefix"`
	Location           string   `toml:"location"`
	Insecure           bool     `toml:"insecure"`
	Blocked            bool     `toml:"blocked"`
	MirrorByDigestOnly bool     `toml:"mirror-by-digest-only"`
	Mirrors            []mirror `toml:"mirror"`
}

type mirror struct {
	Location       string `toml:"location"`
	Insecure       bool   `toml:"insecure"`
	PullFromMirror string `toml:"pull-from-mirror"`
}

// scope is the prefix of the names that an entry is about.
func (r *registry) scope() string {
	if r.Prefix != "" {
		return r.Prefix
	}
	return r.Location
}

// crio plans what CRI-O reads: the files of podman, and that it looks at them
// again by itself.
func (p *planner) crio() error {
	if err := p.containers(); err != nil {
		return err
	}
	return p.file(crioIn, "systemctl reload crio", func(old []byte) ([]byte, part, error) {
		lines := []string{"# Changes of " + registriesDir + " are taken into use at once (CRI-O 1.31 and later).", "[crio.image]", "auto_reload_registries = true"}
		return insertBlock(old, len(old), block{lines: lines}), part{Form: blockForm}, nil
	})
}

// containers plans the drop-in that podman, skopeo, buildah and CRI-O read.
func (p *planner) containers() error {
	s := p.server
	theirs, err := p.machine.registries()
	if err != nil {
		return err
	}
	if _, err := p.ca(containersDir + "/certs.d/" + s.URL.Host + "/ca.crt"); err != nil {
		return err
	}
	var lines []string
	for _, u := range s.Upstreams {
		r, ok := theirs[u.Name]
		if !ok {
			r = registry{Location: u.Name}
		}
		lines = append(lines, p.registryLines(u.Name, &r)...)
	}
	return p.file(dropIn, "", func(old []byte) ([]byte, part, error) {
		return insertBlock(old, len(old), block{lines: lines}), part{Form: blockForm}, nil
	})
}

// registryLines are an entry with the server as its first mirror. An entry that
// others wrote for the same names no longer counts, and is taken over.
func (p *planner) registryLines(upstream string, r *registry) []string {
	first := mirror{Location: p.server.URL.Host + "/" + upstream, Insecure: p.server.plain()}
	switch {
	case r.MirrorByDigestOnly: // it excludes pull-from-mirror
		if !p.server.Untrusted {
			p.note("%s has mirror-by-digest-only: podman asks %s for digests only, too", upstream, p.server.URL.Host)
		}
	case p.server.Untrusted:
		first.PullFromMirror = "digest-only"
	}
	if r.Blocked {
		p.note("%s is blocked, and stays so", upstream)
	}
	lines := []string{"[[registry]]", "prefix = " + quote(upstream), "location = " + quote(r.Location)}
	for _, flag := range []struct {
		key string
		set bool
	}{{"insecure", r.Insecure}, {"blocked", r.Blocked}, {"mirror-by-digest-only", r.MirrorByDigestOnly}} {
		if flag.set {
			lines = append(lines, flag.key+" = true")
		}
	}
	mirrors := []mirror{first}
	for _, m := range r.Mirrors {
		if m.Location != first.Location {
			mirrors = append(mirrors, m)
		}
	}
	for _, m := range mirrors {
		lines = append(lines, "[[registry.mirror]]", "location = "+quote(m.Location))
		if m.Insecure {
			lines = append(lines, "insecure = true")
		}
		if m.PullFromMirror != "" {
			lines = append(lines, "pull-from-mirror = "+quote(m.PullFromMirror))
		}
	}
	return append(lines, "")
}

// registries are the entries of others that count, by their scopes.
func (m *Machine) registries() (map[string]registry, error) {
	files := m.glob(registriesDir + "/*.conf")
	files = slices.DeleteFunc(files, func(f string) bool { return f == dropIn })
	slices.Sort(files)
	all := map[string]registry{}
	for _, file := range append([]string{registriesConf}, files...) {
		s, err := m.look(file)
		if err != nil {
			return nil, err
		}
		var conf struct {
			Registry []registry `toml:"registry"`
		}
		if err := toml.Unmarshal(s.base, &conf); err != nil {
			return nil, fmt.Errorf("%s: it is not valid TOML, so that nothing can be added: %w", file, err)
		}
		for _, r := range conf.Registry {
			all[r.scope()] = r
		}
		if path.Base(file) > path.Base(dropIn) && len(conf.Registry) > 0 && strings.HasPrefix(file, registriesDir) {
			return nil, fmt.Errorf("%s is read after %s and would overrule it: give it a name that sorts before", file, dropIn)
		}
	}
	for scope, r := range all {
		if r.Location == "" { // a prefix without a location stands for itself
			r.Location = scope
			all[scope] = r
		}
	}
	return all, nil
}

package clientconf

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

const (
	containerdDir    = "/etc/containerd"
	containerdConfig = containerdDir + "/config.toml"
	certsDir         = containerdDir + "/certs.d"
)

// criTables are where the versions of containerd's configuration say where
// hosts.toml files are. A file of version 2 is read by all since 1.3.
func criTables() map[int64][]string {
	return map[int64][]string{
		2: {"plugins", "io.containerd.grpc.v1.cri", "registry"},
		3: {"plugins", "io.containerd.cri.v1.images", "registry"},
	}
}

// containerd plans a hosts.toml for each upstream, and has the CRI plugin read
// them.
func (p *planner) containerd(upstreams []Upstream) error {
	dir, err := p.configPath()
	if err != nil {
		return err
	}
	ca, err := p.ca(containerdDir + "/entrepot-ca.crt")
	if err != nil {
		return err
	}
	for _, u := range upstreams {
		at := path.Join(dir, p.hostDir(dir, u.Name), "hosts.toml")
		err := p.file(at, "", func(old []byte) ([]byte, part, error) {
			content, err := p.hosts(old, u.Name, ca, at)
			return content, part{Form: blockForm}, err
		})
		if err != nil {
			return err
		}
	}
	if p.machine.exists(path.Join(dir, "_default", "hosts.toml")) {
		p.note("%s/_default/hosts.toml no longer counts for the upstreams above", dir)
	}
	return nil
}

// hostDir is the folder of an upstream: containerd looks for a port between
// underscores before it looks for one behind a colon.
func (p *planner) hostDir(dir, name string) string {
	host, port, ok := strings.Cut(name, ":")
	if other := host + "_" + port + "_"; ok && p.machine.exists(path.Join(dir, other, "hosts.toml")) {
		return other
	}
	return name
}

// hosts puts the server before all hosts that a hosts.toml has.
func (p *planner) hosts(old []byte, upstream, ca, at string) ([]byte, error) {
	tree, err := parseTOML(old)
	if err != nil {
		return nil, err
	}
	host := p.server.URL.String()
	if theirs := table(tree, "host", host); theirs != nil {
		if p.server.Untrusted && !onlyPulls(theirs["capabilities"]) {
			p.note("%s: somebody wrote an entry for %s that lets it resolve names; it is left as it is", at, host)
		}
		return old, nil
	}
	var lines []string
	if blank(old) && hubOrTLS(upstream) {
		lines = append(lines, "server = "+quote(serverOf(upstream)), "")
	}
	capabilities := `["pull", "resolve"]`
	if p.server.Untrusted {
		capabilities = `["pull"]`
	}
	lines = append(lines, "[host."+quote(host)+"]", "  capabilities = "+capabilities)
	if p.server.DialTimeout > 0 {
		lines = append(lines, "  dial_timeout = "+quote(p.server.DialTimeout.String()))
	}
	if ca != "" {
		lines = append(lines, "  ca = "+quote(ca))
	}
	merged := insertBlock(old, firstTable(old), block{lines: lines})
	if blank(old) {
		return merged, nil
	}
	return merged, checkTOML(old, merged, func(tree map[string]any) {
		hosts := table(tree, "host")
		if delete(hosts, host); len(hosts) == 0 {
			delete(tree, "host")
		}
	})
}

// onlyPulls says whether a list of capabilities leaves out resolving names; all
// are meant where there is none.
func onlyPulls(capabilities any) bool {
	list, ok := capabilities.([]any)
	for _, c := range list {
		if c != "pull" {
			return false
		}
	}
	return ok
}

// hubOrTLS says whether an upstream is known to be asked by HTTPS. Containerd
// asks registries on its own machine by HTTP, and knows that better.
func hubOrTLS(upstream string) bool {
	host, _, _ := strings.Cut(upstream, ":")
	return host != "localhost" && !strings.HasPrefix(host, "127.")
}

// serverOf is where an upstream really is. Docker Hub is the one that is not at
// its name.
func serverOf(upstream string) string {
	if upstream == "docker.io" {
		return "https://registry-1.docker.io"
	}
	return "https://" + upstream
}

// configPath is the folder of hosts.toml files that containerd's configuration
// names. Where it names none, the plan has it name the usual one: without, the
// CRI plugin reads no hosts.toml.
func (p *planner) configPath() (dir string, err error) {
	dir = certsDir
	err = p.file(containerdConfig, "systemctl restart containerd", func(old []byte) ([]byte, part, error) {
		mine := part{Form: blockForm}
		if blank(old) {
			return insertBlock(old, len(old), block{lines: append([]string{"version = 2"}, tableLines(criTables()[2])...)}), mine, nil
		}
		tree, err := parseTOML(old)
		if err != nil {
			return nil, mine, err
		}
		if named := p.namedPath(tree); named != "" {
			dir = named
			return old, mine, nil
		}
		if why := criUnused(tree); why != "" {
			p.note("%s: %s", containerdConfig, why)
			return old, mine, nil
		}
		version, _ := tree["version"].(int64)
		keys := criTables()[version]
		if keys == nil {
			p.note("%s is of an old version: let its CRI plugin have registry.config_path = %q by hand, and restart containerd", containerdConfig, certsDir)
			return old, mine, nil
		}
		merged := addConfigPath(old, keys)
		return merged, mine, checkTOML(old, merged, func(tree map[string]any) {
			for i := len(keys); i > 0; i-- { // what is empty without it goes, too
				last := table(tree, keys[:i]...)
				if delete(last, "config_path"); len(last) == 0 {
					delete(table(tree, keys[:i-1]...), keys[i-1])
				}
			}
		})
	})
	return dir, err
}

// namedPath is the first folder that a configuration or one of its imports names.
func (p *planner) namedPath(tree map[string]any) string {
	trees := []map[string]any{tree}
	imports, _ := tree["imports"].([]any)
	for _, pattern := range imports {
		if text, ok := pattern.(string); ok {
			trees = append(trees, p.machine.trees(path.Join(containerdDir, text), text)...)
		}
	}
	for _, tree := range trees {
		for _, keys := range criTables() {
			if named, _ := table(tree, keys...)["config_path"].(string); named != "" {
				first, _, _ := strings.Cut(named, ":")
				return first
			}
		}
	}
	return ""
}

// criUnused says why nothing is to be written into a configuration.
func criUnused(tree map[string]any) string {
	disabled, _ := tree["disabled_plugins"].([]any)
	for _, id := range disabled {
		if id == "cri" || id == "io.containerd.grpc.v1.cri" || id == "io.containerd.cri.v1.images" {
			return "the CRI plugin is disabled, so that Kubernetes does not use this containerd; nerdctl reads hosts.toml files by itself, ctr with --hosts-dir"
		}
	}
	for _, keys := range criTables() {
		if mirrors := table(tree, append(keys, "mirrors")...); len(mirrors) > 0 {
			return "it has registry.mirrors, which containerd refuses beside hosts.toml files: move them there, remove them, and run this again"
		}
	}
	return ""
}

// tableLines are a table that names the usual folder.
func tableLines(keys []string) []string {
	parts := slices.Clone(keys)
	for i, key := range parts {
		if strings.Contains(key, ".") {
			parts[i] = quote(key)
		}
	}
	return []string{"[" + strings.Join(parts, ".") + "]", fmt.Sprintf("  config_path = %q", certsDir)}
}

// addConfigPath has a configuration that names no folder name the usual one.
func addConfigPath(text []byte, keys []string) []byte {
	lines := tableLines(keys)
	registry := tableOf(text, keys...)
	if registry == nil {
		return insertBlock(text, len(text), block{lines: lines})
	}
	for _, s := range registry[1:] {
		statement := strings.TrimRight(string(text[s.start:s.end]), "\r\n")
		if key, _, ok := strings.Cut(statement, "="); ok && strings.TrimSpace(key) == "config_path" {
			rest := splice(text, span{s.start, s.end}, "")
			return insertBlock(rest, s.start, block{lines: lines[1:], instead: statement})
		}
	}
	return insertBlock(text, registry[0].end, block{lines: lines[1:]})
}

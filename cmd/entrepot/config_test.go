package main

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"entrepot/cmd/internal/yamlconf"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// parse reads a configuration with one variable and a few files around it.
func parse(file string) (*Config, error) {
	files := map[string]string{"/ca.pem": "no certificate", "/config.json": "{", "/secret": "hunter2"}
	return parseConfig("config.yaml", []byte(file),
		func(name string) (string, bool) { return "hunter2", name == "SECRET" },
		func(path string) ([]byte, error) {
			if content, ok := files[path]; ok {
				return []byte(content), nil
			}
			return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("no such file or directory")}
		})
}

func TestBadConfigurationIsToldWithKeyLineAndWhatWouldBeRight(t *testing.T) {
	const node = "node:\n  store: {dir: data}\n  upstreams:\n    docker.io: {}\n"
	const aRouter = "router:\n  mirrors: [{name: a, urls: [\"https://a.example.org\"], tier: origin, country: DE}]\n"
	for name, c := range map[string]struct{ file, want string }{
		"misspelt key": {
			"node:\n  store: {dir: data}\n  upstreams:\n    docker.io:\n      tag_tll: 5m",
			`config.yaml:5: unknown key "tag_tll" in node.upstreams.docker.io; did you mean "tag_ttl"? known keys: urls, private, offline, tag_ttl, stale_while_revalidate, max_stale, negative_ttl, username, password, docker_config, token_hosts, redirect_hosts, ca, cert, key, max_concurrent, bandwidth, connect_timeout, response_timeout, stall_timeout, ledger`,
		},
		"misspelt role":        {"nod:\n  listen: :1", `config.yaml:1: unknown key "nod" in the file; did you mean "node"? known keys: log, admin, node, origin, router`},
		"origin without store": {node + "origin:\n  listen: :5001", `config.yaml:5: origin.store needs dir (a directory) or s3 (a bucket)`},
		"empty router":         {"router: {}", `config.yaml:1: router.mirrors is missing; write at least one mirror, such as {name: origin, urls: ["https://origin.example.org"], tier: origin, country: US, lat: 41.3, lon: -95.9}`},
		"no authoritative mirror": {
			"router:\n  upstreams: {docker.io: {}}\n  mirrors:\n    - {name: a, urls: [\"https://a.example.org\"], tier: trusted, country: DE}\n    - {name: a, urls: [\"https://b.example.org\"], tier: community, country: DE}",
			"config.yaml:3: router.mirrors: mirror \"a\": there are two of this name; give each its own\nconfig.yaml:3: router.mirrors: no mirror is authoritative for names: give one tier origin, or names: true where it follows the ledger",
		},
		"a mirror of bad values": {
			"router:\n  upstreams: {docker.io: {}}\n  mirrors: [{name: a, urls: [\"https://a.example.org\"], tier: gold, country: Germany, capacity: 40GB}]",
			`config.yaml:3: router.mirrors[0].capacity: "40GB" is not a rate; write Kbps, Mbps, Gbps or Tbps, such as 40Gbps`,
		},
		"files of nowhere":     {node + "  default_files: dl.k8s.io\n", `config.yaml:5: node.default_files: "dl.k8s.io" is not one of node.files: `},
		"a bad file pattern":   {node + "  files: {dl.k8s.io: {moving: [\"a//b\"]}}\n", `config.yaml:5: node.files.dl.k8s.io.moving: pattern "a//b": it has an empty element: names neither begin nor end with a slash, nor have two in a row`},
		"a bad evidence":       {node + "  files: {dl.k8s.io: {verify: [md5]}}\n", `config.yaml:5: node.files.dl.k8s.io.verify: "md5" is not known; write headers, .sha256, .sha512 or SHA256SUMS`},
		"a bad redirect host":  {node + "  files: {dl.k8s.io: {redirect_hosts: [\"https://cdn.dl.k8s.io\"]}}\n", `config.yaml:5: node.files.dl.k8s.io.redirect_hosts: "https://cdn.dl.k8s.io" is not a host; write it without scheme and path, such as cdn.example.org or *.example.org`},
		"files below /v2":      {node + "  files: {v2: {}}\n", `config.yaml:5: node.files.v2: paths below /v2/ have a meaning of their own; choose another name`},
		"bounds the wrong way": {node + "  files: {dl.k8s.io: {min_ttl: 2h, max_ttl: 1h}}\n", `config.yaml:5: node.files.dl.k8s.io.min_ttl is 2h; it must not exceed max_ttl, 1h`},
		"a mirror of nothing":  {node + "  mirror: {}\n", `config.yaml:5: node.mirror holds what ledgers have, and no upstream has one: set node.upstreams.NAME.ledger or node.files.NAME.ledger`},
		"offline with a URL":   {node + "  files: {dl.k8s.io: {offline: true, urls: [\"https://dl.k8s.io\"]}}\n", `config.yaml:5: node.files.dl.k8s.io is offline, and has urls, which nobody asks; keep one`},
		"a place nowhere": {
			aRouter + "  geo:\n    prefixes: [{prefix: 10.0.0.0/8}]",
			`config.yaml:4: router.geo.prefixes: prefix 10.0.0.0/8: it says nothing of where that is; write country, or cloud`,
		},
		"a place off the map": {
			aRouter + "  geo:\n    prefixes: [{prefix: 10.0.0.0/8, country: DE, lat: 91}]",
			`config.yaml:4: router.geo.prefixes: prefix 10.0.0.0/8: lat 91, lon 0 is no place; want degrees north from -90 to 90, and east from -180 to 180`,
		},
		"a trusted host": {
			aRouter + "  trusted_proxies: [10.1.2.3/8]",
			`config.yaml:3: router.trusted_proxies: "10.1.2.3/8" has bits set behind its length; write 10.0.0.0/8`,
		},
		"a mapped network": {
			aRouter + "  trusted_proxies: [\"::ffff:10.0.0.0/104\"]",
			`config.yaml:3: router.trusted_proxies: "::ffff:10.0.0.0/104" is IPv4 within IPv6, as which no client counts; write it as IPv4`,
		},
		"empty file": {"", `config.yaml:1: the file configures no role; add node: with store and upstreams, origin: with store, or router: with mirrors`},
		"empty node": {"node:", "config.yaml:1: node.store needs dir (a directory) or s3 (a bucket)\nconfig.yaml:1: node.upstreams is missing; name at least one registry, such as docker.io: {}, or a file server in node.files"},
		"two upstreams of one name": {
			node + "    quay.io: {}\n    docker.io: {}",
			`config.yaml:6: node.upstreams.docker.io is given twice, first on line 4; keep one`,
		},
		"bad size": {
			node + "  memory: 10 gigs",
			`config.yaml:5: node.memory: "10 gigs" is not a size; write bytes (1048576) or a number with KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), such as 500MB or 10GiB`,
		},
		"negative size":    {node + "  memory: -1", `config.yaml:5: node.memory: "-1" is not a size; write bytes (1048576) or a number with KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), such as 500MB or 10GiB`},
		"enormous size":    {node + "  memory: 99999999TiB", `config.yaml:5: node.memory: "99999999TiB" is too large for a size`},
		"bad duration":     {node + "  shutdown_timeout: 30", `config.yaml:5: node.shutdown_timeout: "30" is not a duration; write numbers with ms, s, m, h or d, such as 30s, 1h30m or 7d`},
		"bad listen":       {node + "  listen: 5000", `config.yaml:5: node.listen: "5000" is not an address to listen on; write host:port, such as ":5000" for all interfaces or "127.0.0.1:5000"`},
		"bad port":         {node + "  listen: :65536", `config.yaml:5: node.listen: ":65536" is not an address to listen on; write host:port, such as ":5000" for all interfaces or "127.0.0.1:5000"`},
		"one port twice":   {node + "admin: {listen: \":5000\", token: 0123456789abcdef}", `config.yaml:1: node.listen :5000 and admin.listen :5000 need different ports`},
		"bad percentage":   {"node:\n  store: {dir: d, high_watermark: 101}\n  upstreams: {docker.io: {}}", `config.yaml:2: node.store.high_watermark: "101" is not a percentage; write a whole number from 1 to 100, such as 90`},
		"hasty scrubbing":  {"node:\n  store: {dir: d, scrub: {every: 5s}}\n  upstreams: {docker.io: {}}", `config.yaml:2: node.store.scrub.every is 5s; it must be at least 1m (to turn scrubbing off, set node.store.scrub.rate to 0)`},
		"peers of nowhere": {node + "  peers: {secret: 0123456789abcdef}\n", `config.yaml:5: node.peers needs list (the URLs of the region's nodes) or dns (a name that has their addresses)`},
		"peers of bad values": {
			node + "  peers:\n    list: [\"http://10.0.0.1:5000/v2\"]\n    dns: nodes.example.org\n    secret: ${SECRET}\n    deadline: 1ms\n",
			"config.yaml:5: node.peers.secret must have 16 characters or more; write one that all nodes of the region have, such as from: openssl rand -hex 32\n" +
				"config.yaml:6: node.peers.list: http://10.0.0.1:5000/v2 has a path; write scheme, host and port of the node\n" +
				`config.yaml:7: node.peers.dns: "nodes.example.org" is not a name and a port; write such as entrepot-headless.mirror.svc:5000, with https:// in front where the nodes speak TLS` + "\n" +
				"config.yaml:9: node.peers.deadline is 1ms; it must be at least 50ms",
		},
		"bad watermarks":    {"node:\n  store: {dir: d, high_watermark: 60%}\n  upstreams: {docker.io: {}}", `config.yaml:2: node.store: low_watermark (70) must be below high_watermark (60)`},
		"two stores":        {"node:\n  store: {dir: d, s3: {endpoint: \"http://h\", bucket: b}}\n  upstreams: {docker.io: {}}", `config.yaml:2: node.store has both dir and s3; keep one (a directory in front of a bucket is node.store.cache.dir)`},
		"cache of a dir":    {"node:\n  store: {dir: d, cache: {dir: e}}\n  upstreams: {docker.io: {}}", `config.yaml:2: node.store.cache goes with s3 only; the limit of a directory is node.store.max_size`},
		"half a bucket":     {"node:\n  store: {s3: {access_key: a}, max_size: 1GB}\n  upstreams: {docker.io: {}}", "config.yaml:2: node.store.max_size limits a directory; with s3 set node.store.cache.max_size\nconfig.yaml:2: node.store.s3.endpoint is missing; write the URL of the S3 service\nconfig.yaml:2: node.store.s3.bucket is missing\nconfig.yaml:2: node.store.s3 needs access_key and secret_key together, or neither"},
		"bucket's limits":   {"node:\n  store:\n    cache: {dir: c}\n    s3:\n      endpoint: http://h/b\n      bucket: b\n      part_size: 1MB\n      redirect_expiry: 8d\n      prefix: a/../b\n  upstreams: {docker.io: {}}", "config.yaml:5: node.store.s3.endpoint has a path; write scheme, host and port, and set bucket and prefix with their own keys\nconfig.yaml:7: node.store.s3.part_size is 1MB; S3 allows 5MiB to 5GiB\nconfig.yaml:8: node.store.s3.redirect_expiry is 8d; S3 allows more than 0s, up to 7d\nconfig.yaml:9: node.store.s3.prefix must not hold \"..\""},
		"unknown default":   {node + "  default_upstream: dokcer.io", `config.yaml:5: node.default_upstream: "dokcer.io" is not one of node.upstreams: docker.io`},
		"no memory":         {node + "  memory: 0", `config.yaml:5: node.memory is 0; it must be at least 1MiB`},
		"no fills":          {node + "  max_fills: 0", `config.yaml:5: node.max_fills is 0; it must be at least 1`},
		"upstream's name":   {node + "    https://quay.io: {}", `config.yaml:5: "https://quay.io" is not a name for an upstream; write a host in lower case, such as docker.io`},
		"bad URL":           {node + "    quay.io:\n      urls: [quay.io]", `config.yaml:6: node.upstreams.quay.io.urls[0]: "quay.io" is not a URL; write it with http:// or https:// and a host, such as https://registry.example.org`},
		"password in URL":   {node + "    quay.io:\n      urls: [\"https://me:hunter2@quay.io\"]", `config.yaml:6: node.upstreams.quay.io.urls[0]: "https://…@quay.io" has a user or password in the URL; set them with their own keys`},
		"query in URL":      {node + "    quay.io:\n      urls: [\"https://quay.io/?a\"]", `config.yaml:6: node.upstreams.quay.io.urls[0]: "https://quay.io/?a" has a query or fragment; write the URL up to its path`},
		"no URLs":           {node + "    quay.io: {urls: []}", `config.yaml:5: node.upstreams.quay.io.urls is empty; write at least one URL, or remove the key for https://quay.io`},
		"missing CA":        {node + "    quay.io:\n      ca: /nope.pem", `config.yaml:6: node.upstreams.quay.io.ca: cannot read /nope.pem: no such file or directory`},
		"CA without any":    {node + "    quay.io:\n      ca: /ca.pem", `config.yaml:6: node.upstreams.quay.io.ca: /ca.pem holds no PEM certificate`},
		"missing config":    {node + "    quay.io:\n      docker_config: /nope", `config.yaml:6: node.upstreams.quay.io.docker_config: cannot read /nope: no such file or directory`},
		"broken config":     {node + "    quay.io:\n      docker_config: /config.json", `config.yaml:6: node.upstreams.quay.io.docker_config: /config.json is not JSON`},
		"user only":         {node + "    quay.io: {username: me}", `config.yaml:5: node.upstreams.quay.io needs username and password together`},
		"token host":        {node + "    quay.io:\n      token_hosts: [\"https://auth.quay.io/token\"]", `config.yaml:6: node.upstreams.quay.io.token_hosts: "https://auth.quay.io/token" is not a host; write it without scheme and path, such as auth.example.org`},
		"no timeout":        {node + "    quay.io: {stall_timeout: 0s}", `config.yaml:5: node.upstreams.quay.io.stall_timeout must be more than 0s`},
		"half a pair":       {node + "  tls: {cert: /ca.pem}", `config.yaml:5: node.tls needs cert and key together`},
		"no pair":           {node + "  tls:\n    cert: /ca.pem\n    key: /nope", `config.yaml:7: node.tls.key: cannot read /nope: no such file or directory`},
		"level":             {node + "log: {level: loud}", `config.yaml:5: log.level: "loud" is not a level; write debug, info, warn or error`},
		"format":            {node + "log: {format: xml}", `config.yaml:5: log.format: "xml" is not a format; write auto (text on a terminal, else json), text or json`},
		"an open admin":     {node + "admin: {listen: \"0.0.0.0:9090\"}", `config.yaml:5: admin.listen 0.0.0.0:9090 can be reached from other machines: write "127.0.0.1:9090", or set admin.token for those who may look`},
		"a short token":     {node + "admin: {listen: \":9090\", token: hunter2}", `config.yaml:5: admin.token has fewer than 16 characters, and could be guessed; write a longer one, such as openssl rand -hex 32 makes`},
		"private and open":  {"node:\n  store: {dir: d}\n  upstreams: {a.test: {private: true}}\n  files:\n    b.test: {private: true}", "config.yaml:3: node.upstreams.a.test is private, and nothing says who may pull: add node.access with htpasswd, tokens or client_ca, or with what is open in anonymous\nconfig.yaml:5: node.files.b.test is private, and nothing says who may pull: add node.access with htpasswd, tokens or client_ca, or with what is open in anonymous"},
		"access to nothing": {node + "  access: {}", `config.yaml:5: node.access lets nobody pull: name htpasswd, tokens, client_ca or anonymous, or remove it for a node that is open to all`},
		"access by certificate in the clear": {
			node + "  access: {client_ca: /ca.pem}",
			"config.yaml:5: node.access.client_ca: /ca.pem holds no PEM certificate\nconfig.yaml:5: node.access.client_ca needs node.tls: certificates come with TLS, to who ends it",
		},
		"tokens of anybody": {
			node + "  access:\n    tokens: {service: me}",
			"config.yaml:6: node.access.tokens needs issuer and audience, which tokens must have as iss and aud: those for others would be taken too\nconfig.yaml:6: node.access.tokens.jwks is missing; write the URL or the file of the issuer's public keys\nconfig.yaml:6: node.access.tokens.service is told to the token server, whose URL is realm; add that",
		},
		"keys in the clear": {
			node + "  access:\n    tokens: {issuer: i, audience: a, jwks: \"http://keys.example.org/jwks\"}",
			"config.yaml:6: node.access.tokens.jwks: this is not an https URL; whoever can change the keys on their way can let anybody pull",
		},
		"no such keys": {node + "  access:\n    tokens: {issuer: i, audience: a, jwks: /nope}", "config.yaml:6: node.access.tokens.jwks: cannot read /nope: no such file or directory"},
		"rules of nothing": {
			node + "  access:\n    htpasswd: /secret\n    anonymous:\n      - {upstreams: [quay.io], repositories: [\"**\"]}\n    rules:\n      - {identity: a}\n      - {repositories: [\"a//b\"]}",
			"config.yaml:8: node.access.anonymous[0].upstreams: \"quay.io\" is not one of node.upstreams and node.files\nconfig.yaml:10: node.access.rules[0] has neither repositories nor files; write patterns of them\nconfig.yaml:11: node.access.rules[1].identity is missing; write who may, or \"*\" for everybody who is known\nconfig.yaml:11: node.access.rules[1].repositories: pattern \"a//b\": it has an empty element: names neither begin nor end with a slash, nor have two in a row",
		},
		"unset variable":  {node + "    quay.io: {username: me, password: \"${PW}\"}", `config.yaml:5: node.upstreams.quay.io.password: the environment variable PW is not set`},
		"secret as a URL": {node + "    quay.io: {urls: [\"${SECRET}\"]}", `config.yaml:5: node.upstreams.quay.io.urls[0]: "${SECRET}" is not a URL; write it with http:// or https:// and a host, such as https://registry.example.org`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(c.file)
			if err == nil || err.Error() != c.want {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestConfigurationOfTheDesignIsRead(t *testing.T) {
	c, err := parse(`
admin: {listen: "127.0.0.1:9090"}
node:
  listen: ":5000"
  store:
    s3: {endpoint: "http://127.0.0.1:9000/", bucket: mirror, prefix: "", region: us-east-1, access_key: "${SECRET}", secret_key: "${file:/secret}"}
    cache: {dir: /var/cache/entrepot, max_size: 50GiB}
  memory: 256MiB
  default_upstream: docker.io
  upstreams:
    docker.io: {tag_ttl: 1d12h, bandwidth: 50MB/s}
    registry.k8s.io: {urls: ["https://registry.k8s.io", "https://other.example.org/base/"]}
`)
	if err != nil {
		t.Fatal(err)
	}
	s3 := c.Node.Store.S3
	if s3.AccessKey != "hunter2" || s3.SecretKey != "hunter2" || s3.Endpoint != "http://127.0.0.1:9000" || c.Node.Store.Cache.MaxSize != 50<<30 {
		t.Errorf("store: %+v", c.Node.Store)
	}
	hub, k8s := c.Node.Upstreams["docker.io"], c.Node.Upstreams["registry.k8s.io"]
	if time.Duration(hub.TagTTL) != 36*time.Hour || hub.Bandwidth != 50e6 || hub.URLs[0] != "https://registry-1.docker.io" || hub.TokenHosts[0] != "auth.docker.io" {
		t.Errorf("docker.io: %+v", hub)
	}
	if want := []URL{"https://registry.k8s.io", "https://other.example.org/base"}; !reflect.DeepEqual(k8s.URLs, want) {
		t.Errorf("registry.k8s.io: %v, want %v", k8s.URLs, want)
	}
}

func TestStandaloneConfigurationIsTheGoldenOne(t *testing.T) {
	var out strings.Builder
	render(&out, "", reflect.ValueOf(standaloneConfig()))
	golden := filepath.Join("testdata", "standalone.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the standalone configuration changed (go test -update if meant):\n%s", out.String())
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	s := Secret("hunter2")
	if shown := s.String() + s.GoString() + s.LogValue().String(); strings.Contains(shown, "hunter2") {
		t.Errorf("shown: %s", shown)
	}
}

func TestValuesAreWrittenAsTheyAreRead(t *testing.T) {
	for text, v := range map[string]interface {
		UnmarshalText([]byte) error
		String() string
	}{
		"10GiB": new(Size), "500MB": new(Size), "1048577": new(Size), "0": new(Size), "5MiB": new(Rate),
		"7d": new(Duration), "1h30m": new(Duration), "1d12h": new(Duration), "250ms": new(Duration), "0s": new(Duration), "90": new(Percent),
	} {
		if err := v.UnmarshalText([]byte(text)); err != nil || v.String() != text {
			t.Errorf("%s is read as %s, %v", text, v, err)
		}
	}
}

func FuzzParseConfigNeverPanicsAndNamesALine(f *testing.F) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "CONFIGURATION.md"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(doc)
	f.Add([]byte("node:\n  tls: {cert: /ca.pem, key: /secret}\n  store: {dir: d, high_watermark: 5}\n  upstreams:\n    a.b: {urls: [x], token_hosts: [y/z], max_stale: 7d}\n"))
	f.Add([]byte("node: {store: {s3: {endpoint: http://h, prefix: ../}}, memory: 1.5GiB, upstreams: {\"\": {}, docker.io: {password: $}}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse(string(data))
		var problems yamlconf.Problems
		switch {
		case err == nil && c.Node == nil:
			t.Error("a configuration without a role is taken")
		case err != nil && !errors.As(err, &problems):
			t.Errorf("an error of type %T without a line: %v", err, err)
		}
		for _, p := range problems {
			if p.Line < 1 {
				t.Errorf("no line: %v", p)
			}
		}
	})
}

func TestDefaultsFollowFromWhatIsConfigured(t *testing.T) {
	for name, c := range map[string]struct{ text, upstream, cache string }{
		"docker.io among others": {"node:\n  store: {dir: d}\n  upstreams: {docker.io: {}, ghcr.io: {}}", "docker.io", ""},
		"the only upstream":      {"node:\n  store: {dir: d}\n  upstreams: {ghcr.io: {}}", "ghcr.io", ""},
		"none is obvious":        {"node:\n  store: {dir: d}\n  upstreams: {quay.io: {}, ghcr.io: {}}", "", ""},
		"a bucket alone":         {"node:\n  store: {s3: {endpoint: \"http://h\", bucket: b}}\n  upstreams: {ghcr.io: {}}", "ghcr.io", "data"},
	} {
		cfg, err := parseConfig("config.yaml", []byte(c.text), os.LookupEnv, readSmall)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		cache := ""
		if cfg.Node.Store.Cache != nil {
			cache = string(cfg.Node.Store.Cache.Dir)
		}
		if cfg.Node.DefaultUpstream != c.upstream || cache != c.cache {
			t.Errorf("%s: default upstream %q, cache %q; want %q and %q", name, cfg.Node.DefaultUpstream, cache, c.upstream, c.cache)
		}
	}
}

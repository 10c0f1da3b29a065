package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBadOriginAndLedgerAreToldWithKeyAndLine(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "ledger.key")
	entrepot(t, "ledger", "keygen", "--name", "production.test/ledger", "--out", key).check(t, exitDone, "", "")
	junk := writeFile(t, dir, "junk.pub", "no key")
	htpasswd := writeFile(t, dir, "htpasswd", "")
	const origin = "origin:\n  store: {dir: d}\n"
	rules := origin + "  htpasswd: " + htpasswd + "\n  rules:\n"
	const node = "node:\n  store: {dir: d}\n  upstreams:\n    registry.example.org:\n"
	const url = "https://origin.example.org/ledger"
	for name, c := range map[string]struct{ file, want string }{
		"rules for nobody": {
			origin + "  rules: [{identity: me, repositories: [\"**\"], actions: [push]}]\n",
			":3: origin.rules says what identities may write; name the file that has them in origin.htpasswd",
		},
		"no htpasswd file":   {origin + "  htpasswd: " + dir + "/none\n", ":3: origin.htpasswd: cannot read " + dir + "/none: no such file or directory"},
		"a rule for no one":  {rules + "  - {repositories: [\"**\"], actions: [push]}\n", `:5: origin.rules[0].identity is missing; name one of the htpasswd file, or "*" for all of them`},
		"a rule of nothing":  {rules + "  - {identity: me, actions: [push]}\n", ":5: origin.rules[0] has neither repositories nor files; write patterns of them"},
		"a rule without act": {rules + "  - {identity: me, files: [\"**\"]}\n", ":5: origin.rules[0].actions is missing; write push, delete or both"},
		"a bad action":       {rules + "  - identity: me\n    files: [\"**\"]\n    actions: [pull]\n", `:7: origin.rules[0].actions: "pull" is neither push nor delete`},
		"a bad pattern":      {rules + "  - identity: me\n    actions: [push]\n    repositories: [\"app//x\"]\n", `:7: origin.rules[0].repositories: pattern "app//x": `},
		"a ledger elsewhere": {origin + "  ledger: /var/lib/ledger\n", ":3: origin.ledger: opening the ledger at /var/lib/ledger: want file://DIR, s3://BUCKET/PREFIX or, read-only, https://HOST/PATH"},
		"a bucket without a place for uploads": {
			"origin:\n  store: {s3: {endpoint: \"http://h\", bucket: b}}\n",
			":1: origin.store.s3 needs origin.uploads, a directory for uploads in progress",
		},
		"a bucket that is scrubbed": {
			"origin:\n  uploads: u\n  store:\n    scrub: {rate: 1MB}\n    s3: {endpoint: \"http://h\", bucket: b}\n",
			":4: origin.store.scrub reads a directory through; a bucket looks after itself",
		},
		"hasty scrubbing":             {"origin:\n  store: {dir: d, scrub: {every: 1s}}\n", ":2: origin.store.scrub.every is 1s; it must be at least 1m (to turn scrubbing off, set origin.store.scrub.rate to 0)"},
		"a followed ledger of no key": {node + "      ledger: {url: " + url + "}\n", ":5: node.upstreams.registry.example.org.ledger.key is missing; name the file with the ledger's public key (.pub), without which anybody could write names"},
		"a followed ledger nowhere":   {node + "      ledger: {key: " + key + ".pub}\n", ":5: node.upstreams.registry.example.org.ledger.url is missing; write where the ledger is"},
		"no key file":                 {node + "      ledger: {url: " + url + ", key: " + dir + "/none}\n", ":5: node.upstreams.registry.example.org.ledger.key: cannot read " + dir + "/none: no such file or directory"},
		"a key file of something else": {
			node + "      ledger: {url: " + url + ", key: " + junk + "}\n",
			":5: node.upstreams.registry.example.org.ledger.key: " + junk + " is no ledger's key: want a line such as NAME+8 HEX DIGITS+BASE64",
		},
		"the private key": {
			node + "      ledger: {url: " + url + ", key: " + key + "}\n",
			":5: node.upstreams.registry.example.org.ledger.key: " + key + " is the private key, with which whoever breaks in here signs names; only the public one (.pub) is needed",
		},
		"polls that never rest": {
			node + "      ledger: {url: " + url + ", key: " + key + ".pub, interval: 1ms}\n",
			":5: node.upstreams.registry.example.org.ledger.interval is 1ms; it must be at least 100ms",
		},
		"a name with a slash": {
			node + "      ledger: {url: " + url + ", key: " + key + ".pub, names: [registry.example.org/]}\n",
			`:5: node.upstreams.registry.example.org.ledger.names: "registry.example.org/" is not what a ledger calls a registry`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := writeFile(t, t.TempDir(), "entrepot.yaml", c.file)
			for _, args := range [][]string{{"config", "check", file}, {"serve", "--config", file}} {
				told := entrepot(t, args...)
				told.check(t, exitFailed, "", "entrepot: "+file+c.want)
				if told.stdout != "" || strings.Count(told.stderr, "\n") != 1 || strings.Contains(told.stderr, "PRIVATE+KEY+production") {
					t.Errorf("%v: stdout %q, stderr %q", args, told.stdout, told.stderr)
				}
			}
		})
	}
}

func TestAnOriginAndANodeThatFollowsItAreRight(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "ledger.key")
	entrepot(t, "ledger", "keygen", "--name", "production.test/ledger", "--out", key).check(t, exitDone, "", "")
	file := writeFile(t, dir, "entrepot.yaml", fmt.Sprintf(`
origin:
  store: {dir: %q}
  htpasswd: %q
  rules:
  - {identity: "*", repositories: ["app/**"], files: ["releases/*"], actions: [push, delete]}
  ledger: file://%s/ledger
node:
  store: {dir: %q}
  upstreams:
    registry.example.org:
      ledger: {url: "https://origin.example.org/ledger", key: %q}
`, dir+"/origin", writeFile(t, dir, "htpasswd", ""), dir, dir+"/node", key+".pub"))
	entrepot(t, "config", "check", file).check(t, exitDone, file+" is right: ", "")
}

func TestKeysOfALedgerAreMadeOnceAndThePrivateOneIsTheOwners(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "ledger.key")
	made := entrepot(t, "ledger", "keygen", "--name", "production.test/ledger", "--out", key)
	made.check(t, exitDone, key+" (private) and "+key+".pub\n", "")
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(made.stdout, strings.TrimSpace(string(private))) {
		t.Error("the private key is told")
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key: %v, %v", info.Mode(), err)
	}
	for name, c := range map[string]struct{ name, out, want string }{
		"over another":           {"production.test/ledger", key, "file exists"},
		"into a missing folder":  {"production.test/ledger", filepath.Join(dir, "none", "key"), "no such file or directory"},
		"with a space in a name": {"our ledger", filepath.Join(dir, "other"), `name "our ledger": want one without spaces and "+"`},
	} {
		t.Run(name, func(t *testing.T) {
			told := entrepot(t, "ledger", "keygen", "--name", c.name, "--out", c.out)
			told.check(t, exitFailed, "", c.want)
		})
	}
	if again, err := os.ReadFile(key); err != nil || string(again) != string(private) {
		t.Errorf("the key is another now: %v", err)
	}
}

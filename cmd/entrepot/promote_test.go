package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// outcome is what a command line came to.
type outcome struct {
	stdout, stderr string
	status         int
}

// entrepot runs a command line in the test's own process.
func entrepot(t *testing.T, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	status := run(t.Context(), args, &stdout, &stderr)
	return outcome{stdout.String(), stderr.String(), status}
}

// check says how an outcome differs from a status and from parts of what is to
// be told on either stream; "" is anything.
func (o outcome) check(t *testing.T, status int, stdout, stderr string) {
	t.Helper()
	if o.status != status || !strings.Contains(o.stdout, stdout) || !strings.Contains(o.stderr, stderr) {
		t.Errorf("status %d, want %d; stdout:\n%s\nwant %q; stderr:\n%s\nwant %q", o.status, status, o.stdout, stdout, o.stderr, stderr)
	}
}

// writeTree writes files by their paths below a new directory.
func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// digestOf is a digest in the tests below; they differ by their letter.
func digestOf(letter string) string { return "sha256:" + strings.Repeat(letter, 64) }

const (
	// appRegistries is the head of a plain file; its list begins on line 5.
	appRegistries = "registries:\n- {name: staging.example.org/staging-app, src: true}\n- name: registry.example.org/app\nimages:\n"
	// goodImage is an image of three lines that stands beside whatever is bad.
	goodImage = "- name: good\n  dmap:\n    \"sha256:1111111111111111111111111111111111111111111111111111111111111111\": [v1]\n"
)

func TestEachKindOfBrokenConfigurationIsToldWithFileAndLine(t *testing.T) {
	a, b := digestOf("a"), digestOf("b")
	plain := func(list string) map[string]string {
		return map[string]string{"app.yaml": appRegistries + goodImage + list}
	}
	thin := func(more map[string]string) map[string]string {
		files := map[string]string{
			"manifests/staging-app/promoter-manifest.yaml": "registries:\n- {name: staging.example.org/staging-app, src: true}\n- name: registry.example.org/app\n",
			"images/staging-app/images.yaml":               goodImage,
		}
		maps.Copy(files, more)
		return files
	}
	for name, c := range map[string]struct {
		files map[string]string
		root  string // below the directory; "" is the directory
		want  string
	}{
		"a digest of 63 digits": {
			plain("- name: x\n  dmap:\n    " + a[:len(a)-1] + ": [v1]\n"), "app.yaml",
			"app.yaml:10: digest \"" + a[:len(a)-1] + "\" of image x has 63 hex digits; want 64",
		},
		"a bad tag": {
			plain("- name: x\n  dmap:\n    " + a + ": [\"v1 beta\"]\n"), "app.yaml",
			`app.yaml:10: tag "v1 beta" of image x has ' ' in it`,
		},
		"a tag on two digests": {
			plain("- name: x\n  dmap:\n    " + a + ": [v1]\n    " + b + ": [v1]\n"), "app.yaml",
			"app.yaml:11: tag v1 of image x is given to sha256:bbbbbbbbbbbb… here and to sha256:aaaaaaaaaaaa… on line 10",
		},
		"an unknown key": {
			plain("- name: x\n  dmpa: {}\n"), "app.yaml",
			`app.yaml:9: unknown key "dmpa" in an image; did you mean "dmap"?`,
		},
		"broken YAML, at the line where the broken mapping begins": {
			plain("- name: x\n\tdmap: {}\n"), "app.yaml",
			"app.yaml:8: this is no valid YAML: found a tab character that violates indentation",
		},
		"a second document": {
			plain("---\nimages: []\n"), "app.yaml",
			"app.yaml:8: a second YAML document begins here",
		},
		"a removal without a reason": {
			plain("- removed: good:v0\n"), "app.yaml",
			"app.yaml:8: removed has no reason:",
		},
		"revoked and listed": {
			plain("- revoked: " + digestOf("1") + "\n  reason: leaks\n"), "app.yaml",
			"app.yaml:7: good has the digest sha256:111111111111…, which is revoked on line 8",
		},
		"no source": {
			map[string]string{"app.yaml": strings.Replace(appRegistries, ", src: true", "", 1) + goodImage},
			"app.yaml",
			"app.yaml:2: no one of the registries has src: true",
		},
		"a scheme before a registry": {
			map[string]string{"app.yaml": strings.Replace(appRegistries, "registry.example.org", "https://registry.example.org", 1) + goodImage},
			"app.yaml",
			`app.yaml:3: registry "https://registry.example.org/app" has a scheme`,
		},
		"a misspelt folder": {
			thin(map[string]string{
				"manifests/staging-ship/promoter-manifest.yaml": "registries:\n- {name: staging.example.org/staging-ship, src: true}\n- name: registry.example.org/ship\n",
				"images/stagign-ship/images.yaml":               goodImage,
			}), "",
			"manifests/staging-ship: has no folder images/staging-ship; is images/stagign-ship meant?",
		},
		"a destination outside the project's prefix": {
			thin(map[string]string{
				"manifests/staging-ship/promoter-manifest.yaml": "registries:\n- {name: staging.example.org/staging-ship, src: true}\n- name: registry.example.org/app/ship\n",
				"images/staging-ship/images.yaml":               goodImage,
			}), "",
			"manifests/staging-ship/promoter-manifest.yaml:3: destination registry.example.org/app/ship is outside the project's own prefix: registry.example.org/app belongs to project staging-app",
		},
		"two digests for a file": {
			map[string]string{"files.yaml": "filestores:\n- {base: \"gs://staging/app\", src: true}\n- base: s3://prod/app\nfiles:\n" +
				"- name: v1/tool\n  sha256: " + a[7:] + "\n- name: v1/tool\n  sha256: " + b[7:] + "\n"},
			"files.yaml",
			"files.yaml:7: file v1/tool has sha256 sha256:bbbbbbbbbbbb… here and sha256:aaaaaaaaaaaa… on line 5",
		},
		"a file that climbs out of its store": {
			map[string]string{"files.yaml": "filestores:\n- {base: \"gs://staging/app\", src: true}\n- base: s3://prod/app\nfiles:\n" +
				"- name: ../tool\n  sha256: " + a[7:] + "\n"},
			"files.yaml",
			`files.yaml:5: file name "../tool" has ".."`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeTree(t, c.files)
			root := filepath.Join(dir, c.root)
			told := entrepot(t, "promote", "plan", "--offline", root)
			told.check(t, exitFailed, dir+"/"+c.want, "")
			if !strings.Contains(told.stdout, "problems, whose entries are set aside\n") || told.stderr != "" {
				t.Errorf("stdout is\n%s\nand stderr\n%s", told.stdout, told.stderr)
			}

			var problems []struct {
				File    string `json:"file"`
				Line    int    `json:"line"`
				Message string `json:"message"`
			}
			told = entrepot(t, "promote", "plan", "--offline", "--output", "json", root)
			told.check(t, exitFailed, "", "")
			if err := json.Unmarshal([]byte(told.stdout), &problems); err != nil || len(problems) == 0 {
				t.Fatalf("%v: %s", err, told.stdout)
			}
			for _, p := range problems {
				if !strings.HasPrefix(p.File, dir) || p.Message == "" {
					t.Errorf("a problem without file or message: %+v", p)
				}
			}

			// Nothing is asked of production: there is none.
			strict := entrepot(t, "promote", "apply", "--strict", root)
			strict.check(t, exitFailed, "", "entrepot: "+dir+"/"+c.want)
			if strict.stdout != "" {
				t.Errorf("--strict went on: %s", strict.stdout)
			}
		})
	}
}

func TestASymbolicLinkOutOfTheTreeIsToldWithItsFile(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"tree/manifests/staging-app/promoter-manifest.yaml": "registries:\n- {name: staging.example.org/staging-app, src: true}\n- name: registry.example.org/app\n",
		"tree/images/staging-app/README":                    "",
		"secret.yaml":                                       goodImage,
	})
	link := filepath.Join(dir, "tree", "images", "staging-app", "images.yaml")
	if err := os.Symlink(filepath.Join(dir, "secret.yaml"), link); err != nil {
		t.Fatal(err)
	}
	entrepot(t, "promote", "plan", "--offline", filepath.Join(dir, "tree")).
		check(t, exitFailed, link+": is a symbolic link out of the tree", "")
}

func TestSoundConfigurationIsToldToBeAndNoticesDoNotFail(t *testing.T) {
	dir := writeTree(t, map[string]string{
		"app.yaml":    appRegistries + goodImage,
		"notice.yaml": appRegistries + goodImage + "- name: empty\n",
	})
	good, notice := filepath.Join(dir, "app.yaml"), filepath.Join(dir, "notice.yaml")
	entrepot(t, "promote", "plan", "--offline", good).check(t, exitDone, "1 projects with 1 names: nothing is wrong\n", "")
	entrepot(t, "promote", "plan", "--offline", "--strict", notice).check(t, exitDone, notice+":8: image empty has no digests\n", "")
	if told := entrepot(t, "promote", "plan", "--offline", "--output", "json", good); told.status != exitDone || told.stdout != "[]\n" {
		t.Errorf("status %d, and as JSON %q", told.status, told.stdout)
	}
}

func TestRootsThatAreNoConfigurationAreRefused(t *testing.T) {
	two := writeTree(t, map[string]string{
		"one/manifests/x/promoter-manifest.yaml": "", "one/images/x/images.yaml": "",
		"two/manifests/x/promoter-manifest.yaml": "", "two/images/x/images.yaml": "",
	})
	both := writeTree(t, map[string]string{"manifests/x/y": "", "images/x/y": "", "filestores/x/y": ""})
	misspelt := writeTree(t, map[string]string{"manifests/x/y": "", "imgaes/x/y": ""})
	empty := t.TempDir()
	for name, c := range map[string]struct {
		root, want string
	}{
		"missing":          {filepath.Join(empty, "none"), "entrepot: reading the configuration: stat " + empty + "/none: no such file or directory"},
		"no configuration": {empty, "entrepot: " + empty + " is no configuration; want a folder with manifests/ and images/"},
		"two trees":        {two, "entrepot: " + two + " is no tree itself; give the trees in it: " + two + "/one " + two + "/two"},
		"both kinds":       {both, "entrepot: " + both + " holds both images/ and filestores/"},
		"misspelt half":    {misspelt, "entrepot: " + misspelt + " holds manifests/ and imgaes/ (did you mean images/?)"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{{"plan", "--offline"}, {"plan"}, {"apply"}} {
				told := entrepot(t, append(append([]string{"promote"}, args...), c.root)...)
				told.check(t, exitFailed, "", c.want)
				if told.stdout != "" {
					t.Errorf("%v said %s", args, told.stdout)
				}
			}
		})
	}
}

func TestTwoRootsAreOneConfiguration(t *testing.T) {
	a, b := digestOf("a"), digestOf("b")
	project := func(name, d string) string {
		return "registries:\n- {name: staging.example.org/staging-" + name + ", src: true}\n- name: registry.example.org/shared\nimages:\n" +
			"- name: x\n  dmap:\n    " + d + ": [v1]\n"
	}
	dir := writeTree(t, map[string]string{"one.yaml": project("one", a), "two.yaml": project("two", b), "good.yaml": appRegistries + goodImage})
	one, two, good := filepath.Join(dir, "one.yaml"), filepath.Join(dir, "two.yaml"), filepath.Join(dir, "good.yaml")
	entrepot(t, "promote", "plan", "--offline", one, good).check(t, exitDone, "2 projects with 2 names: nothing is wrong\n", "")
	entrepot(t, "promote", "plan", "--offline", one, two).
		check(t, exitFailed, "registry.example.org/shared/x:v1 is written by two projects", "")
	entrepot(t, "promote", "plan", "--offline", one, one).check(t, exitDone, "1 projects with 1 names: nothing is wrong\n", "")
}

func TestWrongUsageOfPromotionIsToldWithStatus2(t *testing.T) {
	dir := writeTree(t, map[string]string{"app.yaml": appRegistries + goodImage})
	app := filepath.Join(dir, "app.yaml")
	const ledger = " --ledger file:///nowhere"
	for args, want := range map[string]string{
		"promote":                              "promote needs a subcommand: plan, apply, rollback, audit, snapshot or add",
		"promote plan":                         "requires at least 1 arg(s), only received 0",
		"promote plan --output xml " + app:     `--output "xml" is neither text nor json`,
		"promote plan --concurrency 0 " + app:  "--concurrency must be at least 1",
		"promote plan --max-deletes -1 " + app: "--max-deletes and --rate must not be negative",
		"promote plan --ledger-key k " + app:   "--ledger-key goes with --ledger, which is missing",
		"promote plan --leger x " + app:        "unknown flag: --leger",
		"promote apply":                        "requires at least 1 arg(s), only received 0",
		"promote apply" + ledger + " " + app:   "--ledger needs --ledger-key with the private key that signs it",

		"promote plan --attachments [ " + app:                           `--attachments ["["]: want the name of a project, or a pattern such as * or staging-*`,
		"promote apply --ledger https://x/ledger --ledger-key k " + app: "--ledger is read-only over HTTP: to change it, give it as file://DIR or s3://BUCKET/PREFIX",
		"promote rollback" + ledger + " --to 1":                         "--ledger needs --ledger-key with the private key that signs it",
		"promote rollback --to 1":                                       "rollback needs --ledger, --ledger-key and --to",
		"promote rollback --ledger-key k" + ledger:                      "rollback needs --ledger, --ledger-key and --to",
		"promote rollback --ledger-key k --to yesterday" + ledger:       `--to "yesterday" is neither a sequence number nor a time such as 2026-11-23T14:00:00Z`,

		"promote audit":                           "audit needs --ledger: it says what production should be",
		"promote snapshot registry.example.org":   "snapshot needs --source",
		"promote add x:v1":                        "requires at least 2 arg(s), only received 1",
		"ledger":                                  "ledger needs a subcommand: show, verify or keygen",
		"ledger show":                             "--ledger is missing",
		"ledger verify":                           "--ledger is missing",
		"ledger verify" + ledger + " a b":         "accepts at most 1 arg(s), received 2",
		"ledger show --output xml" + ledger:       `--output "xml" is neither text nor json`,
		"ledger keygen --name production.test":    "keygen needs --name and --out",
		"ledger keygen --out " + dir + "/new.key": "keygen needs --name and --out",
	} {
		t.Run(args, func(t *testing.T) {
			told := entrepot(t, strings.Fields(args)...)
			told.check(t, exitUsage, "", "entrepot: "+want)
			if told.stdout != "" || !strings.HasSuffix(told.stderr, "; see entrepot --help\n") {
				t.Errorf("stdout %q, stderr %q", told.stdout, told.stderr)
			}
		})
	}
}

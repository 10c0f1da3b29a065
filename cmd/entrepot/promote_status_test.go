package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// asJSON parses what a command said on standard output.
func (o outcome) asJSON(t *testing.T) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(o.stdout), &v); err != nil {
		t.Fatalf("%v: %s", err, o.stdout)
	}
	return v
}

func TestExitStatusesFollowAPromotionFromPlanToAudit(t *testing.T) {
	s := newSite(t)
	first, second := push(t, s.staging, "staging/tool", "rc1"), push(t, s.staging, "staging/tool", "rc2")

	s.configure(t, item("tool", first, "v1", "stable"))
	s.promote(t, "plan", s.file).check(t, exitChanges, "create tool:v1", "")
	plan := s.promote(t, "plan", "--output", "json", s.file)
	plan.check(t, exitChanges, "", "")
	if items := plan.asJSON(t).(map[string]any)["items"].([]any); len(items) != 2 {
		t.Errorf("the plan has %v", items)
	}
	s.untouched(t, "tool", first)

	applied := s.promote(t, "apply", "--output", "json", s.file)
	applied.check(t, exitDone, "", "")
	if done := applied.asJSON(t).(map[string]any)["done"].([]any); len(done) != 2 {
		t.Errorf("done: %v", done)
	}
	s.produces(t, "tool", "stable", first)
	s.promote(t, "plan", s.file).check(t, exitDone, "nothing to do", "")
	s.promote(t, "apply", s.file).check(t, exitDone, "nothing changed", "")

	s.configure(t, item("tool", first, "v1"), item("tool", second, "v2", "stable"), item("gone", digest.FromString("nowhere"), "v1"))
	s.promote(t, "plan", s.file).check(t, exitFailed, "lost: ", "")
	s.promote(t, "apply", s.file).check(t, exitFailed, "lost: create gone:v1", "")
	s.produces(t, "tool", "stable", second)
	s.produces(t, "gone", "v1", "")

	s.configure(t, item("tool", second, "v1"))
	s.promote(t, "apply", s.file).check(t, exitFailed, "conflict: ", "")
	s.produces(t, "tool", "v1", first)

	s.promote(t, "rollback", "--to", "1", "--dry-run").check(t, exitDone, "move tool:stable", "")
	s.produces(t, "tool", "stable", second)
	s.promote(t, "rollback", "--to", "1").check(t, exitDone, "1 moved", "")
	s.produces(t, "tool", "stable", first)
	s.promote(t, "rollback", "--to", "99").check(t, exitFailed, "", "entrepot: --to 99: the ledger has no such entry: it has ")

	s.promote(t, "audit", "--deep").check(t, exitDone, "", "")
	if told := s.promote(t, "audit", "--output", "json"); told.status != exitDone || told.stdout != "[]\n" {
		t.Errorf("status %d, and as JSON %q", told.status, told.stdout)
	}
	push(t, s.production, "app/tool", "v1") // behind promotion's back
	s.promote(t, "audit").check(t, exitFailed, "tool:v1", "")
	found := s.promote(t, "audit", "--output", "json")
	found.check(t, exitFailed, `"difference": "moved"`, "")
	found.asJSON(t)

	entrepot(t, "ledger", "show", "--ledger", s.ledger).check(t, exitDone, "0 20", "")
	shown := entrepot(t, "ledger", "show", "--ledger", s.ledger, "--key", s.key+".pub", "--output", "json", "--name", "tool:stable")
	shown.check(t, exitDone, "", "")
	if entries := shown.asJSON(t).([]any); len(entries) != 3 { // set, moved, moved back
		t.Errorf("%d entries about tool:stable: %s", len(entries), shown.stdout)
	}
	stable := host(s.production) + "/app/tool:stable"
	for _, ledger := range []string{s.ledger, s.production.URL + "/ledger"} {
		verify := func(args ...string) outcome {
			return entrepot(t, append([]string{"ledger", "verify", "--ledger", ledger, "--key", s.key + ".pub"}, args...)...)
		}
		verify(stable+"@"+first.String()).check(t, exitDone, stable+" is "+first.String(), "")
		verify(stable+"@"+second.String()).check(t, exitFailed, "", "and not "+second.String())
		verify("other.example.org/x:v1").check(t, exitFailed, "", "entrepot: other.example.org/x:v1 is not in the ledger")
	}
}

func TestAnAuditTellsWhatOfTheConfigurationItCouldNotCompare(t *testing.T) {
	s := newSite(t)
	d := push(t, s.staging, "staging/tool", "rc1")
	s.configure(t, item("tool", d, "v1"))
	s.promote(t, "apply", s.file).check(t, exitDone, "", "")
	s.promote(t, "audit", s.file).check(t, exitDone, "", "")
	s.configure(t, item("tool", d, "v1"), item("other", "sha256:12", "v1"))
	s.promote(t, "audit", s.file).check(t, exitFailed, "", s.file+`:9: digest "sha256:12" of image other has 2 hex digits; want 64`)
}

func TestWrongPasswordIsToldAndNothingIsWritten(t *testing.T) {
	s := newSite(t)
	tool := push(t, s.staging, "staging/tool", "rc1")
	s.configure(t, item("tool", tool, "v1"))
	const wrong = "battery-staple"
	s.login(t, wrong)
	for _, output := range []string{"text", "json"} {
		told := s.promote(t, "apply", "--output", output, s.file)
		told.check(t, exitFailed, "", "")
		all := told.stdout + told.stderr
		if !strings.Contains(all, "the name or the password is wrong") || !strings.Contains(all, host(s.production)) {
			t.Errorf("not told what is wrong, and where: %s", all)
		}
		if strings.Contains(all, wrong) {
			t.Errorf("the password is told: %s", all)
		}
	}
	s.untouched(t, "tool", tool)
}

func TestAWriteOutsideTheIdentitysPatternsIsDeniedByName(t *testing.T) {
	s := newSite(t, RuleConfig{Identity: promoter, Repositories: []string{"app/mine/**"}, Actions: []string{"push"}})
	mine, others := push(t, s.staging, "staging/mine/tool", "rc1"), push(t, s.staging, "staging/others/tool", "rc1")
	s.configure(t, item("mine/tool", mine, "v1"), item("others/tool", others, "v1"))
	told := s.promote(t, "apply", s.file)
	told.check(t, exitFailed, "failed: create others/tool:v1", "")
	for _, want := range []string{"403", promoter, "app/others/tool"} {
		if !strings.Contains(told.stdout, want) {
			t.Errorf("%q is not told: %s", want, told.stdout)
		}
	}
	s.produces(t, "mine/tool", "v1", mine)
	s.produces(t, "others/tool", "v1", "")
}

func TestALedgerThatCannotBeSignedIsToldBeforeAnythingIsWritten(t *testing.T) {
	s := newSite(t)
	tool := push(t, s.staging, "staging/tool", "rc1")
	s.configure(t, item("tool", tool, "v1"))
	dir := t.TempDir()
	junk := writeFile(t, dir, "junk.key", "no key\n")
	cut := writeFile(t, dir, "cut.key", "PRIVATE+KEY+production.test/ledger+12345678+AAAA\n")
	for name, c := range map[string]struct{ ledger, key, want string }{
		"missing":        {s.ledger, dir + "/none", "entrepot: --ledger-key: loading a ledger key: stat " + dir + "/none: no such file or directory"},
		"no key":         {s.ledger, junk, "entrepot: --ledger-key: loading a ledger key from " + junk + ": want a line such as NAME+8 HEX DIGITS+BASE64"},
		"cut short":      {s.ledger, cut, "entrepot: --ledger-key: loading a ledger key from " + cut + ": the private key is "},
		"public":         {s.ledger, s.key + ".pub", "entrepot: --ledger-key: " + s.key + ".pub is a public key; changing the ledger takes the private one"},
		"unknown scheme": {"ftp://ledger", s.key, "entrepot: --ledger: opening the ledger at ftp://"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{{"apply", s.file}, {"rollback", "--to", "0"}} {
				args = append([]string{"promote", args[0], "--ledger", c.ledger, "--ledger-key", c.key}, args[1:]...)
				told := entrepot(t, args...)
				told.check(t, exitFailed, "", c.want)
				if strings.Contains(told.stderr, "AAAA") {
					t.Errorf("a private key is told: %s", told.stderr)
				}
			}
			s.untouched(t, "tool", tool)
		})
	}
}

func TestALedgerThatIsNotThereIsNoneToReadOrRollBack(t *testing.T) {
	s := newSite(t)
	for name, args := range map[string][]string{
		"audit":    {"promote", "audit", "--ledger", s.ledger},
		"rollback": {"promote", "rollback", "--ledger", s.ledger, "--ledger-key", s.key, "--to", "2026-01-01"},
		"show":     {"ledger", "show", "--ledger", s.ledger},
		"verify":   {"ledger", "verify", "--ledger", s.ledger},
	} {
		t.Run(name, func(t *testing.T) {
			told := entrepot(t, args...)
			told.check(t, exitFailed, "", s.ledgerDir)
			if told.stdout != "" {
				t.Errorf("it is taken for a ledger: %s", told.stdout)
			}
		})
	}
}

func TestADamagedOrForeignLedgerStopsEveryCommand(t *testing.T) {
	s := newSite(t)
	d := push(t, s.staging, "staging/tool", "rc1")
	s.configure(t, item("tool", d, "v1"))
	s.promote(t, "apply", s.file).check(t, exitDone, "", "")
	s.configure(t, item("tool", d, "v1", "v2"))
	other := filepath.Join(t.TempDir(), "other.key")
	entrepot(t, "ledger", "keygen", "--name", "production.test/ledger", "--out", other).check(t, exitDone, "", "")
	whole := t.TempDir()
	if err := os.CopyFS(whole, os.DirFS(s.ledgerDir)); err != nil {
		t.Fatal(err)
	}
	change := func(name string, change func(string) string) func(t *testing.T) {
		return func(t *testing.T) {
			t.Helper()
			path := filepath.Join(s.ledgerDir, filepath.FromSlash(name))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(change(string(data))), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T)
		key    string
		want   string
	}{
		"another key": {func(*testing.T) {}, other, "the checkpoint is not signed by the ledger's key"},
		"a bad signature": {
			change("checkpoint", func(text string) string { // its last characters are base64 of the signature
				flipped := "A"
				if text[len(text)-8] == 'A' {
					flipped = "B"
				}
				return text[:len(text)-8] + flipped + text[len(text)-7:]
			}), s.key, "signature",
		},
		"a truncated tile": {change("tile/entries/000.p/1", func(text string) string { return text[:len(text)/2] }), s.key, "tile/entries/000.p/1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() {
				if err := os.RemoveAll(s.ledgerDir); err != nil {
					t.Fatal(err)
				}
				if err := os.CopyFS(s.ledgerDir, os.DirFS(whole)); err != nil {
					t.Fatal(err)
				}
			})
			c.damage(t)
			for _, args := range [][]string{
				{"promote", "plan", "--ledger", s.ledger, "--ledger-key", c.key + ".pub", s.file},
				{"promote", "apply", "--ledger", s.ledger, "--ledger-key", c.key, s.file},
				{"promote", "rollback", "--ledger", s.ledger, "--ledger-key", c.key, "--to", "0"},
				{"promote", "audit", "--ledger", s.ledger, "--ledger-key", c.key + ".pub"},
				{"ledger", "show", "--ledger", s.ledger, "--key", c.key + ".pub"},
				{"ledger", "verify", "--ledger", s.ledger, "--key", c.key + ".pub"},
			} {
				told := entrepot(t, args...)
				told.check(t, exitFailed, "", c.want)
				if told.stdout != "" {
					t.Errorf("%v says %s", args[:2], told.stdout)
				}
			}
			s.produces(t, "tool", "v2", "")
		})
	}
	s.promote(t, "apply", s.file).check(t, exitDone, "", "")
}

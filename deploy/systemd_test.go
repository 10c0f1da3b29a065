// Package deploy holds the files that entrepot is run by, and the tests that
// keep them true: see README.md here.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/e2e/testenv"
)

// exposure is the most that systemd-analyze may say of the unit, in tenths: 10 is
// a service that may do anything a user may, 0 one that may do nothing.
const exposure = "13"

func TestUnitIsValidAndHardened(t *testing.T) {
	analyze := testenv.Debian(t, "systemd-analyze", "systemd")
	text, err := os.ReadFile("systemd/entrepot.service")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program, err := exec.LookPath("true") // verify wants what is started to be there
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(dir, "entrepot.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(text), "/usr/bin/entrepot", program)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", "--man=no", unit},
		{"security", "--offline=true", "--no-pager", "--threshold=" + exposure, unit},
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if err != nil || strings.Contains(string(out), "Unknown") || strings.Contains(string(out), "ignoring") {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// The user and the folders are as systemd would make them, below another root.
func TestUserAndFoldersAreMade(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"etc", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ program, name, dir string }{
		{"systemd-sysusers", "entrepot.sysusers.conf", "usr/lib/sysusers.d"},
		{"systemd-tmpfiles", "entrepot.tmpfiles.conf", "usr/lib/tmpfiles.d"},
	} {
		text, err := os.ReadFile(filepath.Join("systemd", c.name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, c.dir, "entrepot.conf"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"--root=" + root, "entrepot.conf"}
		if c.program == "systemd-tmpfiles" {
			args = append([]string{"--create"}, args...)
		}
		if out, err := exec.CommandContext(t.Context(), testenv.Debian(t, c.program, "systemd"), args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c.program, err, out)
		}
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), ":/var/lib/entrepot:/usr/sbin/nologin") {
		t.Errorf("/etc/passwd is %q, %v", passwd, err)
	}
	if info, err := os.Stat(filepath.Join(root, "etc/entrepot")); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("/etc/entrepot is %v, %v", info, err)
	}
}

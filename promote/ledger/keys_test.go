package ledger

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

func TestAGeneratedKeySignsWhatItsPublicHalfVerifies(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger.key")
	if err := GenerateKey("origin.example.org/ledger", file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private key has mode %v, %v, want 0600", info.Mode(), err)
	}
	private, err := LoadKey(file)
	if err != nil || private.Signer == nil {
		t.Fatalf("loading the private key: %+v, %v", private, err)
	}
	public, err := LoadKey(file + ".pub")
	if err != nil || public.Signer != nil {
		t.Fatalf("loading the public key: %+v, %v", public, err)
	}
	signed, err := note.Sign(&note.Note{Text: "text\n"}, private.Signer)
	if err != nil {
		t.Fatal(err)
	}
	for _, verifier := range []note.Verifier{private.Verifier, public.Verifier} {
		if _, err := note.Open(signed, note.VerifierList(verifier)); err != nil || verifier.Name() != "origin.example.org/ledger" {
			t.Errorf("verifying by the key of %s: %v", verifier.Name(), err)
		}
	}
}

func TestAKeyIsNeverWrittenOverAnother(t *testing.T) {
	for _, there := range []string{"key", "key.pub"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, there), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := GenerateKey("origin", filepath.Join(dir, "key")); err == nil || !strings.Contains(err.Error(), there) {
			t.Errorf("with %s there: %v, want an error that names it", there, err)
		}
		files, err := fs.Glob(os.DirFS(dir), "*")
		data, readErr := os.ReadFile(filepath.Join(dir, there))
		if err != nil || readErr != nil || len(files) != 1 || string(data) != "precious" {
			t.Errorf("with %s there: files %v, it is %q", there, files, data)
		}
	}
}

func TestABadKeyIsRefusedWithoutBeingRepeated(t *testing.T) {
	private, public, err := newKey("origin")
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.SplitN(private, "+", 5)[4]
	for name, text := range map[string]string{
		"empty":              "",
		"prose":              "hello",
		"private, cut short": private[:len(private)-8],
		"public, cut short":  public[:len(public)-8],
		"private, altered":   strings.Replace(private, "origin", "other", 1),
		"two keys":           private + "\n" + private,
		"SSH":                "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI x",
	} {
		if _, err := ParseKey(text); err == nil {
			t.Errorf("%s: parsed", name)
		} else if strings.Contains(err.Error(), secret[:8]) {
			t.Errorf("%s: %v repeats the key", name, err)
		}
	}
	for _, name := range []string{"", "two words", "a+b", "a\nb", "\xff"} {
		if err := GenerateKey(name, filepath.Join(t.TempDir(), "key")); err == nil {
			t.Errorf("a key of the name %q was made", name)
		}
	}
	if _, err := LoadKey(t.TempDir()); err == nil {
		t.Error("a directory was loaded")
	}
}

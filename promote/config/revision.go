package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Revision names what the roots say, for the ledger: the git commit that is
// checked out when the roots are all of one commit and nothing in them is
// changed, added or ignored; otherwise "sha256:" and the hash of their files,
// wherever they lie. Errors: a root cannot be read.
func Revision(ctx context.Context, roots []string) (string, error) {
	roots = slices.Clone(roots)
	for i := range roots {
		resolved, err := filepath.EvalSymlinks(roots[i])
		if err != nil {
			return "", fmt.Errorf("finding the revision of the configuration: %w", err)
		}
		roots[i] = resolved
	}
	commit := ""
	for _, root := range roots {
		at := commitOf(ctx, root)
		if at == "" || commit != "" && at != commit {
			return hashOf(roots)
		}
		commit = at
	}
	if commit == "" {
		return hashOf(roots)
	}
	return commit, nil
}

// commitOf is the commit that a root is checked out from unchanged, or empty
// when there is none, or no git to tell.
func commitOf(ctx context.Context, root string) string {
	dir, spec := root, "."
	if info, err := os.Stat(root); err != nil {
		return ""
	} else if !info.IsDir() {
		dir, spec = filepath.Split(root)
	}
	git := func(args ...string) (string, bool) {
		// A tree's own git configuration must not run programs.
		args = append([]string{"-c", "core.fsmonitor=false", "-C", filepath.Clean(dir)}, args...)
		out, err := exec.CommandContext(ctx, "git", args...).Output() //nolint:gosec // the arguments are options and one folder
		return strings.TrimSpace(string(out)), err == nil
	}
	changed, ok := git("status", "--porcelain", "--ignored", "--untracked-files=all", "--", spec)
	if !ok || changed != "" {
		return ""
	}
	// An ignored or empty folder has no changes either: it must be in the commit.
	if tracked, ok := git("ls-files", "--", spec); !ok || tracked == "" {
		return ""
	}
	commit, ok := git("rev-parse", "--verify", "HEAD^{commit}")
	if !ok {
		return ""
	}
	return commit
}

// hashOf hashes the names and contents of all YAML files in the roots, in the
// order of the roots and of names.
func hashOf(roots []string) (string, error) {
	var summary bytes.Buffer
	for _, root := range roots {
		var files []string
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			link := err == nil && e.Type()&fs.ModeSymlink != 0
			if link || err == nil && !e.IsDir() && (path == root || isYAML(path)) {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return "", fmt.Errorf("hashing the configuration: %w", err)
		}
		slices.Sort(files)
		fmt.Fprintf(&summary, "root %d\n", len(files))
		for _, file := range files {
			if err := summarize(&summary, root, file); err != nil {
				return "", fmt.Errorf("hashing the configuration: %w", err)
			}
		}
	}
	sum := sha256.Sum256(summary.Bytes())
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// summarize writes the line of one file: its name below the root, and the hash
// of its content.
func summarize(b *bytes.Buffer, root, file string) error {
	name, err := filepath.Rel(root, file)
	if err != nil {
		return err
	}
	info, err := os.Lstat(file)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		// Where it leads to in the tree is hashed there.
		target, err := os.Readlink(file)
		fmt.Fprintf(b, "%q link %q\n", filepath.ToSlash(name), target)
		return err
	case !info.Mode().IsRegular():
		fmt.Fprintf(b, "%q\n", filepath.ToSlash(name)) // it is set aside, and not opened
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	content := sha256.New()
	if _, err := io.Copy(content, f); err != nil {
		return err
	}
	fmt.Fprintf(b, "%q %x\n", filepath.ToSlash(name), content.Sum(nil))
	return nil
}

package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// FormatPlain is the project as one plain file, in the canonical style: sorted,
// digests and tags quoted. Reading it back gives the same names.
func FormatPlain(p *Project) []byte {
	var b bytes.Buffer
	formatManifest(&b, p)
	fmt.Fprintf(&b, "%s:\n", sectionOf(p.Kind).list)
	formatImages(&b, p.Images)
	formatFiles(&b, p.Files)
	formatReasons(&b, p)
	return b.Bytes()
}

// WriteThin writes projects, all of one kind, as a thin tree into dir, which
// must not hold any of them yet. Reading it back gives the same names.
func WriteThin(dir string, projects []*Project) error {
	for _, p := range projects {
		if p.Kind != projects[0].Kind {
			return fmt.Errorf("writing a tree of %s: project %s is of %s", projects[0].Kind, p.Name, p.Kind)
		}
		if p.Name == "" || p.Name != filepath.Base(p.Name) || strings.HasPrefix(p.Name, ".") {
			return fmt.Errorf("writing a tree: %s cannot be the name of a folder", quote(p.Name))
		}
		if err := writeThinProject(dir, p); err != nil {
			return fmt.Errorf("writing project %s: %w", p.Name, err)
		}
	}
	return nil
}

func writeThinProject(dir string, p *Project) error {
	s := sectionOf(p.Kind)
	var manifest bytes.Buffer
	formatManifest(&manifest, p)
	if err := createFile(filepath.Join(dir, s.manifests, p.Name, s.manifest), manifest.Bytes()); err != nil {
		return err
	}
	for name, text := range formatLists(p) {
		if err := createFile(filepath.Join(dir, s.lists, p.Name, name), text); err != nil {
			return err
		}
	}
	return nil
}

// formatLists are the texts of a thin project's lists, by file name.
func formatLists(p *Project) map[string][]byte {
	var b bytes.Buffer
	if p.Kind == Images {
		formatImages(&b, p.Images)
		formatReasons(&b, p)
		return map[string][]byte{"images.yaml": b.Bytes()}
	}
	by := map[string][]File{}
	for _, f := range p.Files {
		by[listName(f.Name)] = append(by[listName(f.Name)], f)
	}
	if len(by) == 0 || len(p.Removed)+len(p.Revoked) > 0 {
		by["files.yaml"] = append(by["files.yaml"], []File{}...)
	}
	texts := map[string][]byte{}
	for name, files := range by {
		var b bytes.Buffer
		b.WriteString("files:\n")
		formatFiles(&b, files)
		if name == "files.yaml" {
			formatReasons(&b, p)
		}
		texts[name] = b.Bytes()
	}
	return texts
}

func createFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // a checkout is for all to read
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return replaceFile(path, text)
}

func formatManifest(b *bytes.Buffer, p *Project) {
	s := sectionOf(p.Kind)
	slash := ""
	if p.Kind == Files {
		slash = "/"
	}
	fmt.Fprintf(b, "%s:\n- %s: %s\n  src: true\n", s.ends, s.end, plain(p.Source+slash))
	for _, d := range p.Destinations {
		fmt.Fprintf(b, "- %s: %s\n", s.end, plain(d+slash))
	}
	if p.Prune {
		b.WriteString("prune: true\n")
	}
	if len(p.MutableTags) > 0 {
		fmt.Fprintf(b, "mutable_tags: %s\n", flow(p.MutableTags))
	}
}

func formatImages(b *bytes.Buffer, images []Image) {
	for _, image := range slices.SortedStableFunc(slices.Values(images), func(x, y Image) int { return cmp.Compare(x.Name, y.Name) }) {
		fmt.Fprintf(b, "- name: %s\n  dmap:\n", plain(image.Name))
		entries := slices.Clone(image.Entries)
		for i := range entries {
			entries[i].Tags = slices.SortedFunc(slices.Values(entries[i].Tags), compareVersions)
		}
		slices.SortFunc(entries, compareEntries)
		for _, e := range entries {
			fmt.Fprintf(b, "    %q: %s\n", string(e.Digest), flow(e.Tags))
		}
	}
}

func formatFiles(b *bytes.Buffer, files []File) {
	for _, f := range slices.SortedFunc(slices.Values(files), func(x, y File) int { return cmp.Compare(x.Name, y.Name) }) {
		fmt.Fprintf(b, "- name: %s\n  sha256: %s\n", plain(f.Name), f.SHA256.Encoded())
	}
}

func formatReasons(b *bytes.Buffer, p *Project) {
	for _, r := range p.Removed {
		fmt.Fprintf(b, "- removed: %s\n  reason: %s\n", plain(r.String()), plain(r.Reason))
	}
	for _, r := range p.Revoked {
		fmt.Fprintf(b, "- revoked: %s\n  reason: %s\n", plain(string(r.Digest)), plain(r.Reason))
	}
}

// flow is a list of quoted values on one line.
func flow(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = strconv.Quote(v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// plain is a value as YAML reads it back: bare when it is made of letters that
// mean nothing there, else quoted.
func plain(s string) string {
	safe := func(c rune) bool { return isAlnum(c) || strings.ContainsRune("._/+@:~=-", c) }
	special := slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s))
	if s == "" || special || strings.ContainsFunc(s, func(c rune) bool { return !safe(c) }) ||
		!isAlnum(rune(s[0])) || strings.HasSuffix(s, ":") {
		return strconv.Quote(s)
	}
	return s
}

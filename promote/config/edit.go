package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.yaml.in/yaml/v3"
)

// AddImage lists an image's digest with its tags (none: by digest alone) in the
// project's list, sorted in, and leaves everything else in the file as it is.
// file is the list's path; changed is false when it was listed already.
// Errors: those of InsertImage; the file cannot be read or written.
func (p *Project) AddImage(image string, d digest.Digest, tags ...string) (file string, changed bool, err error) {
	if p.Kind != Images || len(p.Lists) == 0 {
		return "", false, fmt.Errorf("project %s has no list of images", p.Name)
	}
	return editFile(p.Lists[0], func(list []byte) ([]byte, error) { return InsertImage(list, image, d, tags...) })
}

// AddFile lists a file in the list of the project that holds its neighbours,
// or in a new one named for its first folder. Results are those of AddImage.
func (p *Project) AddFile(name string, sum digest.Digest) (file string, changed bool, err error) {
	if p.Kind != Files {
		return "", false, fmt.Errorf("project %s has no list of files", p.Name)
	}
	return editFile(p.listFor(name), func(list []byte) ([]byte, error) { return InsertFile(list, name, sum) })
}

// InsertImage is AddImage on the text of a list: of images.yaml, or of a plain
// file. The result is list itself when nothing is to change. Errors: the name,
// digest or a tag is invalid; a tag is listed with another digest (moving it is
// for a person to do, who sees both); the text is no list, or of a style that
// cannot be edited line by line.
func InsertImage(list []byte, image string, d digest.Digest, tags ...string) ([]byte, error) {
	if err := newGrammar().repository(image); err != nil {
		return nil, fmt.Errorf("listing image %s: the name %w", quote(image), err)
	}
	if _, err := parseDigest(string(d)); err != nil {
		return nil, fmt.Errorf("listing image %s: digest %s %w", image, quote(string(d)), err)
	}
	for _, tag := range tags {
		if err := checkTag(tag); err != nil {
			return nil, fmt.Errorf("listing image %s: tag %s %w", image, quote(tag), err)
		}
	}
	return insert(list, Images, func(t *text, items []*yaml.Node, l *itemList) error {
		return t.insertImage(items, l.images, image, d, slices.Compact(slices.Clone(tags)))
	})
}

// InsertFile is AddFile on the text of a list. Errors: as InsertImage; the file
// is listed with another sha256.
func InsertFile(list []byte, name string, sum digest.Digest) ([]byte, error) {
	if err := checkFileName(name); err != nil {
		return nil, fmt.Errorf("listing file %s: the name %w", quote(name), err)
	}
	if _, err := parseSHA256(strings.TrimPrefix(string(sum), "sha256:")); err != nil {
		return nil, fmt.Errorf("listing file %s: digest %s %w", name, quote(string(sum)), err)
	}
	return insert(list, Files, func(t *text, items []*yaml.Node, l *itemList) error {
		return t.insertFile(items, l.files, name, sum)
	})
}

// insert edits the list in source, and makes sure that the edit says what was
// said before and the addition, and nothing else.
func insert(source []byte, k Kind, edit func(t *text, items []*yaml.Node, l *itemList) error) ([]byte, error) {
	t, items, before, err := openText(source, k)
	if err != nil {
		return nil, err
	}
	if err := edit(t, items, before); err != nil {
		return nil, err
	}
	if !t.edited {
		return source, nil
	}
	result := t.bytes()
	_, _, after, err := openText(result, k)
	if err != nil {
		return nil, fmt.Errorf("editing the list: its style defeats editing by line; add the entry by hand: %w", err)
	}
	was, is := before.facts(), after.facts()
	for fact := range t.added {
		was[fact] = true
	}
	for fact := range was {
		if !is[fact] {
			return nil, fmt.Errorf("editing the list: its style defeats editing by line (%s would be lost); add the entry by hand", fact)
		}
	}
	for fact := range is {
		if !was[fact] {
			return nil, fmt.Errorf("editing the list: its style defeats editing by line (%s would appear); add the entry by hand", fact)
		}
	}
	return result, nil
}

// facts is what a list says, in any order.
func (l *itemList) facts() map[string]bool {
	facts := map[string]bool{}
	for _, image := range l.images {
		for _, e := range image.Entries {
			facts[imageFact(image.Name, "", e.Digest)] = true
			for _, tag := range e.Tags {
				facts[imageFact(image.Name, tag, e.Digest)] = true
			}
		}
	}
	for _, f := range l.files {
		facts[f.Name+" "+string(f.SHA256)] = true
	}
	for _, r := range l.removed {
		facts["removed "+r.String()+" "+r.Reason] = true
	}
	for _, r := range l.revoked {
		facts["revoked "+string(r.Digest)+" "+r.Reason] = true
	}
	return facts
}

func imageFact(name, tag string, d digest.Digest) string { return name + ":" + tag + " " + string(d) }

// editFile replaces a file by what edit makes of it; a file that does not exist
// is empty.
func editFile(path string, edit func([]byte) ([]byte, error)) (file string, changed bool, err error) {
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", false, fmt.Errorf("editing a list: %w", err)
	}
	after, err := edit(before)
	if err != nil {
		return "", false, fmt.Errorf("%s: %w", path, err)
	}
	if slices.Equal(before, after) {
		return path, false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // a checkout is for all to read
		return "", false, fmt.Errorf("editing a list: %w", err)
	}
	if err := replaceFile(path, after); err != nil {
		return "", false, fmt.Errorf("editing a list: %w", err)
	}
	return path, true, nil
}

// replaceFile writes a file beside its name and renames it, so that nobody
// reads half of it. A symbolic link stays one.
func replaceFile(path string, content []byte) error {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".entrepot-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = cmp.Or(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error at hand says more
	}
	return err
}

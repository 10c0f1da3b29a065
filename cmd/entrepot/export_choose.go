package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"entrepot/promote/bundle"
	"entrepot/promote/ledger"
	"entrepot/registry/access"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// readList reads the lines of the images' file, without comments.
func (e *exporting) readList(stdin io.Reader) error {
	if e.imageFile == "" {
		return nil
	}
	in := stdin
	if e.imageFile != "-" {
		f, err := os.Open(e.imageFile)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			e.lines = append(e.lines, line)
		}
	}
	return lines.Err()
}

// choose finds the names that are meant, by what the ledger says now.
func (e *exporting) choose() error {
	e.what = bundle.Contents{}
	for _, line := range e.lines {
		if err := e.chooseImages(line); err != nil {
			return fmt.Errorf("--images %s: %w", line, err)
		}
	}
	for _, pattern := range e.patterns {
		if err := e.chooseFiles(pattern); err != nil {
			return fmt.Errorf("--files %w", err)
		}
	}
	for _, up := range e.ups {
		e.what.Upstreams = append(e.what.Upstreams, up.Upstream)
	}
	slices.SortFunc(e.what.Images, func(a, b bundle.Image) int {
		return cmp.Or(strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Ref(), b.Ref()))
	})
	e.what.Images = slices.CompactFunc(e.what.Images, func(a, b bundle.Image) bool { return a.Upstream == b.Upstream && a.Ref() == b.Ref() })
	slices.SortFunc(e.what.Files, func(a, b bundle.File) int {
		return cmp.Or(strings.Compare(a.Upstream, b.Upstream), strings.Compare(a.Path, b.Path))
	})
	e.what.Files = slices.CompactFunc(e.what.Files, func(a, b bundle.File) bool { return a.Upstream == b.Upstream && a.Path == b.Path })
	return nil
}

// chooseImages adds what a line of the images' file means.
func (e *exporting) chooseImages(line string) error {
	name, reference := line, ""
	if at := strings.Index(line, "@"); at >= 0 {
		name, reference = line[:at], line[at:]
	} else if colon := strings.LastIndexByte(line, ':'); colon > strings.LastIndexByte(line, '/') {
		name, reference = line[:colon], line[colon:]
	}
	if reference == "" {
		reference = ":*"
	}
	repositories, err := access.ParsePattern(name)
	if err != nil {
		return err
	}
	references, err := access.ParsePattern(reference)
	if err != nil {
		return err
	}
	found := false
	e.each(ledger.Image, func(up *exported, path string, entry *ledger.Entry) {
		at := strings.IndexAny(path, ":@")
		if at < 0 || !repositories.Match(up.Name+"/"+path[:at]) || !references.Match(path[at:]) {
			return
		}
		found = true
		image := bundle.Image{Upstream: up.Name, Repository: path[:at], Root: ocispec.Descriptor{Digest: entry.Digest}}
		if path[at] == ':' {
			image.Tag = path[at+1:]
		}
		e.what.Images = append(e.what.Images, image)
	})
	if found {
		return nil
	}
	if strings.Contains(line, "*") || reference == ":*" {
		return errors.New("the ledger has no image that this means")
	}
	// One that no ledger has: it is what the node says it is.
	for _, up := range e.ups {
		repository, ok := strings.CutPrefix(name, up.Name+"/")
		if !ok || up.Kind != ledger.Image {
			continue
		}
		image := bundle.Image{Upstream: up.Name, Repository: repository, Tag: strings.TrimPrefix(reference, ":")}
		if reference[0] == '@' {
			image.Tag, image.Root.Digest = "", digest.Digest(reference[1:])
		}
		e.what.Images = append(e.what.Images, image)
		return nil
	}
	return errors.New("its first element is none of the node's upstreams")
}

// chooseFiles adds the files that a pattern means.
func (e *exporting) chooseFiles(text string) error {
	pattern, err := access.ParsePattern(text)
	if err != nil {
		return err
	}
	found := false
	e.each(ledger.File, func(up *exported, path string, entry *ledger.Entry) {
		if pattern.Match(path) || pattern.Match(up.Name+"/"+path) {
			found = true
			e.what.Files = append(e.what.Files, bundle.File{Upstream: up.Name, Path: path, Digest: entry.Digest, Size: entry.Size})
		}
	})
	if !found {
		return fmt.Errorf("%s: the ledger has no file that this means", text)
	}
	return nil
}

// each calls do with the names of a kind that the ledger has, as the node's clients know
// them.
func (e *exporting) each(kind ledger.Kind, do func(up *exported, path string, entry *ledger.Entry)) {
	if e.log == nil {
		return
	}
	for i := range e.ups {
		if up := &e.ups[i]; up.Kind == kind && up.ledger != nil {
			for path, entry := range e.log.State().NamesBelow(kind, up.names) {
				do(up, path, &entry)
			}
		}
	}
}

package config

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"github.com/opencontainers/go-digest"
)

// assemble makes of a manifest and its lists what stands: each name once,
// sorted. What contradicts itself is set aside and reported to the file where
// it stands, through reports.
func assemble(p *Project, lists []*itemList, reports map[string]*report) {
	var images []Image
	for _, l := range lists {
		images = append(images, l.images...)
		p.Files = append(p.Files, l.files...)
		p.Removed = append(p.Removed, l.removed...)
		p.Revoked = append(p.Revoked, l.revoked...)
	}
	p.Images = mergeImages(images, reports)
	p.Files = mergeFiles(p.Files, reports)
	p.settleRemovals(reports)
}

// mergeImages joins the entries of one name: a list may come back to an image
// for each release.
func mergeImages(images []Image, reports map[string]*report) []Image {
	slices.SortStableFunc(images, func(a, b Image) int { return cmp.Compare(a.Name, b.Name) })
	var merged []Image
	for len(images) > 0 {
		n := 1
		for n < len(images) && images[n].Name == images[0].Name {
			n++
		}
		if image := mergeImage(images[:n], reports); len(image.Entries) > 0 {
			merged = append(merged, image)
		}
		images = images[n:]
	}
	return merged
}

// mergeImage joins items of one name. A tag that two digests claim belongs to
// neither.
func mergeImage(items []Image, reports map[string]*report) Image {
	image := items[0]
	count := 0
	for _, item := range items {
		count += len(item.Entries)
	}
	image.Entries = make([]Entry, 0, count)
	at := make(map[digest.Digest]int, count)
	owner := make(map[string]int, count) // entry that has the tag
	contested := map[string]bool{}
	for _, item := range items {
		for _, entry := range item.Entries {
			r := reports[entry.File]
			tags := entry.Tags
			i, again := at[entry.Digest]
			if !again {
				i = len(image.Entries)
				at[entry.Digest] = i
				entry.Tags = nil
				image.Entries = append(image.Entries, entry)
			}
			known := again && len(tags) == 0
			for _, tag := range tags {
				j, taken := owner[tag]
				switch {
				case !taken:
					owner[tag] = i
					image.Entries[i].Tags = append(image.Entries[i].Tags, tag)
				case j == i:
					known = true
				default:
					r.add(entry.Line, "tag %s of image %s is given to %s here and to %s on %s; the tag is set aside in both",
						tag, image.Name, short(entry.Digest), short(image.Entries[j].Digest), image.Entries[j].from(entry.Position))
					contested[tag] = true
					image.Entries[i].Tags = append(image.Entries[i].Tags, tag)
				}
			}
			if known {
				r.notice(entry.Line, "%s of image %s is listed already, on %s, with nothing new here",
					short(entry.Digest), image.Name, image.Entries[i].from(entry.Position))
			}
		}
	}
	if len(contested) > 0 {
		image.dropTags(func(tag string) bool { return contested[tag] })
	}
	return image
}

// dropTags takes tags from the image, and digests that have none left: they
// were not meant to be promoted by digest alone.
func (image *Image) dropTags(drop func(tag string) bool) {
	kept := image.Entries[:0]
	for _, entry := range image.Entries {
		tagged := len(entry.Tags) > 0
		entry.Tags = slices.DeleteFunc(entry.Tags, drop)
		if len(entry.Tags) > 0 || !tagged {
			kept = append(kept, entry)
		}
	}
	image.Entries = kept
}

// from is the position as a message at another position names it.
func (p Position) from(other Position) string {
	if p.File == other.File {
		return fmt.Sprintf("line %d", p.Line)
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// mergeFiles sorts files and leaves each name once; a name with two contents is
// left out.
func mergeFiles(files []File, reports map[string]*report) []File {
	slices.SortStableFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	var merged []File
	again := map[[2]string][]File{} // by the two lists that have them
	for len(files) > 0 {
		first, contested, n := files[0], false, 1
		for ; n < len(files) && files[n].Name == first.Name; n++ {
			file := files[n]
			if file.SHA256 == first.SHA256 {
				key := [2]string{file.File, first.File}
				again[key] = append(again[key], file)
				continue
			}
			reports[file.File].add(file.Line, "file %s has sha256 %s here and %s on %s; the file is set aside",
				file.Name, short(file.SHA256), short(first.SHA256), first.from(file.Position))
			contested = true
		}
		if !contested {
			merged = append(merged, first)
		}
		files = files[n:]
	}
	for lists, files := range again {
		reports[lists[0]].notice(files[0].Line, "file %s%s is listed already, in %s, with the same sha256", files[0].Name, others(len(files)-1), lists[1])
	}
	return merged
}

// others counts what a message does not name.
func others(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return ", and another,"
	}
	return fmt.Sprintf(", and %d others,", n)
}

// settleRemovals sets aside what is removed and listed at once. The listing
// stands, because deleting by mistake is the worse of the two.
func (p *Project) settleRemovals(reports map[string]*report) {
	images := make(map[string]*Image, len(p.Images))
	for i := range p.Images {
		images[p.Images[i].Name] = &p.Images[i]
	}
	files := make(map[string]Position, len(p.Files))
	for _, f := range p.Files {
		files[f.Name] = f.Position
	}
	seen := map[string]Position{}
	p.Removed = slices.DeleteFunc(p.Removed, func(removal Removal) bool {
		r := reports[removal.File]
		if first, again := seen[removal.String()]; again {
			r.notice(removal.Line, "%s is removed already, on %s", removal, first.from(removal.Position))
			return true
		}
		seen[removal.String()] = removal.Position
		listed, found := files[removal.Name]
		if image := images[removal.Name]; image != nil {
			listed, found = image.listing(removal)
		}
		if found {
			r.add(removal.Line, "%s is removed, and listed on %s; take it from one of them; the removal is set aside",
				removal, listed.from(removal.Position))
		}
		return found
	})
}

// listing is where the image lists what removal takes away.
func (image *Image) listing(removal Removal) (Position, bool) {
	for _, entry := range image.Entries {
		switch {
		case removal.Digest != "" && entry.Digest == removal.Digest,
			removal.Tag != "" && slices.Contains(entry.Tags, removal.Tag),
			removal.Digest == "" && removal.Tag == "":
			return entry.Position, true
		}
	}
	return Position{}, false
}

// MayMove says whether a tag, or a file's name, is one that may move to another
// digest.
func (p *Project) MayMove(name string) bool {
	return slices.ContainsFunc(p.MutableTags, func(pattern string) bool {
		matched, _ := path.Match(pattern, name) // the pattern was checked
		return matched
	})
}

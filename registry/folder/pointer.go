package folder

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxPointer is how large a version pointer can be, in bytes.
const maxPointer = 256

// findPointers says of version pointers, such as stable.txt, where they point.
// What they hold is told by their digest: it is that of the name of a folder on
// the same page, with or without a line break. So nothing has to be read, nor to
// be stored here, and what the page says is as true as the digest.
func findPointers(entries []Entry) {
	// Few files are as small as a pointer, and few folders are hashed: those whose
	// names have a length that one of the files has.
	var sizes [maxPointer + 1]bool
	pointers := false
	for i := range entries {
		if e := &entries[i]; e.mayPoint() {
			sizes[e.Size] = true
			pointers = true
		}
	}
	if !pointers {
		return
	}
	folders := make(map[string]string)
	for i := range entries {
		name, isFolder := strings.CutSuffix(entries[i].Name, "/")
		if !isFolder {
			continue
		}
		for _, text := range [...]string{name, name + "\n"} {
			if len(text) <= maxPointer && sizes[len(text)] {
				sum := sha256.Sum256([]byte(text))
				folders[hex.EncodeToString(sum[:])] = entries[i].Name
			}
		}
	}
	for i := range entries {
		if e := &entries[i]; e.mayPoint() {
			e.PointsTo = folders[e.SHA256]
		}
	}
}

func (e *Entry) mayPoint() bool {
	return !e.Folder() && e.SHA256 != "" && e.Size > 0 && e.Size <= maxPointer
}

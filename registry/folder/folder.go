// Package folder shows a folder of files: a page of it for people as HTML, for
// programs as JSON, for shells as text, and the checksums of what is in it. It is
// the same page wherever a folder is served, because it is made of nothing but
// what a [Lister] says: names, sizes, digests and times, and no content.
//
// The pages need no script, and hold names to be anything: what is text in a name
// is text in the page, in its links and in the commands that it shows.
//
// What is asked of a folder at a URL that ends in a slash:
//
//	?n=1000           how many entries are on a page, 1 to 10,000
//	?sort=name        or size or date; folders come first by size and date
//	?order=asc        or desc
//	?last=…&at=…      goes on after an entry, as links to the next page say
//	SHA256SUMS        what `sha256sum -c` reads, of the files in the folder;
//	                  with ?recursive=1 also of those in all folders below
//
// By name, entries are in the order of their bytes: the one that every program
// agrees on, and in which a page can go on after any name, whatever came or went
// meanwhile, without sorting the folder first.
package folder

import (
	"context"
	"errors"
	"strings"
	"time"
)

// SumsName is the file with the checksums of a folder. One that was put there
// under this name goes first.
const SumsName = "SHA256SUMS"

var (
	// ErrNotExist is about a folder that is not there, or has no files where
	// their checksums are wanted.
	ErrNotExist = errors.New("does not exist")
	// ErrRequest is about a request that cannot be answered as it is. The error's
	// text says what would be right.
	ErrRequest = errors.New("the request")
)

// Entry is a file or a folder.
type Entry struct {
	// Name is the last element of its path; a folder's ends in a slash. Without
	// that it is not empty, not "." or "..", and has no slash.
	Name string `json:"name"`
	// SHA256 is a file's, in hexadecimal; "" when it is not known. The rest is of
	// files only.
	SHA256      string    `json:"sha256,omitempty"`
	Size        int64     `json:"size"`                  // bytes; -1 when it is not known, 0 of a folder
	Modified    time.Time `json:"modified,omitzero"`     // when the name was last set, in UTC
	ContentType string    `json:"contentType,omitempty"` // as it is sent; "" when it is not known
	// PointsTo is the folder beside it that a version pointer names, as its entry
	// does. Listers leave it empty.
	PointsTo string `json:"pointsTo,omitempty"`
}

// Folder says whether the entry is a folder.
func (e *Entry) Folder() bool { return strings.HasSuffix(e.Name, "/") }

// Page is a part of a folder, or all of it. It is what is sent as JSON.
type Page struct {
	// Path is the folder's, with a slash at its end; "" for the root.
	Path    string  `json:"path"`
	Entries []Entry `json:"entries"`
	// Next is the URL of the next page, relative to this one; "" at the end.
	Next string `json:"next,omitempty"`
}

// Lister knows what is in folders.
type Lister interface {
	// List returns entries of a folder in the order of [CompareNames], at most
	// limit of them, that come after a name, which need not be there; after ""
	// come all. With next, if it is not "", the folder goes on, and there may be
	// more though less than limit are returned. The path has no slash at its end;
	// that of the root is "". The caller may write to the entries.
	// Errors: ErrNotExist, when there is no such folder.
	List(ctx context.Context, path, after string, limit int) (entries []Entry, next string, err error)
}

// CompareNames is the order of entries: that of the bytes of their names without
// the slash of folders. A file comes before a folder of its name.
func CompareNames(a, b string) int {
	elementA, folderA := strings.CutSuffix(a, "/")
	elementB, folderB := strings.CutSuffix(b, "/")
	if order := strings.Compare(elementA, elementB); order != 0 || folderA == folderB {
		return order
	}
	if folderB {
		return -1
	}
	return 1
}

// Request asks for a page of a folder, or for its checksums.
type Request struct {
	// Root is the URL of the root folder, with scheme and host and a slash at its
	// end: see [RootURL]. Commands are shown with it.
	Root string
	// Path is the folder's below it, decoded, without a slash at its end; "" for
	// the root.
	Path string
	// Query is as it was sent, without "?". Parameters that are not known are
	// another's.
	Query string
	// Accept has the values of the Accept header. They do not count for
	// checksums.
	Accept []string
}

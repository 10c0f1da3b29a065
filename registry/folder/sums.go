package folder

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// maxSums is how many files a checksum file lists at most.
const maxSums = 100000

// Sums makes the checksums of the files in a folder, as sha256sum writes and
// checks them. With ?recursive=1 they are also of those in all folders below, by
// paths. The files of one folder are what somebody has who downloaded it; and what
// is asked for by the way, as crawlers do, does not cost a walk through all that
// there is.
// Errors: ErrNotExist, also when the folder has no files, ErrRequest, those of the
// Lister.
func Sums(ctx context.Context, l Lister, req *Request) (*Document, error) {
	values, err := url.ParseQuery(req.Query)
	if err != nil {
		return nil, fmt.Errorf("%w: the query: %w", ErrRequest, err)
	}
	s := sums{ctx: ctx, lister: l}
	switch recursive := values.Get("recursive"); recursive {
	case "", "0":
	case "1":
		s.recursive = true
	default:
		return nil, fmt.Errorf("%w: recursive is %.40q: want 0 or 1", ErrRequest, recursive)
	}
	if err := s.add(req.Path, ""); err != nil {
		return nil, err
	}
	if s.files == 0 {
		if s.folders > 0 && !s.recursive {
			return nil, fmt.Errorf("%s of %s/ %w: it has folders only, of which %s?recursive=1 tells", SumsName, req.Path, ErrNotExist, SumsName)
		}
		return nil, fmt.Errorf("%s of %s/ %w: it has no files", SumsName, req.Path, ErrNotExist)
	}
	d := newDocument(s.body, mediaText+"; charset=utf-8")
	d.Header.Del("Vary")
	d.Header.Set(GeneratedHeader, "true")
	return d, nil
}

// sums is a checksum file in the making.
type sums struct {
	ctx            context.Context //nolint:containedctx // of the one request that asks
	lister         Lister
	recursive      bool
	body           []byte
	files, folders int // that were seen
}

// add adds the files of a folder, whose names begin with a prefix.
func (s *sums) add(path, prefix string) error {
	for after := ""; ; {
		entries, next, err := s.lister.List(s.ctx, path, after, listBatch)
		if errors.Is(err, ErrNotExist) && prefix != "" {
			return nil // the folder went meanwhile
		}
		if err != nil {
			return err
		}
		for i := range entries {
			if err := s.addEntry(path, prefix, &entries[i]); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

func (s *sums) addEntry(path, prefix string, e *Entry) error {
	name, isFolder := strings.CutSuffix(e.Name, "/")
	switch {
	case isFolder:
		s.folders++
		if !s.recursive {
			return nil
		}
		if path != "" {
			name = path + "/" + name
		}
		return s.add(name, prefix+e.Name)
	case e.SHA256 == "":
		return nil
	}
	if s.files++; s.files > maxSums {
		return fmt.Errorf("%w: there are more than %d files: ask for the checksums of a folder below", ErrRequest, maxSums)
	}
	s.body = appendSum(s.body, e.SHA256, prefix+name)
	return nil
}

// appendSum appends the line of a file as sha256sum writes it: a backslash first
// says that what would break lines is escaped in the name.
func appendSum(b []byte, sum, name string) []byte {
	if name == "-" {
		name = "./-" // sha256sum would read its standard input
	}
	escape := strings.ContainsAny(name, "\\\n\r")
	if escape {
		b = append(b, '\\')
	}
	b = append(b, sum...)
	b = append(b, ' ', ' ')
	if !escape {
		return append(append(b, name...), '\n')
	}
	for i := range len(name) {
		switch c := name[i]; c {
		case '\\':
			b = append(b, `\\`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		default:
			b = append(b, c)
		}
	}
	return append(b, '\n')
}

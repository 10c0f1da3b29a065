package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// webListing is a page of a folder's listing, as an origin's file store tells
// it in JSON.
type webListing struct {
	Entries []webEntry `json:"entries"`
	Next    string     `json:"next"` // relative URL of the next page, "" at the end
}

// webEntry is a file, or a folder, whose name ends in a slash.
type webEntry struct {
	Name     string    `json:"name"`
	SHA256   string    `json:"sha256"` // in hex
	Size     int64     `json:"size"`   // bytes
	Modified time.Time `json:"modified"`
}

// List implements [FileStore]. Only an origin's file store can be listed.
func (s *webStore) List(ctx context.Context, prefix string) iter.Seq2[FileInfo, error] {
	return func(yield func(FileInfo, error) bool) {
		folder := prefix[:strings.LastIndexByte(prefix, '/')+1]
		files, err := s.walk(ctx, nil, folder, prefix)
		slices.SortFunc(files, func(a, b FileInfo) int { return strings.Compare(a.Name, b.Name) })
		for _, file := range files {
			if !yield(file, nil) {
				return
			}
		}
		if err != nil {
			yield(FileInfo{}, fmt.Errorf("listing %s: %w", s, err))
		}
	}
}

// walk adds the files of a folder, which is "" or ends in a slash, whose names
// begin with prefix.
func (s *webStore) walk(ctx context.Context, files []FileInfo, folder, prefix string) ([]FileInfo, error) {
	entries, err := s.folder(ctx, folder)
	if errors.Is(err, ErrNotFound) {
		// Is it the folder that is not there, or are there no listings?
		if _, err = s.folder(ctx, ""); errors.Is(err, ErrNotFound) {
			err = failf(ErrUnsupported, "%s cannot be listed: name the bucket or directory behind it instead", s)
		}
		return files, err
	}
	if err != nil {
		return files, err
	}
	for _, entry := range entries {
		name := folder + entry.Name
		below, isFolder := strings.CutSuffix(entry.Name, "/")
		if checkFileName(folder+below) != nil || strings.Contains(below, "/") {
			return files, failf(ErrRefused, "folder %q has an entry %.100q", folder, entry.Name)
		}
		switch {
		case isFolder && (strings.HasPrefix(name, prefix) || strings.HasPrefix(prefix, name)):
			if files, err = s.walk(ctx, files, name, prefix); err != nil {
				return files, err
			}
		case !isFolder && strings.HasPrefix(name, prefix):
			info := FileInfo{Name: name, Size: entry.Size, ModTime: entry.Modified}
			if sum := digest.NewDigestFromEncoded(digest.SHA256, entry.SHA256); sum.Validate() == nil {
				info.SHA256 = sum
			}
			files = append(files, info)
		}
	}
	return files, nil
}

// folder reads all pages of a folder's listing. Errors: ErrNotFound,
// ErrUnsupported when the server lists in no form that is known.
func (s *webStore) folder(ctx context.Context, folder string) ([]webEntry, error) {
	at := *s.base
	at.Path += "/" + folder
	req := &request{method: http.MethodGet, url: &at, header: http.Header{"Accept": {"application/json"}}}
	var entries []webEntry
	for range maxPages {
		a, err := s.host.fetch(ctx, req, maxList)
		if err != nil {
			return nil, err
		}
		var page webListing
		mediaType, _, _ := mime.ParseMediaType(a.header.Get("Content-Type"))
		if mediaType != "application/json" || json.Unmarshal(a.body, &page) != nil || page.Entries == nil {
			return nil, failf(ErrUnsupported, "%s: the answer is no listing in JSON: name the bucket or directory behind it instead", req.what())
		}
		entries = append(entries, page.Entries...)
		if page.Next == "" {
			return entries, nil
		}
		next, err := req.url.Parse(page.Next)
		if err != nil || !sameOrigin(next, s.base) || next.Path != at.Path || *next == *req.url {
			return nil, failf(ErrRefused, "%s: the link to the next page does not lead on", req.what())
		}
		again := *req
		again.url = &url.URL{Scheme: next.Scheme, Host: next.Host, Path: next.Path, RawQuery: next.RawQuery}
		req = &again
	}
	return nil, failf(ErrRefused, "%s: more than %d pages", req.what(), maxPages)
}

package locate

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"entrepot/registry/reach"

	"github.com/google/renameio/v2"
)

const (
	// maxDownload bounds a file: the largest databases have some 150 MB.
	maxDownload = 512 << 20
	// updateTimeout bounds the download of one file, unless configured.
	updateTimeout = 10 * time.Minute
)

// ErrUpdate says that a download was refused, and the file that was there stays.
var ErrUpdate = errors.New("the download is not taken")

// UpdateConfig configures [Update].
type UpdateConfig struct {
	// Dir is where the files are kept: that of [Config.Dir].
	Dir string
	// Sources are URLs, http or https, by what they have: aws, azure, gcp and
	// oracle (address ranges), city, asn and country (MMDB, also within gzip or a
	// tar archive within that). They may have credentials.
	Sources map[string]string
	// Force takes what is smaller than half of what is there, or older.
	Force   bool
	Client  *http.Client  // nil means one of reach.NewClient
	Timeout time.Duration // for each file; 0 means ten minutes
}

// Updated is what became of one file.
type Updated struct {
	Name string
	Path string
	// Entries are the networks in it; Unchanged says that the server has nothing
	// newer, so that it was not counted.
	Entries   int
	Unchanged bool
	Err       error
}

// SourceNames are what [UpdateConfig.Sources] may have.
func SourceNames() []string {
	return append(slices.Sorted(maps.Keys(rangeParsers())), "asn", "city", "country")
}

// Update downloads files into a folder that a [Locator] reads. Each is checked
// before it takes the place of the one before, at once: a reader sees the one or
// the other. The result has every source, in the order of their names; one that
// failed leaves its file as it was. Errors: ErrUpdate, ErrRanges, ErrDatabase, and
// those of the network.
func Update(ctx context.Context, cfg UpdateConfig) ([]Updated, error) {
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil { //nolint:gosec // what clouds publish is no secret
		return nil, err
	}
	atlas, err := NewAtlas()
	if err != nil {
		return nil, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, updateTimeout)
	if cfg.Client == nil {
		cfg.Client = reach.NewClient()
		defer cfg.Client.CloseIdleConnections()
	}
	var all []Updated
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		u := updater{UpdateConfig: &cfg, atlas: atlas, name: name}
		all = append(all, u.update(ctx))
	}
	return all, nil
}

// updater updates one file.
type updater struct {
	*UpdateConfig

	atlas *Atlas
	name  string
}

func (u *updater) update(ctx context.Context) Updated {
	suffix := ".mmdb"
	if rangeParsers()[u.name] != nil {
		suffix = ".json"
	}
	result := Updated{Name: u.name, Path: filepath.Join(u.Dir, u.name+suffix)}
	if !slices.Contains(SourceNames(), u.name) {
		result.Err = fmt.Errorf("%w: %q is no source; there are %s", ErrUpdate, u.name, strings.Join(SourceNames(), ", "))
		return result
	}
	ctx, cancel := context.WithTimeout(ctx, u.Timeout)
	defer cancel()
	data, modified, err := u.download(ctx, result.Path)
	if err == nil && data == nil {
		result.Unchanged = true
		return result
	}
	if err == nil {
		result.Entries, err = u.check(data, result.Path)
	}
	if err == nil {
		err = renameio.WriteFile(result.Path, data, 0o644, renameio.IgnoreUmask())
	}
	if err == nil && !modified.IsZero() {
		err = os.Chtimes(result.Path, modified, modified) // by which it is asked for the next time
	}
	result.Err = err
	return result
}

// download fetches the file; data is nil when the server has nothing newer.
func (u *updater) download(ctx context.Context, path string) (data []byte, modified time.Time, err error) {
	source := u.Sources[u.name]
	parsed, err := url.Parse(source)
	if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || parsed.Host == "" {
		return nil, modified, fmt.Errorf("%w: the source of %s is no URL; write one such as https://host/path", ErrUpdate, u.name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, http.NoBody)
	if err != nil {
		return nil, modified, err
	}
	if info, err := os.Stat(path); err == nil && !u.Force {
		req.Header.Set("If-Modified-Since", info.ModTime().UTC().Format(http.TimeFormat))
	}
	resp, err := u.Client.Do(req)
	if err != nil {
		return nil, modified, fmt.Errorf("asking %s: %w", shown(parsed), withoutURL(err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		return nil, modified, nil
	default:
		return nil, modified, fmt.Errorf("%w: %s answers %s", ErrUpdate, shown(parsed), resp.Status)
	}
	modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	data, err = readBounded(resp.Body)
	if err == nil {
		data, err = unpack(data)
	}
	if err != nil {
		return nil, modified, fmt.Errorf("reading %s: %w", shown(parsed), err)
	}
	return data, modified, nil
}

// shown is a source as it may be told: keys may be in its query.
func shown(u *url.URL) string {
	told := *u
	if told.RawQuery != "" {
		told.RawQuery = "…"
	}
	return told.Redacted()
}

// withoutURL is what an error of a request says beside its URL.
func withoutURL(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxDownload+1))
	if err == nil && len(data) > maxDownload {
		err = fmt.Errorf("%w: it is larger than %d MiB", ErrUpdate, maxDownload>>20)
	}
	return data, err
}

// unpack is the file within gzip, and within a tar archive the database in it.
func unpack(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, nil
	}
	zipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if data, err = readBounded(zipped); err != nil {
		return nil, err
	}
	const magicAt = 257 // of "ustar" in the first header
	if len(data) < 512 || !bytes.HasPrefix(data[magicAt:], []byte("ustar")) {
		return data, nil
	}
	archive := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: the archive has no .mmdb file", ErrUpdate)
		}
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(header.Name, ".mmdb") && header.Typeflag == tar.TypeReg {
			return readBounded(archive)
		}
	}
}

// check says how many networks a new file has. It must be whole, and no step back
// from the one that is there.
func (u *updater) check(data []byte, path string) (entries int, err error) {
	entries, built, err := u.read(data)
	if err != nil || u.Force {
		return entries, err
	}
	before, builtBefore := u.there(path)
	switch {
	case entries < before/2:
		return 0, fmt.Errorf("%w: it has %d networks, and the one that is there %d; --force takes it all the same", ErrUpdate, entries, before)
	case built.Before(builtBefore):
		return 0, fmt.Errorf("%w: it was built on %s, and the one that is there on %s; --force takes it all the same",
			ErrUpdate, built.Format(time.DateOnly), builtBefore.Format(time.DateOnly))
	}
	return entries, nil
}

// there says how many networks the file has that is there, and when it was built;
// zero when there is none, or one that cannot be used: anything is better.
func (u *updater) there(path string) (entries int, built time.Time) {
	old, err := os.ReadFile(path)
	if err == nil {
		entries, built, err = u.read(old)
	}
	if err != nil {
		return 0, time.Time{}
	}
	return entries, built
}

// read says how many networks a file has and, of a database, when it was built.
func (u *updater) read(data []byte) (entries int, built time.Time, err error) {
	if rangeParsers()[u.name] != nil {
		ranges, err := parseRanges(u.name, data)
		return len(ranges), built, err
	}
	d, err := openDatabase(data, u.atlas) // which reads all of it
	if err != nil {
		return 0, built, err
	}
	return int(d.reader.Metadata.NodeCount), d.reader.Metadata.BuildTime(), nil
}

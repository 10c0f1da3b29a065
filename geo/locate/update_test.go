package locate

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sourceOf serves files whose content a test changes.
type sourceOf struct {
	*httptest.Server

	files    map[string][]byte
	modified time.Time
}

func newSource(t *testing.T) *sourceOf {
	t.Helper()
	s := &sourceOf{files: map[string][]byte{}, modified: time.Now().Add(-time.Hour).Truncate(time.Second)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", s.modified, bytes.NewReader(data))
	}))
	t.Cleanup(s.Close)
	return s
}

// one updates one file.
func (s *sourceOf) one(t *testing.T, dir, name string, force bool) Updated {
	t.Helper()
	all, err := Update(t.Context(), UpdateConfig{Dir: dir, Sources: map[string]string{name: s.URL + "/" + name}, Force: force})
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUpdateTakesWhatIsWholeAndARunningLocatorSeesIt(t *testing.T) {
	s, dir := newSource(t), filepath.Join(t.TempDir(), "geo")
	s.files["/aws"], s.files["/gcp"] = []byte(awsRanges), gzipped(t, []byte(gcpRanges))
	if u := s.one(t, dir, "aws", false); u.Err != nil || u.Entries == 0 || u.Unchanged {
		t.Errorf("first: %+v", u)
	}
	l := open(t, Config{Dir: dir})
	before, _ := l.Size()
	if u := s.one(t, dir, "gcp", false); u.Err != nil || u.Entries == 0 {
		t.Errorf("gzip: %+v", u)
	}
	if err := l.Reload(); err != nil {
		t.Fatal(err)
	}
	if after, _ := l.Size(); after <= before {
		t.Errorf("%d networks after %d", after, before)
	}
	if u := s.one(t, dir, "aws", false); u.Err != nil || !u.Unchanged {
		t.Errorf("again: %+v", u)
	}
}

func TestUpdateRefusesAStepBackAndKeepsWhatIsThere(t *testing.T) {
	s, dir := newSource(t), t.TempDir()
	s.files["/aws"] = []byte(`{"prefixes": [{"ip_prefix": "10.0.0.0/24", "region": "a"}, {"ip_prefix": "10.0.1.0/24", "region": "a"},
		{"ip_prefix": "10.0.2.0/24", "region": "a"}, {"ip_prefix": "10.0.3.0/24", "region": "a"}]}`)
	if u := s.one(t, dir, "aws", false); u.Err != nil || u.Entries != 4 {
		t.Fatalf("%+v", u)
	}
	path := filepath.Join(dir, "aws.json")
	kept, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	s.modified = time.Now()
	for text, want := range map[string]error{
		`{"prefixes": [{"ip_prefix": "10.0.0.0/24", "region": "a"}]}`: ErrUpdate,
		`{"prefixes": []}`:         ErrRanges,
		`<html>Sign in</html>`:     ErrRanges,
		string(kept[:len(kept)/2]): ErrRanges,
	} {
		s.files["/aws"] = []byte(text)
		if u := s.one(t, dir, "aws", false); !errors.Is(u.Err, want) {
			t.Errorf("%s: %v, want %v", text, u.Err, want)
		}
		if now, err := os.ReadFile(filepath.Clean(path)); err != nil || !bytes.Equal(now, kept) {
			t.Errorf("after %s the file is %s, %v", text, now, err)
		}
	}
	s.files["/aws"] = []byte(`{"prefixes": [{"ip_prefix": "10.0.0.0/24", "region": "a"}]}`)
	if u := s.one(t, dir, "aws", true); u.Err != nil || u.Entries != 1 {
		t.Errorf("with force: %+v", u)
	}
	if left, err := filepath.Glob(dir + "/.*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestUpdateOfADatabase(t *testing.T) {
	s, dir := newSource(t), t.TempDir()
	database, err := os.ReadFile(filepath.Join(dataFolder(t), "country.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, data := range map[string][]byte{"x/COPYRIGHT.txt": []byte("c"), "x/x.mmdb": database} {
		if err := errors.Join(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))})); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s.files["/country"] = gzipped(t, archive.Bytes())
	if u := s.one(t, dir, "country", false); u.Err != nil || u.Entries == 0 {
		t.Fatalf("in an archive: %+v", u)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "country.mmdb")); err != nil || !bytes.Equal(got, database) {
		t.Errorf("the database is another, %v", err)
	}
	s.modified = time.Now()
	s.files["/country"] = database[:len(database)-200]
	if u := s.one(t, dir, "country", false); !errors.Is(u.Err, ErrDatabase) {
		t.Errorf("cut off: %v", u.Err)
	}
}

func TestUpdateSaysWhatFailed(t *testing.T) {
	s := newSource(t)
	all, err := Update(t.Context(), UpdateConfig{Dir: t.TempDir(), Sources: map[string]string{
		"aws": s.URL + "/nothing", "gcp": "ftp://x/y", "moon": s.URL + "/moon", "oracle": strings.Replace(s.URL, "http://", "http://user:secret@", 1) + "/nothing?key=secret",
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"404", "write one such as https://host/path", `"moon" is no source; there are aws`, "user:xxxxx@"} {
		if u := all[i]; u.Err == nil || !strings.Contains(u.Err.Error(), want) || strings.Contains(u.Err.Error(), "secret") {
			t.Errorf("%s: %v, want %q", u.Name, u.Err, want)
		}
	}
}

package blobstore_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// writeInStore makes a file below a store, and its directories.
func writeInStore(t *testing.T, path, name, text string) {
	t.Helper()
	file := filepath.Join(path, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// closedStore is a store of a blob, a record and a partial, and what they have.
func closedStore(t *testing.T) (path string, blob digest.Digest) {
	t.Helper()
	path = t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	blob = put(t, d, content("blob", 10_000))
	if err := d.PutRecord(t.Context(), "tags/docker.io/app/v1", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	p, err := d.Partial(t.Context(), digest.FromString("partial"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("par")); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	closeDir(t, d)
	return path, blob
}

func check(t *testing.T, path string, cfg blobstore.CheckConfig) *blobstore.CheckReport {
	t.Helper()
	report, err := blobstore.CheckDir(t.Context(), path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestCheckFindsNothingInAStoreThatIsRight(t *testing.T) {
	path, _ := closedStore(t)
	writeInStore(t, path, "files/version", "an origin's other store")
	report := check(t, path, blobstore.CheckConfig{Deep: true})
	if len(report.Findings) != 0 || report.Blobs != 1 || report.Bytes != 10_000 || report.Records != 1 ||
		report.Partials != 1 || report.PartialBytes != 3 || report.InUse || report.Format != 1 {
		t.Errorf("the report is %+v", report)
	}
}

// harm is something that goes wrong with a store, and how it is found.
type harm struct {
	name string
	do   func(t *testing.T, path string, blob digest.Digest)
	want blobstore.Finding // of the Detail, a part; of the Path, its beginning
	deep bool
}

func harms() []harm {
	writes := func(name, text string) func(*testing.T, string, digest.Digest) {
		return func(t *testing.T, path string, _ digest.Digest) { t.Helper(); writeInStore(t, path, name, text) }
	}
	hex := strings.Repeat("ab", 32)
	quarantine, remove := blobstore.ActionQuarantine, blobstore.ActionRemove
	return []harm{
		{"foreign algorithm", writes("blobs/md5/x", ""), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/md5", Repair: quarantine}, false},
		{"file for a fan", writes("blobs/sha256/00", ""), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/sha256/00", Repair: quarantine}, false},
		{"foreign fan", writes("blobs/sha256/AB/x", ""), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/sha256/AB", Repair: quarantine}, false},
		{"wrong fan", writes("blobs/sha256/cd/"+hex+"/data", "x"), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/sha256/cd/" + hex, Repair: quarantine}, false},
		{"no digest", writes("blobs/sha256/ab/abcd/data", "x"), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/sha256/ab/abcd", Repair: quarantine}, false},
		{"beside the data", writes("blobs/sha256/ab/"+hex+"/note", "x"), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/sha256/ab/" + hex + "/note", Repair: quarantine}, false},
		{"directory for data", writes("blobs/sha256/ab/"+hex+"/data/x", "x"), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "blobs/sha256/ab/" + hex + "/data", Repair: quarantine}, false},
		{"empty blob", writes("blobs/sha256/ab/"+hex+"/data", ""), blobstore.Finding{Kind: blobstore.FoundTruncated, Path: "blobs/sha256/ab/" + hex + "/data", Repair: quarantine}, false},
		{"empty directory", func(t *testing.T, path string, _ digest.Digest) {
			t.Helper()
			if err := os.MkdirAll(filepath.Join(path, "blobs/sha256/ab", hex), 0o700); err != nil {
				t.Fatal(err)
			}
		}, blobstore.Finding{Kind: blobstore.FoundEmpty, Path: "blobs/sha256/ab/" + hex, Repair: remove}, false},
		{"temporary file", writes("spool/tmp-123", "half"), blobstore.Finding{Kind: blobstore.FoundOrphan, Path: "spool/tmp-123", Repair: remove}, false},
		{"foreign partial", writes("spool/sha256-abc.partial", "half"), blobstore.Finding{Kind: blobstore.FoundOrphan, Path: "spool/sha256-abc.partial", Repair: remove}, false},
		{"foreign record", writes("records/tags/v1", "{}"), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "records/tags/v1", Repair: quarantine}, false},
		{"record out of bounds", writes("records/%2E%2E~", "{}"), blobstore.Finding{Kind: blobstore.FoundMisplaced, Path: "records/%2E%2E~", Repair: quarantine}, false},
		{"garbled record", writes("records/tags/v2~", "{"), blobstore.Finding{Kind: blobstore.FoundRecord, Path: "records/tags/v2~", Detail: "garbled", Repair: quarantine}, false},
		{"garbled state", writes("scrub", "{"), blobstore.Finding{Kind: blobstore.FoundState, Path: "scrub", Repair: remove}, false},
		{"garbled version", writes("version", "\x00"), blobstore.Finding{Kind: blobstore.FoundFormat, Path: "version", Repair: blobstore.ActionMark}, false},
		{"no version", func(t *testing.T, path string, _ digest.Digest) {
			t.Helper()
			if err := os.Remove(filepath.Join(path, "version")); err != nil {
				t.Fatal(err)
			}
		}, blobstore.Finding{Kind: blobstore.FoundFormat, Path: "version", Repair: blobstore.ActionMark}, false},
		{"rot", rot, blobstore.Finding{Kind: blobstore.FoundRotten, Path: "blobs/sha256/", Detail: "does not match its digest", Repair: quarantine}, true},
	}
}

func noGarbledRecord(key string, value []byte) error {
	if string(value) != "{}" {
		return errors.New(key + " is garbled")
	}
	return nil
}

func TestCheckFindsEachHarmAndRepairPutsItRight(t *testing.T) {
	for _, h := range harms() {
		t.Run(h.name, func(t *testing.T) {
			path, blob := closedStore(t)
			h.do(t, path, blob)
			cfg := blobstore.CheckConfig{Deep: true, Record: noGarbledRecord}
			report := check(t, path, cfg)
			if len(report.Findings) != 1 {
				t.Fatalf("found %+v", report.Findings)
			}
			got := report.Findings[0]
			if got.Kind != h.want.Kind || got.Repair != h.want.Repair || !strings.HasPrefix(got.Path, h.want.Path) ||
				got.Detail == "" || !strings.Contains(got.Detail, h.want.Detail) {
				t.Errorf("found %+v, want %+v", got, h.want)
			}
			if shallow := check(t, path, blobstore.CheckConfig{Record: noGarbledRecord}); h.deep && len(shallow.Findings) != 0 {
				t.Errorf("without reading, found %+v", shallow.Findings)
			}
			if again := check(t, path, cfg); !slices.Equal(again.Findings, report.Findings) {
				t.Errorf("checking changed something: %+v", again.Findings)
			}
			done := 0
			_, err := blobstore.RepairDir(t.Context(), path, cfg, func(f blobstore.Finding, err error) {
				if done++; err != nil || f != got {
					t.Errorf("repairing %+v: %v", f, err)
				}
			})
			if err != nil || done != 1 {
				t.Fatalf("repaired %d: %v", done, err)
			}
			after := check(t, path, cfg)
			if len(after.Findings) != 0 {
				t.Errorf("after the repair, found %+v", after.Findings)
			}
			if aside := h.want.Repair == blobstore.ActionQuarantine; aside != (after.Quarantined == 1) {
				t.Errorf("put aside: %d", after.Quarantined)
			}
			d := openDir(t, path, blobstore.DirConfig{})
			wantHeld(t, d, blob, !h.deep)
			if _, err := d.Record(t.Context(), "tags/docker.io/app/v1"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCheckOfAStoreInUseTakesNothingUnfinishedForWrong(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	blob := put(t, d, content("blob", 10_000))
	writeInStore(t, path, "spool/tmp-being-written", "half")
	defer os.Remove(filepath.Join(path, "spool", "tmp-being-written"))
	report := check(t, path, blobstore.CheckConfig{Deep: true})
	if !report.InUse || len(report.Findings) != 0 || report.Blobs != 1 {
		t.Errorf("the report is %+v", report)
	}
	rot(t, path, blob)
	if report := check(t, path, blobstore.CheckConfig{Deep: true}); len(report.Findings) != 1 {
		t.Errorf("found %+v", report.Findings)
	}
	_, err := blobstore.RepairDir(t.Context(), path, blobstore.CheckConfig{}, func(blobstore.Finding, error) { t.Error("repaired") })
	if err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("repairing a store in use: %v", err)
	}
}

func TestCheckRefusesWhatIsNoStoreAndWhatIsNewer(t *testing.T) {
	path, _ := closedStore(t)
	writeInStore(t, path, "version", "2\n")
	nothing := t.TempDir()
	writeInStore(t, nothing, "letters/home", "dear")
	for dir, want := range map[string]string{
		path: "needs one that knows format 2", nothing: "holds no store", filepath.Join(nothing, "letters", "home"): "not a directory",
		filepath.Join(nothing, "absent"): "no such file",
	} {
		_, err := blobstore.CheckDir(t.Context(), dir, blobstore.CheckConfig{})
		_, repair := blobstore.RepairDir(t.Context(), dir, blobstore.CheckConfig{}, func(blobstore.Finding, error) { t.Error("repaired") })
		_, scrub := blobstore.ScrubDir(t.Context(), dir, blobstore.ScrubDirConfig{})
		for _, err := range []error{err, repair, scrub} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q in it", dir, err, want)
			}
		}
	}
	if left, err := os.ReadDir(nothing); err != nil || len(left) != 1 {
		t.Errorf("made in a directory that is no store: %v, %v", left, err)
	}
}

func TestScrubOfAnOpenStoreIsNoticedAndTheBlobCanBeStoredAgain(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	right, wrong := put(t, d, content("right", 5000)), put(t, d, content("wrong", 5000))
	other := digest.SHA512.FromString("by sha512")
	if err := d.Put(t.Context(), other, 9, strings.NewReader("by sha512")); err != nil {
		t.Fatal(err)
	}
	rot(t, path, wrong)
	var found []blobstore.ScrubFinding
	report, err := blobstore.ScrubDir(t.Context(), path, blobstore.ScrubDirConfig{Found: func(f blobstore.ScrubFinding) { found = append(found, f) }})
	if err != nil || report.Blobs != 2 || report.Rotten != 1 || report.Last != other {
		t.Fatalf("%+v, %v", report, err)
	}
	if len(found) != 1 || found[0].Digest != wrong || found[0].Size != 5000 || len(quarantined(t, path)) != 1 || quarantined(t, path)[0] != found[0].Aside {
		t.Errorf("found %+v, put aside %v", found, quarantined(t, path))
	}
	if left, err := os.Stat(filepath.Dir(dataFile(path, wrong))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is left, which a check finds: %v, %v", left, err)
	}
	if _, err := d.OpenFile(wrong); !errors.Is(err, blobstore.ErrNotExist) {
		t.Errorf("opening what was put aside: %v", err)
	}
	put(t, d, content("wrong", 5000))
	wantHeld(t, d, wrong, true)
	wantHeld(t, d, right, true)
	if u := d.Usage(); u.Bytes != 10_009 {
		t.Errorf("the usage is %+v", u)
	}
}

func TestScrubOfADirectoryGoesOnAfterADigest(t *testing.T) {
	path := t.TempDir()
	d := openDir(t, path, blobstore.DirConfig{})
	for i := range 20 {
		put(t, d, content("blob", i+1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	report, err := blobstore.ScrubDir(ctx, path, blobstore.ScrubDirConfig{})
	if !errors.Is(err, context.Canceled) || report.Blobs != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	all, err := blobstore.ScrubDir(t.Context(), path, blobstore.ScrubDirConfig{})
	if err != nil || all.Blobs != 20 {
		t.Fatalf("%+v, %v", all, err)
	}
	var digests []string
	for info, err := range d.Blobs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, string(info.Digest))
	}
	slices.Sort(digests)
	rest, err := blobstore.ScrubDir(t.Context(), path, blobstore.ScrubDirConfig{After: digest.Digest(digests[4])})
	if err != nil || rest.Blobs != 15 || string(rest.Last) != digests[19] {
		t.Errorf("%+v, %v", rest, err)
	}
}

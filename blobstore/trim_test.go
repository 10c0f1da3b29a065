package blobstore

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRecordsAreTrimmedByTheirUseAndOnlyBelowTheirPrefix(t *testing.T) {
	d, err := OpenDir(t.TempDir(), DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	put := func(key string, age time.Duration) {
		t.Helper()
		if err := d.PutRecord(t.Context(), key, []byte("{}")); err != nil {
			t.Fatal(err)
		}
		path, _ := d.recordFile(key)
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		put(fmt.Sprintf("names/up/%02d", i), time.Duration(100-i)*time.Hour)
	}
	put("others/up/old", 10000*time.Hour)
	for _, key := range []string{"names/up/03", "names/up/none"} {
		if err := d.TouchRecord(key); err != nil {
			t.Fatal(err)
		}
	}
	spare := func(key string) bool { return strings.HasSuffix(key, "05") }
	if left, deleted, err := d.TrimRecords(t.Context(), "names", 40, spare); left != 40 || deleted != 0 || err != nil {
		t.Errorf("%d are left and %d deleted, %v, where there are not too many", left, deleted, err)
	}
	left, deleted, err := d.TrimRecords(t.Context(), "names", 20, spare)
	if err != nil || left+deleted != 40 || left < 18 || left > 19 {
		t.Errorf("%d are left and %d deleted, %v; want 18, and what is spared", left, deleted, err)
	}
	keys := map[string]bool{}
	for key, err := range d.RecordKeys(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys[key] = true
	}
	for key, want := range map[string]bool{
		"names/up/03": true, // touched
		"names/up/05": true, // spared
		"names/up/39": true, "names/up/30": true, "others/up/old": true,
		"names/up/00": false, "names/up/10": false,
	} {
		if keys[key] != want {
			t.Errorf("%s is there: %t, want %t", key, keys[key], want)
		}
	}
	if left, deleted, err := d.TrimRecords(t.Context(), "nothing", 1, spare); left != 0 || deleted != 0 || err != nil {
		t.Errorf("of nothing, %d are left and %d deleted: %v", left, deleted, err)
	}
	if _, _, err := d.TrimRecords(t.Context(), "../records", 1, func(string) bool { return false }); err == nil {
		t.Error("a path out of the store was walked")
	}
}

package blobstore_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

func TestRecordsInABucketThatAreTooManyAreTrimmedByAge(t *testing.T) {
	onS3Servers(t, func(t *testing.T, server *testenv.S3Server) {
		s := openS3(t, s3Config(server, server.NewBucket(t)))
		put := func(keys ...string) {
			t.Helper()
			for _, key := range keys {
				if err := s.PutRecord(t.Context(), key, []byte("value")); err != nil {
					t.Fatal(err)
				}
			}
		}
		named := func(from, to int) (keys []string) {
			for i := from; i < to; i++ {
				keys = append(keys, fmt.Sprintf("names/up/%02d", i))
			}
			return keys
		}
		put("others/up/old", "names/upper/old")
		put(named(0, 25)...)
		// Some servers tell times in seconds: what follows is to be later for them, too.
		for start := time.Now(); time.Since(start) < 1100*time.Millisecond; {
			put("others/up/old")
		}
		put(named(25, 40)...)
		spare := func(key string) bool { return strings.HasSuffix(key, "05") }
		if left, deleted, err := s.TrimRecords(t.Context(), "names/up", 40, spare); left != 40 || deleted != 0 || err != nil {
			t.Errorf("%d are left and %d deleted, %v, where there are not too many", left, deleted, err)
		}
		left, deleted, err := s.TrimRecords(t.Context(), "names/up", 20, spare)
		if err != nil || left+deleted != 40 || left < 18 || left > 19 {
			t.Errorf("%d are left and %d deleted, %v; want 18, and what is spared", left, deleted, err)
		}
		keys := map[string]bool{}
		for key, err := range s.RecordKeys(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			keys[key] = true
		}
		if !keys["names/up/05"] || !keys["others/up/old"] || !keys["names/upper/old"] || len(keys) != left+2 {
			t.Errorf("%d keys are there, with what is spared or of others: %v", len(keys), keys)
		}
		for _, key := range named(25, 40) {
			if !keys[key] {
				t.Errorf("%s was written last, and is gone", key)
			}
		}
		if _, _, err := s.TrimRecords(t.Context(), "../records", 1, spare); err == nil {
			t.Error("a path out of the store was walked")
		}
	})
}

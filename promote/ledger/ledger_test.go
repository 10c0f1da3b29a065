package ledger

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// testKey is a new key of a log.
func testKey(t testing.TB) Key {
	t.Helper()
	private, _, err := newKey("origin.example.org/ledger")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testDestinations are n destinations of a project.
func testDestinations(project string, n int) []string {
	var destinations []string
	for i := range n {
		destinations = append(destinations, fmt.Sprintf("region-%02d.registry.example.org/prod/%s", i, project))
	}
	return destinations
}

func testDigest(text string) digest.Digest { return digest.FromString(text) }

// setEntry is a new name of project's, at three destinations.
func setEntry(project, name string) Entry {
	return Entry{
		Kind: Image, Action: Set, Name: name, Destinations: testDestinations(project, 3),
		Digest: testDigest(project + name), Size: 1234, MediaType: "application/vnd.oci.image.index.v1+json",
		Project: project, Revision: "0123456789abcdef0123456789abcdef01234567",
	}
}

// namesFrom are n entries with names that are numbered from a number on.
func namesFrom(first, n int) []Entry {
	var entries []Entry
	for i := range n {
		entries = append(entries, setEntry("coredns", fmt.Sprintf("coredns:v%d", first+i)))
	}
	return entries
}

// openLog opens a log that must open.
func openLog(t testing.TB, s Storage, key Key) *Log {
	t.Helper()
	l, err := New(context.Background(), s, Config{Key: key})
	if err != nil {
		t.Fatalf("opening the log: %v", err)
	}
	return l
}

// mustAppend appends entries whatever the state is.
func mustAppend(t testing.TB, l *Log, entries ...Entry) []Entry {
	t.Helper()
	got, err := l.Append(context.Background(), func(*State) ([]Entry, error) { return entries, nil })
	if err != nil {
		t.Fatalf("appending %d entries: %v", len(entries), err)
	}
	return got
}

// mustVerify audits a log that must be whole.
func mustVerify(t testing.TB, s Reader, key Key) Report {
	t.Helper()
	report, err := Verify(context.Background(), s, Config{Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestWhatWasAppendedIsReadAgain(t *testing.T) {
	dir, key := NewDir(t.TempDir()), testKey(t)
	l := openLog(t, dir, key)
	now := time.Now()
	first := mustAppend(t, l, namesFrom(0, 300)...)
	second := mustAppend(t, l, namesFrom(300, 1)...)
	if first[299].Sequence != 299 || second[0].Sequence != 300 {
		t.Errorf("sequences %d and %d, want 299 and 300", first[299].Sequence, second[0].Sequence)
	}
	if second[0].Time.Before(first[0].Time) || second[0].Time.Sub(now) > time.Minute {
		t.Errorf("times %v and %v, appended at %v", first[0].Time, second[0].Time, now)
	}

	again := openLog(t, dir, key)
	if again.Checkpoint().Hash != l.Checkpoint().Hash || again.State().Len() != 301 {
		t.Fatalf("read again: %d entries with hash %v, want 301 with %v", again.State().Len(), again.Checkpoint().Hash, l.Checkpoint().Hash)
	}
	for _, destination := range testDestinations("coredns", 3) {
		e, ok := again.State().Lookup(destination, "coredns:v300")
		if !ok || e.Digest != second[0].Digest || !e.Time.Equal(second[0].Time) || e.Project != "coredns" {
			t.Errorf("Lookup(%s, coredns:v300) = %+v, %v", destination, e, ok)
		}
	}
	if report := mustVerify(t, dir, key); report.Objects != 2+2+1 {
		t.Errorf("a log of 301 entries has %d objects, want 2 bundles, 2 tiles of leaves and 1 above", report.Objects)
	}
}

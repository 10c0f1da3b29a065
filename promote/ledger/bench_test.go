package ledger

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The log of a configuration twice the size of today's largest: 45,000 names of
// 150 projects, 22 destinations each.
const (
	benchNames        = 45_000
	benchProjects     = 150
	benchDestinations = 22
)

func benchEntries() []Entry {
	var entries []Entry
	for p := range benchProjects {
		project := fmt.Sprintf("project-%03d", p)
		destinations := testDestinations(project, benchDestinations)
		if p == 0 {
			// One promotes to the top, so that the others are below it.
			for i, d := range destinations {
				destinations[i] = strings.TrimSuffix(d, "/"+project)
			}
		}
		for i := range benchNames / benchProjects {
			e := setEntry(project, fmt.Sprintf("image-%d:v1.%d.0", i%12, i))
			e.Destinations = destinations
			entries = append(entries, e)
		}
	}
	return entries
}

func benchLog(b *testing.B) (*Dir, Key) {
	b.Helper()
	dir, key := NewDir(b.TempDir()), testKey(b)
	mustAppend(b, openLog(b, dir, key), benchEntries()...)
	return dir, key
}

// BenchmarkOpen opens the log in a directory, and tells what its state holds of
// memory.
func BenchmarkOpen(b *testing.B) {
	dir, key := benchLog(b)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	l := openLog(b, dir, key)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(l)
	for b.Loop() {
		openLog(b, dir, key)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-held")
}

// BenchmarkAppend appends 2,000 entries to the log.
func BenchmarkAppend(b *testing.B) {
	dir, key := benchLog(b)
	l := openLog(b, dir, key)
	lot := benchEntries()[:2000]
	for b.Loop() {
		mustAppend(b, l, lot...)
	}
}

// BenchmarkLookup looks a name up by its full name.
func BenchmarkLookup(b *testing.B) {
	s := stateOf(b, benchEntries()...)
	full := testDestinations("project-042", 22)[7] + "/image-3:v1.15.0"
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.LookupFull(full); !ok {
			b.Fatal("not found")
		}
	}
}

// BenchmarkLookupAll looks all names up at all of their destinations, as a plan
// does.
func BenchmarkLookupAll(b *testing.B) {
	entries := benchEntries()
	s := stateOf(b, entries...)
	for b.Loop() {
		for i := range entries {
			for _, destination := range entries[i].Destinations {
				if _, ok := s.Lookup(destination, entries[i].Name); !ok {
					b.Fatal("not found")
				}
			}
		}
	}
}

// BenchmarkNames goes through all names that exist.
func BenchmarkNames(b *testing.B) {
	s := stateOf(b, benchEntries()...)
	for b.Loop() {
		n := 0
		for range s.Names() {
			n++
		}
		if n != benchNames {
			b.Fatalf("%d names", n)
		}
	}
}

// BenchmarkPoll is what a follower does each second: nothing is new, and then
// one entry is.
func BenchmarkPoll(b *testing.B) {
	dir, key := benchLog(b)
	f := newFollower(b, FollowerConfig{Source: dir, Key: key})
	mustPoll(b, f)
	b.Run("nothing new", func(b *testing.B) {
		for b.Loop() {
			mustPoll(b, f)
		}
	})
	b.Run("one entry", func(b *testing.B) {
		l := openLog(b, dir, key)
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			bad := digest.FromString(fmt.Sprint(i))
			if _, err := l.Append(context.Background(), func(*State) ([]Entry, error) {
				return []Entry{{Action: Revoke, Name: string(bad), Digest: bad}}, nil
			}); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			mustPoll(b, f)
		}
	})
}

package mirror

import (
	"slices"
	"strings"
	"testing"
	"time"

	"entrepot/promote/ledger"
)

func images(paths ...string) []Name { return namesOf(ledger.Image, "registry.test", paths) }
func files(paths ...string) []Name  { return namesOf(ledger.File, "dl.test", paths) }

func namesOf(kind ledger.Kind, upstream string, paths []string) []Name {
	names := make([]Name, len(paths))
	for i, path := range paths {
		project, path, found := strings.Cut(path, "|")
		if !found {
			project, path = "", paths[i]
		}
		names[i] = Name{Upstream: upstream, Kind: kind, Path: path, Project: project}
	}
	return names
}

func TestRulesSelect(t *testing.T) {
	all := slices.Concat(
		images("dns|coredns/coredns:v1.9.3", "dns|coredns/coredns:v1.10.0", "dns|coredns/coredns:v1.10.0-rc.1", "dns|coredns/coredns:1.11",
			"dns|coredns/coredns:latest", "base|pause:3.9", "base|pause:3.10", "base|pause:3.10-windows", "base|pause@sha256:00"),
		files("core|release/v1.35.0/bin/kubectl", "core|release/v1.35.0/bin/kubelet", "core|release/v1.36.0/bin/kubectl",
			"core|release/v1.36.0-rc.1/bin/kubectl", "core|release/stable.txt", "core|tools/2.0/x"),
	)
	for _, row := range []struct {
		what                    string
		projects, images, files string
		newest                  int
		want                    string
	}{
		{what: "by project", projects: "base", want: "pause:3.9 pause:3.10 pause:3.10-windows pause@sha256:00"},
		{what: "by a pattern of projects, newest 1", projects: "d*", newest: 1, want: "coredns/coredns:1.11 coredns/coredns:latest"},
		{what: "candidates belong to their version", images: "coredns/*", newest: 2, want: "coredns/coredns:v1.10.0 coredns/coredns:v1.10.0-rc.1 coredns/coredns:1.11 coredns/coredns:latest"},
		{what: "3.10 is newer than 3.9, variants belong to it, and digests have no version", images: "pause", newest: 1, want: "pause:3.10 pause:3.10-windows pause@sha256:00"},
		{what: "with the upstream before it", images: "registry.test/pause", want: "pause:3.9 pause:3.10 pause:3.10-windows pause@sha256:00"},
		{what: "folders of releases", files: "release/**", newest: 1, want: "release/v1.36.0/bin/kubectl release/v1.36.0-rc.1/bin/kubectl release/stable.txt"},
		{what: "each folder has versions of its own", files: "**", newest: 1, want: "release/v1.36.0/bin/kubectl release/v1.36.0-rc.1/bin/kubectl release/stable.txt tools/2.0/x"},
		{what: "patterns of images select no files", images: "**", projects: "core", want: ""},
	} {
		fields := func(s string) []string { return strings.Fields(s) }
		rule, err := ParseRule(fields(row.projects), fields(row.images), fields(row.files), row.newest)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, n := range choose([]Rule{rule}, all) {
			got = append(got, n.Path)
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.what, strings.Join(got, " "), row.want)
		}
	}
	if got := choose(nil, all); len(got) != len(all) {
		t.Errorf("without rules %d of %d names are selected", len(got), len(all))
	}
	if _, err := ParseRule(nil, []string{"a?"}, nil, 0); err == nil {
		t.Error("a pattern that is none was taken")
	}
}

func TestWindowsAreOfTheClockOnTheWall(t *testing.T) {
	zurich, err := time.LoadLocation("Europe/Zurich")
	if err != nil {
		t.Fatal(err)
	}
	var w Windows
	for _, text := range []string{"22:00-06:00", "12:00-13:00"} {
		span, err := ParseSpan(text)
		if err != nil {
			t.Fatal(err)
		}
		w.Spans = append(w.Spans, span)
	}
	w.Zone = zurich
	for _, row := range []struct {
		now   string
		open  bool
		until string
	}{
		{"2026-11-30T05:59:30+01:00", true, "2026-11-30T06:00:00+01:00"},
		{"2026-11-30T06:00:00+01:00", false, "2026-11-30T12:00:00+01:00"},
		{"2026-11-30T12:10:00Z", false, "2026-11-30T22:00:00+01:00"},
		{"2026-11-30T11:59:59Z", true, "2026-11-30T13:00:00+01:00"},
		{"2026-11-30T23:00:00+01:00", true, "2026-12-01T06:00:00+01:00"},
		// The night on which clocks are put forward has seven hours.
		{"2027-03-27T22:00:00+01:00", true, "2027-03-28T06:00:00+02:00"},
	} {
		now, err := time.Parse(time.RFC3339, row.now)
		if err != nil {
			t.Fatal(err)
		}
		open, until := w.At(now)
		if open != row.open || until.Format(time.RFC3339) != row.until {
			t.Errorf("at %s: %t until %s, want %t until %s", row.now, open, until.Format(time.RFC3339), row.open, row.until)
		}
	}
	if open, until := new(Windows).At(time.Now()); !open || !until.IsZero() {
		t.Errorf("without windows: %t until %v", open, until)
	}
	for _, text := range []string{"", "22-06", "22:00", "25:00-26:00", "10:00-10:00", "22:00-06:00-07:00"} {
		if s, err := ParseSpan(text); err == nil {
			t.Errorf("%q is taken for %v", text, s)
		}
	}
	if s, err := ParseSpan("18:00-24:00"); err != nil || s.has(17*60+59) || !s.has(23*60+59) {
		t.Errorf("up to midnight: %v, %v", s, err)
	}
}

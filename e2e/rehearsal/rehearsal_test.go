package main

import (
	"strings"
	"testing"
	"time"

	"entrepot/promote/config/configtest"
	"entrepot/promote/transfer"
)

func TestSmallReleaseIsRehearsed(t *testing.T) {
	o := options{
		images: 2, versions: 2, destinations: 2, concurrency: 4,
		held: configtest.Shape{Projects: 2, Images: 3, Pairs: 20, Source: "staging.test", Destinations: []string{"a.test/x", "b.test/x"}},
	}
	table := rehearse(t, o)
	var plan, apply, crane int
	for _, r := range table.rows {
		again := strings.HasSuffix(r.title, ", again")
		switch {
		case strings.HasPrefix(r.title, "`promote plan`"):
			plan++
		case strings.HasPrefix(r.title, "`promote apply`"):
			apply++
			if again != (r.writes == 0) || again != (r.transfer.Requests["PUT"] == 0) {
				t.Errorf("%s: %d writes, and %v", r.title, r.writes, r.transfer.Requests)
			}
		default:
			crane++
			if !again && r.writes == 0 {
				t.Errorf("%s: no writes", r.title)
			}
		}
		if r.wall <= 0 || r.cpu <= 0 {
			t.Errorf("%s took %v, and %v of processors", r.title, r.wall, r.cpu)
		}
	}
	if plan != 1 || apply != 4 || crane != 2 {
		t.Errorf("the table has %d plans, %d applies and %d copies with crane:\n%s", plan, apply, crane, table.markdown())
	}
}

func TestAccessLogIsCountedByMethod(t *testing.T) {
	got := requests(`starting
{"time":"2026-11-23T00:00:00Z","level":"INFO","msg":"request","method":"PUT","path":"/v2/a"}
{"time":"2026-11-23T00:00:00Z","level":"INFO","msg":"request","method":"PUT","path":"/v2/b"}
{"time":"2026-11-23T00:00:00Z","level":"INFO","msg":"request","method":"GET","path":"/v2/b"}
{"time":"2026-11-23T00:00:00Z","level":"INFO","msg":"stopping","method":"GET"}
`)
	if len(got) != 2 || got["PUT"] != 2 || got["GET"] != 1 {
		t.Errorf("counted %v", got)
	}
}

func TestRowsTellWhatWasCounted(t *testing.T) {
	table := &table{}
	r := table.add("apply", cost{wall: 1500 * time.Millisecond, cpu: time.Second, peak: 100 << 20})
	r.count(map[string]int{"GET": 1, "HEAD": 2, "POST": 3, "PUT": 4, "PATCH": 5, "DELETE": 6},
		&transfer.Counts{Requests: map[string]int64{"GET": 30, "PUT": 10}, Bytes: 2e6})
	r.most(1.2, 1, "× crane copy")
	table.add("crane", cost{}).most(0, 0, "writes")
	got := table.markdown()
	for _, want := range []string{
		"| apply | 1.50 | 1.00 | 3 | 18 | 40 | 2.0 | 100 | ≤ 1 × crane copy (1.2) | **no** |\n",
		"| crane | 0.00 | 0.00 | – | – | – | – | 0 | ≤ 0 writes (0) | yes |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

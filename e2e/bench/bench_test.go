package main

import (
	"math"
	"strings"
	"testing"
)

func TestWrkOutputIsRead(t *testing.T) {
	const said = `Running 5s test @ http://127.0.0.1:1/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.86ms    1.02ms  23.84ms   91.03%
    Req/Sec    44.86k     4.14k   53.80k    71.00%
  447235 requests in 5.01s, 412.20MB read
%sRequests/sec:  89268.46
Transfer/sec:     82.28MB
`
	got, err := parseWrk([]byte(strings.Replace(said, "%s", "", 1)))
	if want := (wrkOutput{requests: 447235, perSecond: 89268.46}); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, trouble := range []string{
		"  Non-2xx or 3xx responses: 12\n",
		"  Socket errors: connect 0, read 3, write 0, timeout 0\n",
	} {
		if got, err := parseWrk([]byte(strings.Replace(said, "%s", trouble, 1))); err == nil {
			t.Errorf("%q was read as %v", trouble, got)
		}
	}
	if got, err := parseWrk([]byte("unable to connect")); err == nil {
		t.Errorf("no figures were read as %v", got)
	}
}

func TestRatioIsTheMedianOfTheRoundsOwn(t *testing.T) {
	got := results{
		entrepot:   {{"rate": 10}, {"rate": 200}, {"rate": 30}},
		nginxCache: {{"rate": 10}, {"rate": 100}, {"rate": 10}},
	}
	if ratio, ok := got.ratio(nginxCache, "rate"); !ok || ratio != 2 {
		t.Errorf("ratios of 1, 2 and 3 gave %v, %v", ratio, ok)
	}
	if ratio, ok := got.ratio(varnish, "rate"); ok {
		t.Errorf("a peer that was not measured gave %v", ratio)
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		of   []float64
		want float64
	}{{[]float64{5}, 5}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(test.of); got != test.want {
			t.Errorf("median of %v: got %v, want %v", test.of, got, test.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing: got %v", got)
	}
}

func TestTargetsAreJudgedByRatioOrByTheFigureItself(t *testing.T) {
	for _, test := range []struct {
		name    string
		goal    goal
		mine    float64
		theirs  float64
		verdict string
	}{
		{"fast enough", goal{peer: nginxCache, least: 0.9}, 9, 10, "0.90 | ≥ 0.90 × nginx proxy_cache | yes"},
		{"too slow", goal{peer: nginxCache, least: 0.9}, 8, 10, "0.80 | ≥ 0.90 × nginx proxy_cache | **no**"},
		{"cheap enough", goal{peer: nginxCache, most: 1.15}, 11, 10, "1.10 | ≤ 1.15 × nginx proxy_cache | yes"},
		{"too dear", goal{peer: nginxCache, most: 1.15}, 12, 10, "1.20 | ≤ 1.15 × nginx proxy_cache | **no**"},
		{"small enough", goal{most: 120}, 100, 10, " | ≤ 120 MiB | yes"},
		{"too large", goal{most: 120}, 121, 10, " | ≤ 120 MiB | **no**"},
		{"compared only", goal{peer: nginxCache}, 5, 10, "0.50 × nginx proxy_cache |  | "},
		{"peer missing", goal{peer: varnish, least: 1}, 5, 10, " | no varnish to compare with | "},
	} {
		c := &benchmark{name: "case", title: "Case", figures: []figure{{key: "x", unit: mebibytes, goal: test.goal}}}
		var r report
		r.add(c, results{entrepot: {{"x": test.mine}}, nginxCache: {{"x": test.theirs}}})
		if got := strings.Join(r.Rows[0].verdict(), " | "); got != test.verdict {
			t.Errorf("%s: got %q, want %q", test.name, got, test.verdict)
		}
	}
}

func TestTableLeavesOutServersThatWereNotMeasured(t *testing.T) {
	c := &benchmark{name: "case", title: "Case", figures: []figure{{key: "x", unit: seconds}}}
	var r report
	r.add(c, results{entrepot: {{"x": 1}, {"x": 3}, {"x": 2}}, varnish: {{"x": 4}}})
	r.note("nginx: it is not here")
	got := r.markdown()
	for _, want := range []string{
		"| | entrepot | varnish | ratio | target | met |\n",
		"| Case, s | 2.00 | 4.00 |  |  |  |\n",
		"Not measured: nginx: it is not here\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

package choice

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"entrepot/geo/locate"

	"github.com/opencontainers/go-digest"
)

func link(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func country(t testing.TB, s string) locate.Country {
	t.Helper()
	c, err := locate.ParseCountry(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// world is mirrors around it, changed by the test.
func world(t testing.TB, change ...func(map[string]*Mirror)) []Mirror {
	t.Helper()
	byName := map[string]*Mirror{
		"origin":   {Tier: Origin, Lat: 41.3, Lon: -95.9, Country: country(t, "US"), Continent: locate.NA},
		"eu-1":     {Tier: Trusted, Lat: 50.1, Lon: 8.7, Country: country(t, "DE"), Continent: locate.EU, Cloud: "aws", Region: "eu-central-1"},
		"za-1":     {Tier: Trusted, Lat: -26.2, Lon: 28.0, Country: country(t, "ZA"), Continent: locate.AF},
		"br-1":     {Tier: Trusted, Lat: -23.5, Lon: -46.6, Country: country(t, "BR"), Continent: locate.SA},
		"jp-1":     {Tier: Trusted, Lat: 35.7, Lon: 139.7, Country: country(t, "JP"), Continent: locate.AS, Names: true},
		"uni":      {Tier: Community, Lat: 47.4, Lon: 8.5, Country: country(t, "CH"), Continent: locate.EU, ASNs: []uint32{559}, Prefixes: []netip.Prefix{netip.MustParsePrefix("129.132.0.0/16")}},
		"bucket":   {Kind: Bucket, Tier: Trusted, Lat: 39.0, Lon: -77.5, Country: country(t, "US"), Continent: locate.NA, Cloud: "aws", Region: "us-east-1"},
		"registry": {Kind: Registry, Tier: Trusted, Lat: 1.3, Lon: 103.8, Country: country(t, "SG"), Continent: locate.AS},
		"tree":     {Kind: Files, Tier: Community, Lat: 52.5, Lon: 13.4, Country: country(t, "DE"), Continent: locate.EU},
	}
	for name, m := range byName {
		m.Name = name
		m.URLs = []*url.URL{link(t, "https://"+name+".example.org")}
	}
	byName["bucket"].URLs = []*url.URL{link(t, "https://bucket.example.org/containers/images/{digest}")}
	for _, f := range change {
		f(byName)
	}
	var list []Mirror
	for _, name := range []string{"origin", "eu-1", "za-1", "br-1", "jp-1", "uni", "bucket", "registry", "tree"} {
		if byName[name] != nil {
			list = append(list, *byName[name])
		}
	}
	return list
}

func newList(t testing.TB, mirrors []Mirror, c Constants) *List {
	t.Helper()
	l, err := NewList(mirrors, c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// well are states in which every mirror is up.
func (l *List) well() []State {
	states := make([]State, l.Len())
	for i := range states {
		states[i] = State{Up: true, Ramp: 1}
	}
	return states
}

func (l *List) names(choices []Choice) (names []string) {
	for _, c := range choices {
		names = append(names, l.Mirror(c.Index).Name)
	}
	return names
}

// places of clients, where their databases would put them.
func places(t testing.TB) map[string]locate.Place {
	t.Helper()
	at := func(cc string, c locate.Continent, lat, lon float64) locate.Place {
		return locate.Place{Source: locate.CountryDB, Country: country(t, cc), Continent: c, Lat: lat, Lon: lon, Radius: 20, Located: true}
	}
	p := map[string]locate.Place{
		"Cape Town": at("ZA", locate.AF, -33.9, 18.4), "Lagos": at("NG", locate.AF, 6.5, 3.4), "Berlin": at("DE", locate.EU, 52.5, 13.4),
		"Zurich": at("CH", locate.EU, 47.4, 8.5), "Tokyo": at("JP", locate.AS, 35.7, 139.7), "Sydney": at("AU", locate.OC, -33.9, 151.2),
		"Mumbai": at("IN", locate.AS, 19.1, 72.9), "New York": at("US", locate.NA, 40.7, -74.0), "Bogota": at("CO", locate.SA, 4.7, -74.1),
		"Buenos Aires": at("AR", locate.SA, -34.6, -58.4), "Reykjavik": at("IS", locate.EU, 64.1, -21.9), "nowhere": {},
	}
	aws := at("US", locate.NA, 39.0, -77.5)
	aws.Source, aws.Cloud, aws.Region = locate.CloudRange, "aws", "us-east-1"
	p["aws us-east-1"] = aws
	return p
}

func TestEachRequestGoesToTheNearestMirrorThatMayServeIt(t *testing.T) {
	l := newList(t, world(t), Constants{})
	all := places(t)
	blob := Query{What: Blob, Size: 1 << 20}
	small, manifest, names := Query{What: Blob, Size: 1 << 10}, Query{What: Manifest, Size: 1 << 10}, Query{What: Names, Size: -1}
	file, checked := Query{What: File, OfFile: true, Size: 1 << 20}, Query{What: File, OfFile: true, Size: 1 << 20, Verifies: true}
	with := func(q Query, change func(*Query)) Query {
		change(&q)
		return q
	}
	eth := func(q *Query) { q.Client = netip.MustParseAddr("129.132.1.1") }
	for _, row := range []struct {
		place string
		query Query
		want  string
	}{
		// Blobs go to every tier.
		{"Cape Town", blob, "za-1"},
		{"Lagos", blob, "za-1"},
		{"Tokyo", blob, "jp-1"},
		{"Sydney", blob, "registry"},
		{"Mumbai", blob, "registry"},
		{"New York", blob, "bucket"},
		{"Bogota", blob, "br-1"},
		{"Buenos Aires", blob, "br-1"},
		{"Zurich", blob, "uni"},
		{"aws us-east-1", blob, "bucket"},
		{"Reykjavik", with(blob, func(q *Query) { q.Avoid = "uni" }), "eu-1"},
		// Small ones, and those of unknown size, not to community.
		{"Zurich", small, "eu-1"},
		{"Zurich", with(blob, func(q *Query) { q.Size = -1 }), "eu-1"},
		{"Zurich", with(blob, func(q *Query) { q.Private = true }), "eu-1"},
		{"Zurich", with(blob, func(q *Query) { q.Size = 128 << 10 }), "uni"},
		{"Zurich", with(blob, func(q *Query) { q.Size = 128<<10 - 1 }), "eu-1"},
		// Manifests: origin and trusted, and no bucket.
		{"Zurich", manifest, "eu-1"},
		{"Berlin", manifest, "eu-1"},
		{"New York", manifest, "origin"},
		{"aws us-east-1", manifest, "origin"},
		{"Cape Town", manifest, "za-1"},
		{"Tokyo", manifest, "jp-1"},
		{"Sydney", manifest, "registry"},
		{"Buenos Aires", manifest, "br-1"},
		// Names: who is authoritative.
		{"Zurich", names, "origin"},
		{"Berlin", names, "origin"},
		{"Tokyo", names, "jp-1"},
		{"Sydney", names, "jp-1"},
		{"Cape Town", names, "origin"},
		{"Mumbai", names, "jp-1"},
		{"Bogota", names, "origin"},
		{"aws us-east-1", names, "origin"},
		// Files: no registry, no bucket; community only for clients that verify.
		{"Berlin", file, "eu-1"},
		{"Sydney", file, "jp-1"},
		{"New York", file, "origin"},
		{"Tokyo", checked, "jp-1"},
		{"Cape Town", checked, "za-1"},
		{"Berlin", with(checked, func(q *Query) { q.Avoid = "uni" }), "tree"},
		// Where nobody knows where the client is: the authoritative tier.
		{"nowhere", blob, "origin"},
		{"nowhere", manifest, "origin"},
		{"nowhere", names, "origin"},
		{"nowhere", file, "origin"},
		// A declared prefix comes before everything else, for what the tier may have.
		{"nowhere", with(blob, eth), "uni"},
		{"Tokyo", with(blob, eth), "uni"},
		{"Tokyo", with(manifest, eth), "jp-1"},
		{"nowhere", with(names, eth), "origin"},
	} {
		q := row.query
		q.Place = all[row.place]
		q.Key = "library/nginx"
		if got := l.names(l.Choose(&q, l.well(), make([]Choice, 0, 1))); !slices.Equal(got, []string{row.want}) {
			t.Errorf("%+v from %s: %q, want %s", row.query, row.place, got, row.want)
		}
	}
}

func TestWhoIsUnfitSaysWhy(t *testing.T) {
	up := State{Up: true, Ramp: 1}
	q := func(change func(*Query)) Query {
		q := Query{What: Blob, Size: 1 << 20, Namespace: "docker.io"}
		if change != nil {
			change(&q)
		}
		return q
	}
	for name, c := range map[string]struct {
		change func(m *Mirror)
		state  State
		query  Query
		want   string
	}{
		"nothing wrong":   {nil, up, q(nil), ""},
		"down":            {nil, State{Reason: "timed out"}, q(nil), "it is down: timed out"},
		"quarantined":     {nil, State{Up: true, Ramp: 1, Quarantined: true}, q(nil), "quarantined"},
		"frozen":          {func(m *Mirror) { m.Tier, m.Names = Community, false }, State{Up: true, Ramp: 1, Frozen: true}, q(nil), "fell at once"},
		"frozen trusted":  {nil, State{Up: true, Ramp: 1, Frozen: true}, q(nil), ""},
		"draining":        {func(m *Mirror) { m.Draining = true }, up, q(nil), "draining"},
		"avoided":         {nil, up, q(func(q *Query) { q.Avoid = "jp-1" }), "avoid"},
		"namespace":       {func(m *Mirror) { m.Namespaces = []string{"ghcr.io", "*.k8s.io"} }, up, q(nil), "does not have docker.io"},
		"its namespace":   {func(m *Mirror) { m.Namespaces = []string{"*.k8s.io"} }, up, q(func(q *Query) { q.Namespace = "registry.k8s.io" }), ""},
		"family":          {func(m *Mirror) { m.Families = []int{4} }, up, q(func(q *Query) { q.Client = netip.MustParseAddr("2001:db8::1") }), "no IPv6"},
		"other family":    {func(m *Mirror) { m.Families = []int{6} }, up, q(func(q *Query) { q.Client = netip.MustParseAddr("192.0.2.1") }), "no IPv4"},
		"scheme":          {func(m *Mirror) { m.URLs[0].Scheme = "http" }, up, q(func(q *Query) { q.Secure = true }), "no https URL"},
		"plain":           {func(m *Mirror) { m.URLs[0].Scheme = "http" }, up, q(nil), ""},
		"only":            {func(m *Mirror) { m.OnlyCountries = []locate.Country{country(t, "JP")} }, up, q(nil), "some countries only"},
		"never":           {func(m *Mirror) { m.NeverCountries = []locate.Country{country(t, "KP")} }, up, q(func(q *Query) { q.Place.Country = country(t, "KP") }), "does not serve KP"},
		"too large":       {func(m *Mirror) { m.MaxSize = 1 << 19 }, up, q(nil), "larger than it serves"},
		"size unknown":    {func(m *Mirror) { m.MaxSize = 1 << 19 }, up, q(func(q *Query) { q.Size = -1 }), "not known"},
		"names of a tree": {func(m *Mirror) { m.Kind, m.Names = Files, false }, up, q(func(q *Query) { q.What, q.OfFile = Names, true }), "not authoritative"},
		"tree of images":  {func(m *Mirror) { m.Kind, m.Names, m.Tier = Files, false, Origin }, up, q(func(q *Query) { q.What = Names }), "has files only"},
		"moving file":     {func(m *Mirror) { m.Kind, m.Tier = Registry, Origin }, up, q(func(q *Query) { q.What, q.OfFile = Names, true }), "has no files"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newList(t, world(t, func(w map[string]*Mirror) {
				if c.change != nil {
					c.change(w["jp-1"])
				}
			}), Constants{})
			states := l.well()
			at := slices.IndexFunc(l.mirrors, func(m prepared) bool { return m.Name == "jp-1" })
			states[at] = c.state
			c.query.Place.Located = true
			got := l.Explain(&c.query, states)[at]
			if (got.Rank == 0) != (c.want != "") || !strings.Contains(got.Reason, c.want) {
				t.Errorf("rank %d, %q; want %q", got.Rank, got.Reason, c.want)
			}
		})
	}
}

func TestALongerDeclaredPrefixComesFirstAndThenTheRegion(t *testing.T) {
	l := newList(t, world(t, func(w map[string]*Mirror) {
		w["br-1"].Prefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
		w["za-1"].Prefixes = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	}), Constants{})
	q := Query{What: Blob, Size: 1 << 20, Client: netip.MustParseAddr("10.1.2.3"), Place: places(t)["aws us-east-1"]}
	got := l.names(l.Choose(&q, l.well(), make([]Choice, 0, 4)))
	if want := []string{"za-1", "br-1", "bucket", "origin"}; !slices.Equal(got, want) {
		t.Errorf("chose %q, want %q", got, want)
	}
}

func TestAFullMirrorPassesOnAndAReturningClientGetsTheNext(t *testing.T) {
	l := newList(t, world(t), Constants{})
	q := Query{What: Manifest, Place: places(t)["Tokyo"]}
	states := l.well()
	order := l.names(l.Choose(&q, states, make([]Choice, 0, 3)))
	q.Attempt = 1
	if got := l.names(l.Choose(&q, states, make([]Choice, 0, 3))); got[0] != order[1] {
		t.Errorf("the second attempt goes to %s, want %s", got[0], order[1])
	}
	q.Attempt = 0
	at := slices.IndexFunc(l.mirrors, func(m prepared) bool { return m.Name == order[0] })
	states[at].Load = 0.9
	if got := l.names(l.Choose(&q, states, make([]Choice, 0, 3))); got[0] != order[1] {
		t.Errorf("with %s full it goes to %s, want %s", order[0], got[0], order[1])
	}
	for i := range states {
		states[i].Load = 2
	}
	if got := l.names(l.Choose(&q, states, make([]Choice, 0, 3))); got[0] != order[0] {
		t.Errorf("with all full it goes to %s, want %s", got[0], order[0])
	}
}

func TestMeasuredMillisecondsTakeThePlaceOfTheEstimate(t *testing.T) {
	l := newList(t, world(t), Constants{Measured: []Measurement{{country(t, "ZA"), "eu-1", 1}}})
	q := Query{What: Manifest, Place: places(t)["Cape Town"]}
	if got := l.names(l.Choose(&q, l.well(), make([]Choice, 0, 1))); got[0] != "eu-1" {
		t.Errorf("chose %s", got[0])
	}
}

// equals are n mirrors in one place.
func equals(t testing.TB, n int) []Mirror {
	var list []Mirror
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		list = append(list, Mirror{Name: name, URLs: []*url.URL{link(t, "https://"+name+".example.org")}, Lat: 50, Lon: 8, Continent: locate.EU})
	}
	return list
}

// homes are where each of many things is served from.
func homes(l *List, n int) []string {
	homes := make([]string, n)
	states := l.well()
	for i := range homes {
		q := Query{What: Blob, Size: 1 << 20, Key: fmt.Sprintf("repository-%d", i), Client: netip.AddrFrom4([4]byte{192, 0, byte(i % 7), 1})}
		q.Place.Located = true
		homes[i] = l.Mirror(l.Choose(&q, states, make([]Choice, 0, 1))[0].Index).Name
	}
	return homes
}

func TestAMirrorThatComesOrGoesMovesOnlyItsOwnContent(t *testing.T) {
	const n = 4000
	for _, before := range []int{1, 4, 6, 7, 20} { // more than share what one client asks for, too
		few, more := homes(newList(t, equals(t, before), Constants{}), n), homes(newList(t, equals(t, before+1), Constants{}), n)
		comes := fmt.Sprintf("m%d", before)
		moved := 0
		for i := range few {
			if few[i] == more[i] {
				continue
			}
			moved++
			if more[i] != comes {
				t.Fatalf("repository %d moved from %s to %s, and %s came", i, few[i], more[i], comes)
			}
		}
		if share := n / (before + 1); moved < share*3/4 || moved > share*5/4 {
			t.Errorf("%d of %d moved to the new of %d mirrors", moved, n, before+1)
		}
	}
}

func TestTheFirstOfManyAreTheSameHoweverManyAreAskedFor(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	all := places(t)
	names := slices.Sorted(maps.Keys(all))
	for range 300 {
		mirrors := equals(t, 40)
		spots := 1 + random.IntN(8) // in some of which there are many
		for i := range mirrors {
			m := &mirrors[i]
			spot := rand.New(rand.NewPCG(7, uint64(random.IntN(spots))))
			m.Lat, m.Lon, m.Continent = 40+spot.Float64()*20, spot.Float64()*30, locate.Continent(1+spot.IntN(7))
			m.Lat += random.Float64() * float64(random.IntN(3))
			m.Capacity, m.CostPerGiB = int64(1+random.IntN(3)), float64(random.IntN(2))
			if random.IntN(8) == 0 {
				m.Cloud, m.Region = "aws", "us-east-1"
			}
		}
		l := newList(t, mirrors, Constants{})
		states := l.well()
		for i := range states {
			states[i].Ramp, states[i].Load = 1-random.Float64()/2, random.Float64()
		}
		q := Query{What: Blob, Size: 1 << 20, Key: "a", Place: all[names[random.IntN(len(names))]]}
		few, many := l.names(l.Choose(&q, states, make([]Choice, 0, 6))), l.names(l.Choose(&q, states, make([]Choice, 0, 40)))
		if !slices.Equal(few, many[:6]) || len(many) != 40 {
			t.Fatalf("from %+v: %q of %q", q.Place, few, many)
		}
	}
}

func TestShareFollowsCapacityAndCostComesFirst(t *testing.T) {
	mirrors := equals(t, 2)
	mirrors[0].Capacity, mirrors[1].Capacity = 3_000_000_000, 1_000_000_000
	counts := map[string]int{}
	for _, home := range homes(newList(t, mirrors, Constants{}), 8000) {
		counts[home]++
	}
	if counts["m0"] < 5600 || counts["m0"] > 6400 {
		t.Errorf("the mirror with three quarters of the capacity has %d of 8000", counts["m0"])
	}
	mirrors[0].CostPerGiB = 0.01
	if got := homes(newList(t, mirrors, Constants{}), 100); slices.Contains(got, "m0") {
		t.Error("the dearer of two equals is chosen")
	}
}

func TestOneClientsNetworkStaysWithOneMirrorForOneRepository(t *testing.T) {
	l := newList(t, equals(t, 6), Constants{})
	first := func(client string) int {
		q := Query{What: Blob, Size: 1 << 20, Key: "library/nginx", Client: netip.MustParseAddr(client)}
		q.Place.Located = true
		return l.Choose(&q, l.well(), make([]Choice, 0, 1))[0].Index
	}
	if first("192.0.2.1") != first("192.0.2.254") || first("2001:db8:1::1") != first("2001:db8:1:ffff::2") {
		t.Error("two clients of one network are sent to two mirrors")
	}
}

// allowed is what the tiers promise, said again in other words: whom a request may be
// sent to at all.
func allowed(m *Mirror, s State, q *Query) bool {
	has := func(kinds ...Kind) bool { return slices.Contains(kinds, m.Kind) }
	in := func(countries []locate.Country) bool { return slices.Contains(countries, q.Place.Country) }
	speaks := map[bool][]Kind{false: {Node, Registry}, true: {Node, Files}}[q.OfFile]
	if q.What == Blob {
		speaks = append(speaks, Bucket)
	}
	trusted := m.Tier != Community
	large := q.Size >= 131072
	tier := map[What]bool{
		Names: m.Tier == Origin || m.Names, Manifest: trusted,
		Blob: trusted || large && !q.Private, File: trusted || q.Verifies && !q.Private,
	}[q.What]
	wellKnown := m.MaxSize == 0 || q.Size >= 0 && q.Size <= m.MaxSize
	family := 6
	if q.Client.Is4() {
		family = 4
	}
	reached := len(m.Families) == 0 || slices.Contains(m.Families, family)
	secure := !q.Secure || slices.ContainsFunc(m.URLs, func(u *url.URL) bool { return u.Scheme == "https" })
	well := s.Up && s.Ramp > 0 && !s.Quarantined && !m.Draining && (trusted || !s.Frozen)
	namespace := len(m.Namespaces) == 0 || slices.Contains(m.Namespaces, q.Namespace)
	return well && tier && has(speaks...) && wellKnown && reached && secure && namespace && m.Name != q.Avoid &&
		(len(m.OnlyCountries) == 0 || in(m.OnlyCountries)) && !in(m.NeverCountries)
}

// aMirror changes one at random.
func aMirror(t *testing.T, random *rand.Rand, m Mirror) Mirror {
	t.Helper()
	some := func(n int) bool { return random.IntN(n) == 0 }
	if some(4) {
		m.Families = []int{4 + 2*random.IntN(2)}
	}
	if some(4) {
		m.MaxSize = int64(random.IntN(1 << 20))
	}
	if some(4) {
		m.URLs = []*url.URL{link(t, "http"+strings.TrimPrefix(m.URLs[0].String(), "https"))}
	}
	if some(5) {
		m.Namespaces = []string{"docker.io"}
	}
	if some(6) {
		m.OnlyCountries = []locate.Country{country(t, "DE"), country(t, "US")}
	}
	if some(6) {
		m.NeverCountries = []locate.Country{country(t, "ZA"), country(t, "US")}
	}
	m.Draining = some(10)
	return m
}

func TestNoUnfitMirrorIsEverChosenAndTheOrderOfTheListIsNone(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	all := places(t)
	names := slices.Sorted(maps.Keys(all))
	chosen := 0
	for range 800 {
		mirrors := world(t)
		for i := range mirrors {
			mirrors[i] = aMirror(t, random, mirrors[i])
		}
		shuffled := slices.Clone(mirrors)
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		a, b := newList(t, mirrors, Constants{}), newList(t, shuffled, Constants{})
		byName := map[string]State{}
		for _, m := range mirrors {
			byName[m.Name] = State{
				Up: random.IntN(4) > 0, Ramp: random.Float64(), Load: random.Float64() * 1.2,
				Quarantined: random.IntN(8) == 0, Frozen: random.IntN(8) == 0,
			}
		}
		of := func(l *List) []State {
			var states []State
			for i := range l.Len() {
				states = append(states, byName[l.Mirror(i).Name])
			}
			return states
		}
		q := Query{
			What: What(random.IntN(4)), Size: int64(random.IntN(1<<20)) - 1, Private: random.IntN(4) == 0, Secure: random.IntN(2) == 0,
			Verifies: random.IntN(2) == 0, Key: fmt.Sprint(random.IntN(100)), Place: all[names[random.IntN(len(names))]], Attempt: random.IntN(3),
			Namespace: []string{"docker.io", "ghcr.io"}[random.IntN(2)], Client: netip.AddrFrom4([4]byte{129, byte(random.IntN(256)), 0, 1}),
			Avoid: []string{"", "eu-1"}[random.IntN(2)],
		}
		q.OfFile = q.What == File || q.What == Names && random.IntN(2) == 0
		if random.IntN(3) == 0 {
			q.Client = netip.MustParseAddr("2001:db8::1")
		}
		first, second := a.Choose(&q, of(a), make([]Choice, 0, 9)), b.Choose(&q, of(b), make([]Choice, 0, 9))
		if !slices.Equal(a.names(first), b.names(second)) {
			t.Fatalf("%+v: %q, and in another order of the list %q", q, a.names(first), b.names(second))
		}
		got := a.names(first)
		for i := range mirrors {
			m := a.Mirror(i)
			is, may := slices.Contains(got, m.Name), allowed(m, byName[m.Name], &q)
			// Where the client is nowhere, not all who may count.
			if is && !may || may && !is && q.Place.Located {
				t.Fatalf("%+v\nsent to %s: %v; it may be: %v (%+v, %+v)", q, m.Name, is, may, m, byName[m.Name])
			}
		}
		chosen += min(1, len(got))
	}
	if chosen < 400 {
		t.Errorf("only %d of 800 requests were sent anywhere", chosen)
	}
}

func TestLocationsAreMadeOfTheConfiguredURL(t *testing.T) {
	d := digest.FromString("x")
	image := Target{Namespace: "docker.io", Repository: "library/nginx", Route: "blobs/" + string(d), Digest: d}
	file := Target{Namespace: "dl.k8s.io", File: "release/v1%2F2/kubectl", Query: ""}
	for _, c := range []struct {
		kind   Kind
		base   string
		target Target
		want   string
	}{
		{Node, "https://eu.example.org", image, "https://eu.example.org/v2/docker.io/library/nginx/blobs/" + string(d)},
		{Node, "https://eu.example.org/", file, "https://eu.example.org/dl.k8s.io/release/v1%2F2/kubectl"},
		{Registry, "https://r.example.org/team/", image, "https://r.example.org/v2/team/library/nginx/blobs/" + string(d)},
		{Bucket, "https://b.example.org/containers/images/{digest}", image, "https://b.example.org/containers/images/" + string(d)},
		{Bucket, "https://b.example.org/{algorithm}/{hex2}/{hex}/data", image, "https://b.example.org/sha256/" + d.Encoded()[:2] + "/" + d.Encoded() + "/data"},
		{Files, "https://f.example.org/pub", file, "https://f.example.org/pub/release/v1%2F2/kubectl"},
		{Registry, "https://r.example.org", Target{Repository: "a", Route: "tags/list", Query: "n=5"}, "https://r.example.org/v2/a/tags/list?n=5"},
		{Bucket, "https://b.example.org/{digest}", file, ""},
		{Files, "https://f.example.org", image, ""},
		{Registry, "https://r.example.org", file, ""},
	} {
		m := Mirror{Kind: c.kind, URLs: []*url.URL{link(t, c.base)}}
		if got := m.Location(true, &c.target); got != c.want {
			t.Errorf("%s at %s: %s, want %s", c.kind, c.base, got, c.want)
		}
	}
	both := Mirror{URLs: []*url.URL{link(t, "http://a.example.org"), link(t, "https://b.example.org")}}
	if got := both.Location(true, &image); !strings.HasPrefix(got, "https://b.example.org/") {
		t.Errorf("a client that came by https is sent to %s", got)
	}
}

func TestEveryProblemOfAListIsNamedWithItsMirror(t *testing.T) {
	_, err := NewList([]Mirror{
		{Name: "Bad Name", Tier: Trusted, URLs: []*url.URL{link(t, "https://user:secret@a.example.org")}},
		{Name: "b", Tier: Trusted, URLs: []*url.URL{link(t, "ftp://b.example.org"), link(t, "https://b.example.org/?x=1")}, Lat: 91, Lon: -181},
		{Name: "b", Tier: Community, Names: true, Families: []int{5}, Cloud: "aws", MaxSize: -1, ASNs: []uint32{0}},
		{Name: "tree", Tier: Trusted, Kind: Files, Names: true, URLs: []*url.URL{link(t, "https://tree.example.org")}},
		{Name: "c", Tier: Trusted, Kind: Bucket, URLs: []*url.URL{link(t, "https://c.example.org/images")}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.2.3/8")}},
	}, Constants{Measured: []Measurement{{country(t, "DE"), "nobody", 5}}})
	if !errors.Is(err, ErrList) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		`mirror "Bad Name": its name is no label`, `mirror "Bad Name": "https://user:xxxxx@a.example.org" has credentials`,
		`mirror "b": "ftp://b.example.org" is no URL of a mirror`, `"https://b.example.org/?x=1" has a query`, `lat 91 is none`, `lon -181 is none`,
		`mirror "b": there are two of this name`, `tier community and cannot be relied on for names`, `family 5 is none`, `write both, as in aws:eu-central-1`,
		`max_size -1 is negative`, `ASN 0`, `it has no URL`, `no template of a bucket`, `prefix 10.1.2.3/8 is none`,
		`mirror "tree": a tree of files does not follow a ledger`, `to "nobody": want a mirror of the list`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("a password is shown")
	}
}

func TestPatternsOfNamespaces(t *testing.T) {
	for _, c := range []struct {
		pattern, s string
		want       bool
	}{
		{"docker.io", "docker.io", true},
		{"docker.io", "docker.io2", false},
		{"*", "x", true},
		{"*.k8s.io", "registry.k8s.io", true},
		{"*.k8s.io", "k8s.io", false},
		{"a*b*c", "abc", true},
		{"a*b*c", "axxbyyc", true},
		{"a*b*c", "acb", false},
		{"a*", "a", true},
		{"ab*ba", "aba", false},
	} {
		if got := matches(c.pattern, c.s); got != c.want {
			t.Errorf("%s matches %s: %t", c.pattern, c.s, got)
		}
	}
}

func BenchmarkChooseAmong100(b *testing.B) {
	random := rand.New(rand.NewPCG(3, 4))
	around := equals(b, 100)
	for i := range around {
		around[i].Lat, around[i].Lon = random.Float64()*140-70, random.Float64()*360-180
		around[i].Tier = Tier(i % 3)
		around[i].Continent = locate.Continent(1 + i%7)
	}
	for name, mirrors := range map[string][]Mirror{"around the world": around, "all near": equals(b, 100)} {
		l := newList(b, mirrors, Constants{})
		states := l.well()
		q := Query{What: Blob, Size: 1 << 20, Namespace: "docker.io", Key: "library/nginx", Secure: true, Client: netip.MustParseAddr("192.0.2.1"), Place: places(b)["Berlin"]}
		into := make([]Choice, 0, 4)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(l.Choose(&q, states, into)) == 0 {
					b.Fatal("nothing was chosen")
				}
			}
		})
	}
}

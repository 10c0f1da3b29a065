package locate

import (
	"cmp"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"entrepot/geo/locate/locatetest"

	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// The ranges are as the clouds publish them, cut to a few: a block of one region
// with a smaller one of another within it, and entries without a region.
const (
	awsRanges = `{"prefixes": [
		{"ip_prefix": "52.93.0.0/16", "region": "us-east-1", "service": "AMAZON", "network_border_group": "us-east-1"},
		{"ip_prefix": "52.93.153.0/24", "region": "eu-west-2", "service": "AMAZON", "network_border_group": "eu-west-2"},
		{"ip_prefix": "52.93.153.0/24", "region": "GLOBAL", "service": "CLOUDFRONT", "network_border_group": "GLOBAL"},
		{"ip_prefix": "13.32.0.0/15", "region": "GLOBAL", "service": "AMAZON", "network_border_group": "GLOBAL"},
		{"ip_prefix": "13.32.1.0/24", "region": "eu-central-1", "service": "EC2", "network_border_group": "eu-central-1"},
		{"ip_prefix": "15.0.0.0/24", "region": "mars-north-1", "service": "EC2", "network_border_group": "mars-north-1"}],
		"ipv6_prefixes": [{"ipv6_prefix": "2600:1f14::/35", "region": "us-west-2", "service": "AMAZON", "network_border_group": "us-west-2"}]}`
	gcpRanges    = `{"prefixes": [{"ipv4Prefix": "34.35.0.0/16", "service": "Google Cloud", "scope": "africa-south1"}, {"ipv6Prefix": "2600:1900::/35", "scope": "us-central1"}]}`
	azureRanges  = `{"values": [{"name": "AzureCloud.westeurope", "properties": {"region": "westeurope", "addressPrefixes": ["13.69.0.0/17"]}}, {"name": "Storage", "properties": {"region": "", "addressPrefixes": ["13.69.0.0/17", "13.69.9.0/30", "20.1.0.0/24"]}}]}`
	oracleRanges = `{"regions": [{"region": "sa-saopaulo-1", "cidrs": [{"cidr": "129.148.0.0/18", "tags": ["OCI"]}]}]}`
)

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// folder has files of every kind.
func dataFolder(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"aws": awsRanges, "gcp": gcpRanges, "azure": azureRanges, "oracle": oracleRanges} {
		write(t, filepath.Join(dir, name+".json"), []byte(text))
	}
	write(t, filepath.Join(dir, "country.mmdb"), locatetest.MMDB(t, map[string]mmdbtype.Map{
		"193.0.6.0/24": locatetest.Country("NL"), "2001:db8::/32": locatetest.Country("JP"), "52.93.0.0/16": locatetest.Country("US"),
		"13.32.0.0/15": locatetest.Country("FR"), "129.132.0.0/16": {"country_code": mmdbtype.String("CH")},
	}))
	write(t, filepath.Join(dir, "city.mmdb"), locatetest.MMDB(t, map[string]mmdbtype.Map{
		"193.0.6.128/25": {
			"country":  mmdbtype.Map{"iso_code": mmdbtype.String("NL")},
			"location": mmdbtype.Map{"latitude": mmdbtype.Float64(52.37), "longitude": mmdbtype.Float64(4.89), "accuracy_radius": mmdbtype.Uint16(20)},
		},
	}))
	write(t, filepath.Join(dir, "asn.mmdb"), locatetest.MMDB(t, map[string]mmdbtype.Map{
		"129.132.0.0/16": {"autonomous_system_number": mmdbtype.Uint32(559)}, "52.93.0.0/16": {"autonomous_system_number": mmdbtype.Uint32(16509)},
	}))
	return dir
}

func open(t testing.TB, cfg Config) *Locator {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAnAddressIsWhereTheMostTellingSourceSays(t *testing.T) {
	l := open(t, Config{Dir: dataFolder(t), Prefixes: []Prefix{
		{netip.MustParsePrefix("10.0.0.0/8"), Place{Country: Country{'D', 'E'}, Continent: EU, Lat: 50, Lon: 9, Located: true}},
		{netip.MustParsePrefix("52.93.9.0/24"), Place{Country: Country{'B', 'R'}, Continent: SA, Lat: -20, Lon: -50, Located: true}},
	}})
	for _, row := range []struct {
		addr, country, region string
		source                Source
		located               bool
		asn                   uint32
	}{
		{"10.1.2.3", "DE", "", Operator, true, 0},
		{"52.93.9.9", "BR", "", Operator, true, 16509},
		{"52.93.1.1", "US", "us-east-1", CloudRange, true, 16509},
		{"52.93.153.7", "GB", "eu-west-2", CloudRange, true, 16509}, // within the block of us-east-1
		{"::ffff:52.93.153.7", "GB", "eu-west-2", CloudRange, true, 16509},
		{"13.32.1.1", "DE", "eu-central-1", CloudRange, true, 0}, // within a block that is everywhere
		{"13.32.2.1", "FR", "", CountryDB, true, 0},              // in the cloud, but anywhere
		{"15.0.0.1", "", "mars-north-1", CloudRange, false, 0},   // a region that is not known yet
		{"2600:1f14::1", "US", "us-west-2", CloudRange, true, 0},
		{"34.35.1.1", "ZA", "africa-south1", CloudRange, true, 0},
		{"2600:1900::5", "US", "us-central1", CloudRange, true, 0},
		{"13.69.1.1", "NL", "westeurope", CloudRange, true, 0},
		{"13.69.9.1", "NL", "westeurope", CloudRange, true, 0}, // which a service lists without a region
		{"20.1.0.1", "", "", CloudRange, false, 0},
		{"129.148.1.1", "BR", "sa-saopaulo-1", CloudRange, true, 0},
		{"193.0.6.200", "NL", "", CityDB, true, 0},
		{"193.0.6.1", "NL", "", CountryDB, true, 0},
		{"2001:db8::9", "JP", "", CountryDB, true, 0},
		{"129.132.1.1", "CH", "", CountryDB, true, 559},
		{"198.51.100.1", "", "", Unknown, false, 0},
	} {
		p := l.Locate(netip.MustParseAddr(row.addr))
		if p.Country.String() != row.country || p.Region != row.region || p.Source != row.source || p.Located != row.located || p.ASN != row.asn {
			t.Errorf("%s: %+v (country %s, source %s), want %+v", row.addr, p, p.Country, p.Source, row)
		}
	}
	if p := l.Locate(netip.MustParseAddr("193.0.6.200")); p.Lat != 52.37 || p.Radius != 20 || p.Continent != EU {
		t.Errorf("the city's point: %+v", p)
	}
	if p := l.Locate(netip.Addr{}); p != (Place{}) {
		t.Errorf("no address: %+v", p)
	}
}

// TestEveryPrefixThatTheCloudsPublishIsInItsRegion uses the real files of
// ENTREPOT_GEO_DIR, if it is set. Of AWS's prefixes 247 lie within a block that is
// everywhere (July 2026).
func TestEveryPrefixThatTheCloudsPublishIsInItsRegion(t *testing.T) {
	dir := os.Getenv("ENTREPOT_GEO_DIR")
	if dir == "" {
		dir = dataFolder(t)
	}
	l := open(t, Config{Dir: dir})
	nested := 0
	for _, cloud := range []string{"aws", "gcp"} {
		data, err := os.ReadFile(filepath.Join(dir, cloud+".json"))
		if err != nil {
			t.Fatal(err)
		}
		ranges, err := parseRanges(cloud, data)
		if err != nil {
			t.Fatal(err)
		}
		regions := map[netip.Prefix]string{}
		for _, r := range ranges {
			regions[r.prefix] = cmp.Or(regions[r.prefix], r.region)
		}
		// of is the region of the longest prefix that has an address, of so many bits
		// at most.
		of := func(addr netip.Addr, most int) (string, bool) {
			for bits := most; bits > 0; bits-- {
				if region, ok := regions[netip.PrefixFrom(addr, bits).Masked()]; ok {
					return region, true
				}
			}
			return "", false
		}
		for prefix, region := range regions {
			if around, ok := of(prefix.Addr(), prefix.Bits()-1); ok && around != region {
				nested++
			}
			last := lastOf(prefix)
			want, _ := of(last, last.BitLen())
			if got := l.Locate(last).Region; got != want {
				t.Errorf("%s of %s: %q, want %q", last, prefix, got, want)
			}
		}
	}
	if t.Logf("%d prefixes lie within one of another region", nested); nested == 0 {
		t.Error("no prefix lies within one of another region")
	}
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

func TestWithoutAnyDataNothingIsKnown(t *testing.T) {
	if p := open(t, Config{}).Locate(netip.MustParseAddr("8.8.8.8")); p != (Place{}) {
		t.Errorf("%+v", p)
	}
	if p := open(t, Config{Dir: t.TempDir()}).Locate(netip.MustParseAddr("8.8.8.8")); p != (Place{}) {
		t.Errorf("of an empty folder: %+v", p)
	}
}

func TestAFileThatCannotBeUsedIsNamedAndTheOldDataStay(t *testing.T) {
	dir := dataFolder(t)
	l := open(t, Config{Dir: dir})
	for name, bad := range map[string]string{
		"aws.json": `{"prefixes": [{"ip_prefix": "52.93.0.1/16", "region": "us-east-1"}]}`, "gcp.json": `{}`, "azure.json": `[1]`,
		"oracle.json": `{"regions": [{"region": "x", "cidrs": [{"cidr": "1.2.3.4"`, "country.mmdb": "no database", "city.mmdb": "",
	} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, []byte(bad))
		err = l.Reload()
		if err == nil || !strings.Contains(err.Error(), path) || !errors.Is(err, ErrRanges) && !errors.Is(err, ErrDatabase) {
			t.Errorf("%s: %v", name, err)
		}
		write(t, path, good)
	}
	if p := l.Locate(netip.MustParseAddr("52.93.153.7")); p.Region != "eu-west-2" {
		t.Errorf("after the refused files: %+v", p)
	}
	if _, err := Open(Config{Country: filepath.Join(dir, "missing.mmdb")}); err == nil || !strings.Contains(err.Error(), "missing.mmdb") {
		t.Errorf("a database that is named and missing: %v", err)
	}
	useless := filepath.Join(dir, "useless.mmdb")
	write(t, useless, locatetest.MMDB(t, map[string]mmdbtype.Map{"1.0.0.0/8": {"weather": mmdbtype.String("rain")}}))
	if _, err := Open(Config{City: useless}); !errors.Is(err, ErrDatabase) {
		t.Errorf("a database of something else: %v", err)
	}
}

func TestChangedFilesAreTakenIntoUseWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	l := open(t, Config{Dir: dir})
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Watch(t.Context(), time.Millisecond)
	}()
	write(t, filepath.Join(dir, "aws.json.new"), []byte(awsRanges))
	if err := os.Rename(filepath.Join(dir, "aws.json.new"), filepath.Join(dir, "aws.json")); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(10 * time.Second)
	for l.Locate(netip.MustParseAddr("52.93.153.7")).Region != "eu-west-2" {
		select {
		case <-deadline:
			t.Fatal("the new file was not taken into use")
		case <-time.After(time.Millisecond):
		}
	}
	t.Cleanup(func() { <-done })
}

func TestLocatingAllocatesNothing(t *testing.T) {
	l := open(t, Config{Dir: dataFolder(t)})
	for _, text := range []string{"52.93.153.7", "193.0.6.200", "129.132.1.1", "198.51.100.1", "::ffff:193.0.6.1"} {
		addr := netip.MustParseAddr(text)
		if n := testing.AllocsPerRun(100, func() { l.Locate(addr) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func TestEveryCountryAndRegionOfTheTablesIsSomewhere(t *testing.T) {
	a, err := NewAtlas()
	if err != nil {
		t.Fatal(err)
	}
	if len(a.countries) < 240 || len(a.regions) < 140 {
		t.Errorf("%d countries, %d regions", len(a.countries), len(a.regions))
	}
	for _, places := range []map[Country]Place{a.countries} {
		for c, p := range places {
			if p.Lat < -90 || p.Lat > 90 || p.Lon < -180 || p.Lon > 180 || p.Radius <= 0 || p.Continent == 0 {
				t.Errorf("%s: %+v", c, p)
			}
		}
	}
	if p, ok := a.Region("aws", "eu-central-1"); !ok || p.Country.String() != "DE" || p.Continent != EU {
		t.Errorf("aws eu-central-1: %+v", p)
	}
}

// BenchmarkLocate uses the databases of ENTREPOT_GEO_DIR, if it is set.
func BenchmarkLocate(b *testing.B) {
	dir := os.Getenv("ENTREPOT_GEO_DIR")
	if dir == "" {
		dir = dataFolder(b)
	}
	l := open(b, Config{Dir: dir})
	addrs := []netip.Addr{
		netip.MustParseAddr("52.93.153.7"), netip.MustParseAddr("193.0.6.200"), netip.MustParseAddr("129.132.1.1"),
		netip.MustParseAddr("2001:67c:2e8::1"), netip.MustParseAddr("34.35.1.1"), netip.MustParseAddr("8.8.8.8"),
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Locate(addrs[i%len(addrs)])
	}
}

func FuzzRanges(f *testing.F) {
	for cloud, text := range map[string]string{"aws": awsRanges, "gcp": gcpRanges, "azure": azureRanges, "oracle": oracleRanges} {
		f.Add(cloud, []byte(text))
	}
	f.Fuzz(func(t *testing.T, cloud string, data []byte) {
		ranges, err := parseRanges(cloud, data)
		if err != nil && !errors.Is(err, ErrRanges) || err == nil && len(ranges) == 0 {
			t.Errorf("%d ranges, %v", len(ranges), err)
		}
		for _, r := range ranges {
			if !r.prefix.IsValid() || r.prefix != r.prefix.Masked() {
				t.Errorf("prefix %v", r.prefix)
			}
		}
	})
}

package geo

import (
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"entrepot/geo/choice"
	"entrepot/geo/locate"
	"entrepot/geo/locate/locatetest"
	"entrepot/registry/access"

	"github.com/maxmind/mmdbwriter/mmdbtype"
)

// addressData is a folder with a few of the networks that clouds publish, and a
// database of countries with networks that are well known to be there. Of some
// addresses of clouds the database has another country, as real ones do.
func addressData(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"aws.json": `{"prefixes": [
			{"ip_prefix": "3.64.0.0/12", "region": "eu-central-1", "service": "AMAZON"}, {"ip_prefix": "3.208.0.0/12", "region": "us-east-1", "service": "AMAZON"},
			{"ip_prefix": "13.112.0.0/14", "region": "ap-northeast-1", "service": "AMAZON"}, {"ip_prefix": "13.244.0.0/15", "region": "af-south-1", "service": "AMAZON"},
			{"ip_prefix": "18.228.0.0/16", "region": "sa-east-1", "service": "AMAZON"}, {"ip_prefix": "13.236.0.0/14", "region": "ap-southeast-2", "service": "AMAZON"},
			{"ip_prefix": "52.93.0.0/16", "region": "us-east-1", "service": "AMAZON"}, {"ip_prefix": "52.93.153.0/24", "region": "eu-west-2", "service": "AMAZON"},
			{"ip_prefix": "99.83.128.0/17", "region": "GLOBAL", "service": "GLOBALACCELERATOR"}],
			"ipv6_prefixes": [{"ipv6_prefix": "2a05:d014::/35", "region": "eu-central-1", "service": "AMAZON"}, {"ipv6_prefix": "2600:1f18::/33", "region": "us-east-1", "service": "AMAZON"}]}`,
		"gcp.json": `{"prefixes": [{"ipv4Prefix": "34.35.0.0/16", "scope": "africa-south1"}, {"ipv4Prefix": "34.84.0.0/16", "scope": "asia-northeast1"},
			{"ipv4Prefix": "35.246.128.0/17", "scope": "europe-west3"}, {"ipv4Prefix": "35.198.0.0/18", "scope": "southamerica-east1"},
			{"ipv6Prefix": "2600:1900:4000::/44", "scope": "us-central1"}, {"ipv6Prefix": "2600:1900:40a0::/44", "scope": "europe-west3"}]}`,
		"azure.json":  `{"values": [{"name": "AzureCloud.westeurope", "properties": {"region": "westeurope", "addressPrefixes": ["13.69.0.0/17", "2603:1020:200::/46"]}}]}`,
		"oracle.json": `{"regions": [{"region": "sa-saopaulo-1", "cidrs": [{"cidr": "129.148.0.0/18"}]}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	records := map[string]mmdbtype.Map{}
	for network, code := range map[string]string{
		"129.132.0.0/16": "CH", "193.0.0.0/21": "NL", "141.20.0.0/16": "DE", "133.0.0.0/8": "JP", "196.21.0.0/16": "ZA", "200.160.0.0/20": "BR",
		"202.12.29.0/24": "AU", "105.112.0.0/12": "NG", "14.139.0.0/16": "IN", "181.30.0.0/16": "AR", "190.26.0.0/16": "CO", "18.0.0.0/11": "US",
		"130.88.0.0/16": "GB", "202.118.0.0/16": "CN", "197.248.0.0/16": "KE", "192.206.0.0/16": "CA",
		"2001:67c:2e8::/48": "NL", "2001:638::/32": "DE", "2001:200::/32": "JP", "2001:12ff::/32": "BR", "2001:43f8::/32": "ZA", "2001:470::/32": "US",
		// What is wrong of clouds, or has no place.
		"34.35.0.0/16": "US", "13.244.0.0/15": "US", "99.83.128.0/17": "US", "52.93.153.0/24": "US",
	} {
		records[network] = locatetest.Country(code)
	}
	if err := os.WriteFile(filepath.Join(dir, "country.mmdb"), locatetest.MMDB(t, records), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// addressMirrors are a mirror of each kind and tier, around the world.
func addressMirrors(t *testing.T) []choice.Mirror {
	t.Helper()
	atlas, err := locate.NewAtlas()
	if err != nil {
		t.Fatal(err)
	}
	mirrors := []choice.Mirror{
		mirror(t, "origin", choice.Origin, "US", 41.3, -95.9),
		mirror(t, "eu-1", choice.Trusted, "DE", 50.1, 8.7),
		mirror(t, "jp-1", choice.Trusted, "JP", 35.7, 139.7),
		mirror(t, "za-1", choice.Trusted, "ZA", -26.2, 28.0),
		mirror(t, "br-1", choice.Trusted, "BR", -23.5, -46.6),
		mirror(t, "uni", choice.Community, "CH", 47.4, 8.5),
		mirror(t, "bucket", choice.Trusted, "US", 39.0, -77.5),
	}
	for i := range mirrors {
		m := &mirrors[i]
		m.Continent = atlas.Continent(m.Country)
		switch m.Name {
		case "eu-1":
			m.Cloud, m.Region, m.Names = "aws", "eu-central-1", true
		case "jp-1":
			m.Names, m.Families = true, []int{4}
		case "uni":
			m.Prefixes, m.ASNs = []netip.Prefix{netip.MustParsePrefix("129.132.0.0/16")}, []uint32{559}
		case "bucket":
			m.Kind, m.Cloud, m.Region = choice.Bucket, "aws", "us-east-1"
			m.URLs = []*url.URL{{Scheme: "https", Host: "bucket.example.org", Path: "/images/{digest}"}}
		}
	}
	return mirrors
}

func TestAddressesAreSentToTheMirrorThatIsRightForThem(t *testing.T) {
	locator, err := locate.Open(locate.Config{Dir: addressData(t), Prefixes: []locate.Prefix{{
		Prefix: netip.MustParsePrefix("10.7.0.0/16"), Place: locate.Place{Country: locate.Country{'J', 'P'}, Continent: locate.AS, Lat: 34.7, Lon: 135.5, Located: true},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	const blob, manifest, tag, file, moving = "/v2/a/blobs/" + aDigest, "/v2/a/manifests/" + aDigest, "/v2/a/manifests/v1", "/release/v1/bin/x", "/release/stable.txt"
	down := func(names ...string) map[string]choice.State {
		states := map[string]choice.State{}
		for _, name := range names {
			states[name] = choice.State{Reason: "connection refused"}
		}
		return states
	}
	for _, row := range []struct {
		client, request string
		states          map[string]choice.State
		mirror, why     string // the first, and the class or the source of the place that led there
	}{
		// Ranges of clouds, and the same region.
		{"3.64.1.1", blob, nil, "eu-1", "same cloud and region"},
		{"3.64.1.1", tag, nil, "eu-1", "same cloud and region"},
		{"2a05:d014::1", manifest, nil, "eu-1", "same cloud and region"},
		{"3.208.1.1", blob, nil, "bucket", "same cloud and region"},
		{"2600:1f18::1", blob, nil, "bucket", "same cloud and region"},
		{"3.208.1.1", manifest, nil, "origin", "cloud"}, // a bucket has no manifests
		{"13.112.0.1", blob, nil, "jp-1", "cloud"},
		{"13.112.0.1", tag, nil, "jp-1", "cloud"},
		{"13.244.0.1", blob, nil, "za-1", "cloud"}, // the database says US
		{"34.35.9.9", blob, nil, "za-1", "cloud"},  // so too
		{"34.35.9.9", tag, nil, "eu-1", "cloud"},   // za-1 is no authority
		{"34.84.3.1", file, nil, "jp-1", "cloud"},
		{"35.246.200.1", blob, nil, "eu-1", "cloud"},
		{"2600:1900:40a0::1", blob, nil, "eu-1", "cloud"},
		{"2600:1900:4000::1", blob, nil, "origin", "cloud"}, // Iowa, both of them
		{"2600:1900:4000::1", manifest, nil, "origin", "cloud"},
		{"35.198.1.1", blob, nil, "br-1", "cloud"},
		{"18.228.1.1", file, nil, "br-1", "cloud"},
		{"129.148.1.1", blob, nil, "br-1", "cloud"},
		{"13.69.1.1", manifest, nil, "eu-1", "cloud"},
		{"2603:1020:200::5", file, nil, "eu-1", "cloud"},
		{"52.93.1.1", blob, nil, "bucket", "same cloud and region"},
		{"52.93.153.7", manifest, nil, "eu-1", "cloud"}, // London, within a block of Virginia
		{"13.236.1.1", blob, nil, "jp-1", "cloud"},
		{"99.83.200.1", manifest, nil, "origin", "country"}, // announced from everywhere: the database is asked
		// Countries.
		{"129.132.1.1", blob, nil, "uni", "declared"},
		{"129.132.1.1", manifest, nil, "eu-1", "country"},
		{"::ffff:129.132.1.1", blob, nil, "uni", "declared"},
		{"193.0.6.139", manifest, nil, "eu-1", "country"},
		{"2001:67c:2e8::1", file, nil, "eu-1", "country"},
		{"141.20.1.1", tag, nil, "eu-1", "country"},
		{"2001:638::1", blob, nil, "eu-1", "country"},
		{"133.11.1.1", blob, nil, "jp-1", "country"},
		{"133.11.1.1", moving, nil, "jp-1", "country"},
		{"2001:200::1", manifest, nil, "origin", "country"}, // jp-1 has no IPv6
		{"196.21.1.1", blob, nil, "za-1", "country"},
		{"2001:43f8::1", manifest, nil, "za-1", "country"},
		{"105.112.1.1", tag, nil, "eu-1", "country"},
		{"197.248.1.1", blob, nil, "za-1", "country"},
		{"200.160.2.3", manifest, nil, "br-1", "country"},
		{"2001:12ff::1", blob, nil, "br-1", "country"},
		{"181.30.1.1", file, nil, "br-1", "country"},
		{"190.26.1.1", tag, nil, "origin", "country"},
		{"202.12.29.1", blob, nil, "jp-1", "country"},
		{"14.139.1.1", blob, nil, "jp-1", "country"},
		{"130.88.1.1", moving, nil, "eu-1", "country"},
		{"192.206.1.1", manifest, nil, "origin", "country"},
		{"2001:470::1", tag, nil, "origin", "country"},
		// The operator's own, and nobody's.
		{"10.7.1.1", manifest, nil, "jp-1", "operator"},
		{"10.8.1.1", blob, nil, "origin", "unknown"},
		{"2001:db8::1", tag, nil, "origin", "unknown"},
		// What is not well.
		{"3.64.1.1", tag, down("eu-1"), "origin", "cloud"},
		{"129.132.1.1", blob, down("uni"), "eu-1", "country"},
		{"196.21.1.1", blob, down("za-1"), "eu-1", "country"},
		{"133.11.1.1", tag, down("jp-1"), "origin", "country"},
		{"200.160.2.3", blob, map[string]choice.State{"br-1": {Up: true, Ramp: 1, Quarantined: true}}, "bucket", "country"},
		{"141.20.1.1", tag, down("eu-1", "origin"), "jp-1", "country"},
		{"129.132.1.1", blob, map[string]choice.State{"uni": {Up: true, Ramp: 1, Frozen: true}}, "eu-1", "country"},
	} {
		immutable, err := access.ParsePattern("release/v*/**")
		if err != nil {
			t.Fatal(err)
		}
		s := newSetting(t, func(c *Config) {
			c.Locate = locator.Locate
			c.Files = []Files{{Name: "dl", Immutable: []access.Pattern{immutable}}}
		})
		s.setMirrors(addressMirrors(t))
		for i := range s.states {
			if state, ok := row.states[s.list.Mirror(i).Name]; ok {
				s.states[i] = state
			}
		}
		s.Refresh()
		e, err := s.Explain(t.Context(), netip.MustParseAddr(row.client).Unmap(), true, row.request, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		first := e.Mirrors[0]
		if first.Rank != 1 || first.Name != row.mirror || !strings.Contains(first.Class+" "+e.Place.Source, row.why) {
			t.Errorf("%s for %s, %v: sent to %s (%s, by %s, %v), want %s (%s)", row.client, row.request, row.states, first.Name, first.Class, e.Place.Source, e.Mirrors, row.mirror, row.why)
		}
		for _, m := range e.Mirrors {
			if (m.Rank == 0) == (m.Reason == "") {
				t.Errorf("%s for %s: %+v has no rank and no reason, or both", row.client, row.request, m)
			}
		}
	}
}

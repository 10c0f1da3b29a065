package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"

	"entrepot/geo/locate"
)

// GeoConfig is by what clients are located.
type GeoConfig struct {
	// folder with aws.json, gcp.json, azure.json, oracle.json (address ranges as those clouds publish them),
	// city.mmdb, asn.mmdb and country.mmdb, each if it is there; changes are taken into use within 30 s
	Dir     Path             `yaml:"dir"`
	Sources GeoSourcesConfig `yaml:"sources"`
	// a database of cities (MMDB) instead of that of `dir`
	City Path `yaml:"city"`
	// a database of networks (MMDB)
	ASN Path `yaml:"asn"`
	// a database of countries (MMDB)
	Country  Path              `yaml:"country"`
	Prefixes []GeoPrefixConfig `yaml:"prefixes"`
}

// SourceURL is where a file is downloaded from. Unlike a [URL] it may have a user and
// a query: providers of databases want both.
type SourceURL string

// UnmarshalText reads a URL.
func (u *SourceURL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "" || parsed.Fragment != "" {
		return errors.New("is not a URL; write it with http:// or https:// and a host, such as https://user:password@databases.example.org/city.mmdb.gz")
	}
	*u = SourceURL(text)
	return nil
}

// GeoSourcesConfig is what `entrepot geo update` downloads.
type GeoSourcesConfig struct {
	// where `entrepot geo update` has aws.json from
	AWS SourceURL `yaml:"aws"`
	// azure.json ("Service Tags"): its URL changes every week
	Azure SourceURL `yaml:"azure"`
	// gcp.json
	GCP SourceURL `yaml:"gcp"`
	// oracle.json
	Oracle SourceURL `yaml:"oracle"`
	// city.mmdb, plain, gzip or a tar archive within gzip; may have a user and a query: `https://${USER}:${file:PATH}@host/path?suffix=tar.gz`
	City SourceURL `yaml:"city"`
	// asn.mmdb
	ASN SourceURL `yaml:"asn"`
	// country.mmdb
	Country SourceURL `yaml:"country"`
}

// SetDefaults sets the sources that clouds keep at one place.
func (s *GeoSourcesConfig) SetDefaults() {
	s.AWS = "https://ip-ranges.amazonaws.com/ip-ranges.json"
	s.GCP = "https://www.gstatic.com/ipranges/cloud.json"
	s.Oracle = "https://docs.oracle.com/iaas/tools/public_ip_ranges.json"
}

// urls are those that are set, by what they have.
func (s *GeoSourcesConfig) urls() map[string]string {
	all := map[string]string{
		"aws": string(s.AWS), "azure": string(s.Azure), "gcp": string(s.GCP), "oracle": string(s.Oracle),
		"city": string(s.City), "asn": string(s.ASN), "country": string(s.Country),
	}
	maps.DeleteFunc(all, func(_, u string) bool { return u == "" })
	return all
}

// GeoPrefixConfig is a network of which the operator knows where it is.
type GeoPrefixConfig struct {
	// a network of your own, which comes before all else
	Prefix string `yaml:"prefix"`
	// where it is: the country
	Country string `yaml:"country"`
	// degrees north
	// Default: of the country
	Lat Decimal `yaml:"lat"`
	// degrees east
	// Default: of the country
	Lon Decimal `yaml:"lon"`
	// the region that it counts as
	Cloud CloudRegion `yaml:"cloud"`
}

// location is how geo locates.
func (g *GeoConfig) location(atlas *locate.Atlas) (locate.Config, error) {
	cfg := locate.Config{Dir: string(g.Dir), City: string(g.City), ASN: string(g.ASN), Country: string(g.Country)}
	for _, p := range g.Prefixes {
		network, err := prefixes([]string{p.Prefix})
		if err != nil {
			return cfg, err
		}
		place := locate.Place{}
		if p.Cloud != "" {
			cloud, region := p.Cloud.split()
			known, ok := atlas.Region(cloud, region)
			if !ok {
				known.Cloud, known.Region = cloud, region
			}
			place = known
		}
		if p.Country != "" {
			c, err := locate.ParseCountry(p.Country)
			if err != nil {
				return cfg, fmt.Errorf("prefix %s: %w", p.Prefix, err)
			}
			if at, ok := atlas.Country(c); ok && !place.Located {
				place.Lat, place.Lon, place.Radius, place.Located = at.Lat, at.Lon, at.Radius, true
			}
			place.Country, place.Continent = c, atlas.Continent(c)
		}
		switch {
		case p.Country == "" && p.Cloud == "":
			return cfg, fmt.Errorf("prefix %s: it says nothing of where that is; write country, or cloud", p.Prefix)
		case place.Country == locate.Country{} && p.Lat+p.Lon != 0:
			return cfg, fmt.Errorf("prefix %s: lat and lon need a country with them", p.Prefix)
		case p.Lat < -90 || p.Lat > 90 || p.Lon < -180 || p.Lon > 180:
			return cfg, fmt.Errorf("prefix %s: lat %v, lon %v is no place; want degrees north from -90 to 90, and east from -180 to 180", p.Prefix, p.Lat, p.Lon)
		}
		if p.Lat != 0 || p.Lon != 0 {
			place.Lat, place.Lon, place.Radius, place.Located = float64(p.Lat), float64(p.Lon), 0, true
		}
		cfg.Prefixes = append(cfg.Prefixes, locate.Prefix{Prefix: network[0], Place: place})
	}
	return cfg, nil
}

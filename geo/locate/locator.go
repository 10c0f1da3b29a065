package locate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

// Prefix is a network of which the operator knows where it is.
type Prefix struct {
	Prefix netip.Prefix
	Place  Place
}

// Config says by what a [Locator] locates. None of it is needed.
type Config struct {
	// Prefixes are the operator's own, which come before all else.
	Prefixes []Prefix
	// Dir has what [Update] downloads: aws.json, gcp.json, azure.json and
	// oracle.json, city.mmdb, asn.mmdb and country.mmdb, each if it is there.
	Dir string
	// City, ASN and Country are databases to use instead of those of Dir. They
	// must be there.
	City, ASN, Country string
	Logger             *slog.Logger // nil discards
}

// Locator says where addresses are. It is safe for concurrent use.
type Locator struct {
	cfg   Config
	atlas *Atlas

	reading sync.Mutex
	stamps  map[string]fs.FileInfo // of the files when they were read
	data    atomic.Pointer[snapshot]
}

// snapshot is all that a locator has read. It does not change.
type snapshot struct {
	own, clouds         bart.Table[Place]
	city, asn, country  *database
	networks, databases int // how many there are
}

// Open reads what cfg names. The error names each file that cannot be used, and
// says why.
func Open(cfg Config) (*Locator, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	atlas, err := NewAtlas()
	if err != nil {
		return nil, err
	}
	l := &Locator{cfg: cfg, atlas: atlas}
	if err := l.Reload(); err != nil {
		return nil, err
	}
	return l, nil
}

// Reload reads everything anew, and swaps it at once. After an error, what was
// read before is used on.
func (l *Locator) Reload() error {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.stamps = l.look() // before reading: what changes meanwhile is read again
	s := new(snapshot)
	var problems []error
	for _, p := range l.cfg.Prefixes {
		place := p.Place
		place.Source = Operator
		s.own.Insert(p.Prefix.Masked(), place)
	}
	for cloud := range rangeParsers() {
		if l.cfg.Dir == "" {
			break
		}
		path := filepath.Join(l.cfg.Dir, cloud+".json")
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = s.addRanges(cloud, data, l.atlas)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
		}
	}
	for _, f := range l.databases() {
		data, err := os.ReadFile(f.path)
		if errors.Is(err, fs.ErrNotExist) && !f.needed {
			continue
		}
		if err == nil {
			*f.of(s), err = openDatabase(data, l.atlas)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", f.path, err))
			continue
		}
		s.databases++
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	s.networks = s.own.Size() + s.clouds.Size()
	l.data.Store(s)
	return nil
}

// databaseFile is a database that is to be read.
type databaseFile struct {
	path   string
	needed bool
	of     func(*snapshot) **database
}

func (l *Locator) databases() []databaseFile {
	var files []databaseFile
	add := func(name, explicit string, of func(*snapshot) **database) {
		switch {
		case explicit != "":
			files = append(files, databaseFile{explicit, true, of})
		case l.cfg.Dir != "":
			files = append(files, databaseFile{filepath.Join(l.cfg.Dir, name+".mmdb"), false, of})
		}
	}
	add("city", l.cfg.City, func(s *snapshot) **database { return &s.city })
	add("asn", l.cfg.ASN, func(s *snapshot) **database { return &s.asn })
	add("country", l.cfg.Country, func(s *snapshot) **database { return &s.country })
	return files
}

// addRanges adds the ranges of a cloud. Of one prefix, an entry with a region
// counts before one without: services repeat the ranges of their cloud. Of Azure,
// that holds of any part of a region's ranges too: tags of services list single
// addresses without a region, where other clouds mean ranges that are announced from
// everywhere.
func (s *snapshot) addRanges(cloud string, data []byte, atlas *Atlas) error {
	ranges, err := parseRanges(cloud, data)
	if err != nil {
		return err
	}
	regional := func(r cloudRange) int { // those with a region come first
		if r.region == "" {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(ranges, func(a, b cloudRange) int { return regional(a) - regional(b) })
	for _, r := range ranges {
		around, ok := s.clouds.LookupPrefix(r.prefix)
		if ok && r.region == "" && cloud == "azure" && around.Region != "" {
			continue
		}
		if _, ok := s.clouds.Get(r.prefix); ok {
			continue
		}
		s.clouds.Insert(r.prefix, atlas.regionOf(cloud, r.region))
	}
	return nil
}

// Locate says where an address is, by the first that knows: the operator's
// prefixes, the ranges of clouds, which databases have in the wrong country more
// often than other networks, the database of cities, that of countries. The ASN
// is that of its own database. It allocates nothing.
func (l *Locator) Locate(addr netip.Addr) Place {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return Place{}
	}
	s := l.data.Load()
	p, ok := s.own.Lookup(addr)
	if !ok {
		p = s.elsewhere(addr)
	}
	if p.ASN == 0 {
		if network, ok := s.asn.lookup(addr); ok {
			p.ASN = network.ASN
		}
	}
	return p
}

// elsewhere is where an address is that the operator did not place.
func (s *snapshot) elsewhere(addr netip.Addr) Place {
	cloud, _ := s.clouds.Lookup(addr)
	if cloud.Located {
		return cloud
	}
	p, ok := s.city.lookup(addr)
	if p.Source = CityDB; !ok || !p.Located {
		p, ok = s.country.lookup(addr)
		if p.Source = CountryDB; !ok {
			p.Source = cloud.Source
		}
	}
	p.Cloud, p.Region = cloud.Cloud, cloud.Region
	return p
}

// look takes the stamps of all files.
func (l *Locator) look() map[string]fs.FileInfo {
	stamps := map[string]fs.FileInfo{}
	var paths []string
	if l.cfg.Dir != "" {
		for cloud := range rangeParsers() {
			paths = append(paths, filepath.Join(l.cfg.Dir, cloud+".json"))
		}
	}
	for _, f := range l.databases() {
		paths = append(paths, f.path)
	}
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			stamps[path] = info
		}
	}
	return stamps
}

// Watch reads everything anew when a file changed, until ctx ends.
func (l *Locator) Watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.reading.Lock()
		same := maps.EqualFunc(l.stamps, l.look(), sameVersion)
		l.reading.Unlock()
		if same {
			continue
		}
		if err := l.Reload(); err != nil {
			l.cfg.Logger.Error("new location data cannot be used; the old ones stay", "error", err)
			continue
		}
		networks, databases := l.Size()
		l.cfg.Logger.Info("took new location data into use", "networks", networks, "databases", databases)
	}
}

// sameVersion says whether two looks at a file saw the same. One that was put in
// its place may have its size and time.
func sameVersion(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// Size is how many networks, and how many databases, places are known from.
func (l *Locator) Size() (networks, databases int) {
	s := l.data.Load()
	return s.networks, s.databases
}

package locate

import (
	_ "embed"
	"encoding/csv"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// countriesCSV has a point and a radius for each country: its principal cities
// after tzdata's zone.tab, which is in the public domain; radii set by hand.
//
//go:embed countries.csv
var countriesCSV string

// regionsCSV has where the regions of clouds are, as the clouds publish: the
// city that a region is named for, to a tenth of a degree.
//
//go:embed regions.csv
var regionsCSV string

// regionRadius is km around a region's point within which its machines are.
const regionRadius = 50

// Atlas knows where countries and the regions of clouds are.
type Atlas struct {
	countries map[Country]Place
	regions   map[[2]string]Place
}

// NewAtlas reads the tables that are part of the program.
func NewAtlas() (*Atlas, error) {
	a := &Atlas{countries: map[Country]Place{}, regions: map[[2]string]Place{}}
	err := readTable(countriesCSV, 5, func(row []string) error {
		continent, err := ParseContinent(row[1])
		if err != nil {
			return err
		}
		p, err := pointOf(row[0], row[2], row[3])
		if err != nil {
			return err
		}
		p.Continent = continent
		if p.Radius, err = strconv.ParseFloat(row[4], 64); err != nil {
			return err
		}
		a.countries[p.Country] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the table of countries: %w", err)
	}
	err = readTable(regionsCSV, 5, func(row []string) error {
		p, err := pointOf(row[2], row[3], row[4])
		if err != nil {
			return err
		}
		p.Radius, p.Cloud, p.Region, p.Source = regionRadius, row[0], row[1], CloudRange
		if p.Continent = a.Continent(p.Country); p.Continent == 0 {
			return errors.New("its country is in no continent")
		}
		a.regions[[2]string{row[0], row[1]}] = p
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the table of regions: %w", err)
	}
	return a, nil
}

// readTable calls each for the rows of a table below its head.
func readTable(text string, columns int, each func(row []string) error) error {
	r := csv.NewReader(strings.NewReader(text))
	r.FieldsPerRecord = columns
	rows, err := r.ReadAll()
	if err != nil {
		return err
	}
	for i, row := range rows[1:] {
		if err := each(row); err != nil {
			return fmt.Errorf("line %d: %w", i+2, err)
		}
	}
	return nil
}

func pointOf(country, lat, lon string) (Place, error) {
	c, err := ParseCountry(country)
	if err != nil {
		return Place{}, err
	}
	p := Place{Country: c, Located: true}
	if p.Lat, err = strconv.ParseFloat(lat, 64); err != nil {
		return Place{}, err
	}
	p.Lon, err = strconv.ParseFloat(lon, 64)
	return p, err
}

// Country is the place that stands for a country.
func (a *Atlas) Country(c Country) (Place, bool) {
	p, ok := a.countries[c]
	return p, ok
}

// Continent is the continent of a country; 0 when it is not known.
func (a *Atlas) Continent(c Country) Continent { return a.countries[c].Continent }

// Region is where a region of a cloud is: "aws", "eu-central-1".
func (a *Atlas) Region(cloud, region string) (Place, bool) {
	p, ok := a.regions[[2]string{cloud, region}]
	return p, ok
}

// regionOf is the place of a region; of one that is not in the table, its name
// alone.
func (a *Atlas) regionOf(cloud, region string) Place {
	if p, ok := a.Region(cloud, region); ok {
		return p
	}
	return Place{Source: CloudRange, Cloud: cloud, Region: region}
}

package locate

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrRanges says that a file of a cloud's address ranges cannot be used.
var ErrRanges = errors.New("not the address ranges that a cloud publishes")

// cloudRange is a prefix and the region that a cloud has it in; "" is one that
// has no place, as its addresses are announced from many.
type cloudRange struct {
	prefix netip.Prefix
	region string
}

// rangeParsers are how the clouds publish their ranges, by the names of clouds.
func rangeParsers() map[string]func([]byte) ([]cloudRange, error) {
	return map[string]func([]byte) ([]cloudRange, error){
		"aws": parseAWS, "gcp": parseGCP, "azure": parseAzure, "oracle": parseOracle,
	}
}

// parseRanges reads a file of ranges. Errors: ErrRanges, also when it has none.
func parseRanges(cloud string, data []byte) ([]cloudRange, error) {
	parse := rangeParsers()[cloud]
	if parse == nil {
		return nil, fmt.Errorf("%w: %q is no cloud that is known; there are aws, azure, gcp and oracle", ErrRanges, cloud)
	}
	ranges, err := parse(data)
	if err == nil && len(ranges) == 0 {
		err = errors.New("it has no prefixes")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: as those of %s: %w", ErrRanges, cloud, err)
	}
	return ranges, nil
}

// collector gathers ranges until the first that is wrong.
type collector struct {
	ranges []cloudRange
	err    error
}

func (c *collector) add(text, region string) {
	if text == "" || c.err != nil {
		return
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p != p.Masked() {
		err = fmt.Errorf("%s has bits set behind its length", text)
	}
	if err == nil && p.Addr().Is4In6() {
		err = fmt.Errorf("%s is IPv4 within IPv6", text)
	}
	if err != nil {
		c.err = err
		return
	}
	if strings.EqualFold(region, "global") {
		region = ""
	}
	c.ranges = append(c.ranges, cloudRange{p, region})
}

// parseAWS reads ip-ranges.json.
func parseAWS(data []byte) ([]cloudRange, error) {
	var file struct {
		Prefixes []struct {
			Prefix string `json:"ip_prefix"`
			Region string `json:"region"`
		} `json:"prefixes"`
		Prefixes6 []struct {
			Prefix string `json:"ipv6_prefix"`
			Region string `json:"region"`
		} `json:"ipv6_prefixes"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	var c collector
	for _, p := range file.Prefixes {
		c.add(p.Prefix, p.Region)
	}
	for _, p := range file.Prefixes6 {
		c.add(p.Prefix, p.Region)
	}
	return c.ranges, c.err
}

// parseGCP reads cloud.json.
func parseGCP(data []byte) ([]cloudRange, error) {
	var file struct {
		Prefixes []struct {
			Prefix4 string `json:"ipv4Prefix"`
			Prefix6 string `json:"ipv6Prefix"`
			Scope   string `json:"scope"`
		} `json:"prefixes"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	var c collector
	for _, p := range file.Prefixes {
		c.add(p.Prefix4, p.Scope)
		c.add(p.Prefix6, p.Scope)
	}
	return c.ranges, c.err
}

// parseAzure reads ServiceTags_Public.json, in which tags of services repeat the
// ranges of the cloud, some of them without a region.
func parseAzure(data []byte) ([]cloudRange, error) {
	var file struct {
		Values []struct {
			Properties struct {
				Region   string   `json:"region"`
				Prefixes []string `json:"addressPrefixes"`
			} `json:"properties"`
		} `json:"values"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	var c collector
	for _, v := range file.Values {
		for _, p := range v.Properties.Prefixes {
			c.add(p, v.Properties.Region)
		}
	}
	return c.ranges, c.err
}

// parseOracle reads public_ip_ranges.json.
func parseOracle(data []byte) ([]cloudRange, error) {
	var file struct {
		Regions []struct {
			Region string `json:"region"`
			CIDRs  []struct {
				CIDR string `json:"cidr"`
			} `json:"cidrs"`
		} `json:"regions"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	var c collector
	for _, r := range file.Regions {
		for _, p := range r.CIDRs {
			c.add(p.CIDR, r.Region)
		}
	}
	return c.ranges, c.err
}

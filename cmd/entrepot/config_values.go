package main

import (
	"errors"
	"log/slog"
	"math"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The types of single values in the configuration file. Their errors follow
// the quoted text ("5000" is not …), say what would be right, and never repeat
// the text, which may be a secret.

// Size is a number of bytes: 1048576, 500MB, 1.5GiB.
type Size int64

var errSize = errors.New("is not a size; write bytes (1048576) or a number with KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), such as 500MB or 10GiB")

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	m := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`).FindStringSubmatch(string(text))
	if m == nil {
		return errSize
	}
	unit, ok := map[string]float64{
		"": 1, "B": 1,
		"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}[m[2]]
	if !ok {
		return errSize
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n*unit != math.Trunc(n*unit) && unit == 1 {
		return errSize
	}
	if n*unit >= 1<<62 {
		return errors.New("is too large for a size")
	}
	*s = Size(n * unit)
	return nil
}

// String writes a size in the largest unit that keeps it whole.
func (s Size) String() string {
	for _, u := range []struct {
		bytes Size
		name  string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}, {1e12, "TB"}, {1e9, "GB"}, {1e6, "MB"}, {1e3, "KB"}} {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Rate is a number of bytes a second: 50MB or 50MB/s.
type Rate int64

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) error {
	var s Size
	if err := s.UnmarshalText([]byte(strings.TrimSuffix(string(text), "/s"))); err != nil {
		return errors.New("is not a rate; write bytes a second as a size, such as 50MB or 10MiB/s")
	}
	*r = Rate(s)
	return nil
}

func (r Rate) String() string { return Size(r).String() }

// Duration is a span of time: 90s, 1h30m, 7d, 1d12h.
type Duration time.Duration

var errDuration = errors.New("is not a duration; write numbers with ms, s, m, h or d, such as 30s, 1h30m or 7d")

// UnmarshalText reads a duration, which is not negative.
func (d *Duration) UnmarshalText(text []byte) error {
	rest, total := string(text), time.Duration(0)
	if days := regexp.MustCompile(`^([0-9]{1,5})d`).FindStringSubmatch(rest); days != nil {
		n, _ := strconv.Atoi(days[1])
		total, rest = time.Duration(n)*24*time.Hour, rest[len(days[0]):]
	}
	if rest != "" || len(text) == 0 {
		t, err := time.ParseDuration(rest)
		if err != nil || t < 0 || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
			return errDuration
		}
		total += t
	}
	if total < 0 {
		return errDuration
	}
	*d = Duration(total)
	return nil
}

// String writes a duration as it would be written in the file.
func (d Duration) String() string {
	t, s := time.Duration(d), ""
	if days := t / (24 * time.Hour); days > 0 {
		s, t = strconv.Itoa(int(days))+"d", t%(24*time.Hour)
		if t == 0 {
			return s
		}
	}
	s += t.String()
	s = regexp.MustCompile(`([hm])0s$`).ReplaceAllString(s, "$1")
	return regexp.MustCompile(`h0m$`).ReplaceAllString(s, "h")
}

// Percent is 1 to 100: 90 or 90%.
type Percent int

// UnmarshalText reads a percentage.
func (p *Percent) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(strings.TrimSuffix(string(text), "%"))
	if err != nil || n < 1 || n > 100 {
		return errors.New("is not a percentage; write a whole number from 1 to 100, such as 90")
	}
	*p = Percent(n)
	return nil
}

func (p Percent) String() string { return strconv.Itoa(int(p)) }

// Address is where a listener listens: :5000, 127.0.0.1:9090, [::1]:5000.
type Address string

// UnmarshalText reads an address. Port 0 asks for any free port.
func (a *Address) UnmarshalText(text []byte) error {
	host, port, err := net.SplitHostPort(string(text))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || strings.ContainsAny(host, " /") {
		return errors.New(`is not an address to listen on; write host:port, such as ":5000" for all interfaces or "127.0.0.1:5000"`)
	}
	*a = Address(text)
	return nil
}

// URL is an absolute http or https URL without user, query and fragment, and
// without a slash at its end.
type URL string

// UnmarshalText reads a URL.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	switch {
	case err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Hostname() == "":
		return errors.New("is not a URL; write it with http:// or https:// and a host, such as https://registry.example.org")
	case parsed.User != nil:
		return errors.New("has a user or password in the URL; set them with their own keys")
	case parsed.RawQuery != "" || parsed.ForceQuery || parsed.Fragment != "":
		return errors.New("has a query or fragment; write the URL up to its path")
	}
	*u = URL(strings.TrimRight(parsed.String(), "/"))
	return nil
}

// path is the path of the URL.
func (u URL) path() string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return ""
	}
	return parsed.Path
}

// Secret is a text that is never shown.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "(hidden)"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// LogValue hides the secret from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Path is a file or directory; relative ones start at the working directory.
type Path string

// LogLevel is the least severe level that is logged.
type LogLevel string

// UnmarshalText reads a level.
func (l *LogLevel) UnmarshalText(text []byte) error {
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, string(text)) {
		return errors.New("is not a level; write debug, info, warn or error")
	}
	*l = LogLevel(text)
	return nil
}

// LogFormat is the form of log lines.
type LogFormat string

// UnmarshalText reads a format.
func (f *LogFormat) UnmarshalText(text []byte) error {
	if !slices.Contains([]string{"auto", "text", "json"}, string(text)) {
		return errors.New("is not a format; write auto (text on a terminal, else json), text or json")
	}
	*f = LogFormat(text)
	return nil
}

// Decimal is a decimal number.
type Decimal float64

// UnmarshalText reads a number.
func (d *Decimal) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil || v != v || v > 1e9 || v < -1e9 {
		return errors.New("is not a number; write one such as 50.1 or -95.9")
	}
	*d = Decimal(v)
	return nil
}

// String writes a number.
func (d Decimal) String() string { return strconv.FormatFloat(float64(d), 'f', -1, 64) }

// BitRate is a number of bits a second: 40Gbps, 500Mbps.
type BitRate int64

// UnmarshalText reads a rate.
func (b *BitRate) UnmarshalText(text []byte) error {
	m := regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([KMGT])bps$`).FindStringSubmatch(string(text))
	if m == nil {
		return errors.New("is not a rate; write Kbps, Mbps, Gbps or Tbps, such as 40Gbps")
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil || n > 1e6 {
		return errors.New("is too large for a rate")
	}
	*b = BitRate(n * map[string]float64{"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[m[2]])
	return nil
}

// String writes a rate in the largest unit that keeps it whole.
func (b BitRate) String() string {
	for _, u := range []struct {
		bits BitRate
		name string
	}{{1e12, "Tbps"}, {1e9, "Gbps"}, {1e6, "Mbps"}} {
		if b >= u.bits && b%u.bits == 0 {
			return strconv.FormatInt(int64(b/u.bits), 10) + u.name
		}
	}
	return strconv.FormatFloat(float64(b)/1e3, 'f', -1, 64) + "Kbps"
}

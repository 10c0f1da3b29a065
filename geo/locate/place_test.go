package locate

import (
	"errors"
	"testing"
)

func TestCountryCodesAreReadInEitherCaseAndNothingElseIs(t *testing.T) {
	for in, want := range map[string]string{"DE": "DE", "de": "DE", "uS": "US"} {
		if got, err := ParseCountry(in); err != nil || got.String() != want {
			t.Errorf("ParseCountry(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"", "D", "DEU", "D1", "!!", "\x01\x02", "{}", "ü"} {
		if got, err := ParseCountry(in); !errors.Is(err, ErrCountry) {
			t.Errorf("ParseCountry(%q) = %q, %v, want ErrCountry", in, got, err)
		}
	}
}

func TestContinentsAreWrittenAsTheyAreRead(t *testing.T) {
	for _, code := range []string{"AF", "AN", "AS", "EU", "NA", "OC", "SA"} {
		if got, err := ParseContinent(code); err != nil || got.String() != code {
			t.Errorf("ParseContinent(%q) = %q, %v", code, got, err)
		}
	}
	for _, in := range []string{"", "eu", "XX", "EUR"} {
		if _, err := ParseContinent(in); !errors.Is(err, ErrContinent) {
			t.Errorf("ParseContinent(%q): %v, want ErrContinent", in, err)
		}
	}
}

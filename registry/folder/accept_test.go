package folder

import "testing"

func TestWhatAClientPrefers(t *testing.T) {
	for accept, want := range map[string]string{
		"*/*":              mediaText,
		"text/*":           mediaText,
		"application/json": mediaJSON,
		"application/*":    mediaJSON,
		"text/html,application/xhtml+xml,*/*;q=0.8": mediaHTML,
		"text/plain;q=0.5, application/json;q=0.9":  mediaJSON,
		"*/*, text/plain;q=0":                       mediaHTML,
		"TEXT/HTML; level=1; Q=1":                   mediaHTML,
		"image/png":                                 mediaText,
		"":                                          mediaText,
	} {
		if got := Preferred([]string{accept}, mediaText, mediaHTML, mediaJSON); got != want {
			t.Errorf("%q: %s, want %s", accept, got, want)
		}
	}
	if got := Preferred(nil, mediaText, mediaJSON); got != mediaText {
		t.Errorf("without Accept: %s", got)
	}
}

package loop

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRequestIsPassedOnceAndCarriesWhomItPassed(t *testing.T) {
	for header, want := range map[string]string{
		"":                                "entrepot; id=me",
		"entrepot; id=a":                  "entrepot; id=a, entrepot; id=me",
		`entrepot;id="a", Entrepot; ID=b`: "entrepot; id=a, entrepot; id=b, entrepot; id=me",
		"cloudflare; loops=99":            "entrepot; id=me", // what a client writes is not the node's word
		"other; id=me":                    "entrepot; id=me",
		"me; ;;, ,= id=me":                "entrepot; id=me",
		"entrepot; id=a b, entrepot; id=": "entrepot; id=me", // no node's
		"entrepot; id=" + strings.Repeat("a", maxID+1): "entrepot; id=me",
		"entrepot; id=me":                              "",
		`other, entrepot; v=2;id="me"`:                 "",
		strings.Repeat("entrepot; id=a,", maxPassed+1): "",
	} {
		got, stops := "", 0
		h := Guard("me", func() { stops++ }, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			got = Value(Carry(t.Context(), r.Context()), "me")
		}))
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v2/", nil)
		if header != "" {
			r.Header.Set(Header, header)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if got != want || (w.Code == http.StatusLoopDetected) != (want == "") || (stops == 1) != (want == "") {
			t.Errorf("%.60q: %d, and sends %q; want %q", header, w.Code, got, want)
		}
	}
}

func FuzzIDs(f *testing.F) {
	for _, seed := range []string{"entrepot; id=a", `a, Entrepot;v=1 ; ID="b"`, ",;=\"", "entrepot;id"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		ids := IDs(http.Header{"Cdn-Loop": {header}})
		again := IDs(http.Header{"Cdn-Loop": {header, Value(t.Context(), "me")}})
		if len(again) != len(ids)+1 || again[len(ids)] != "me" {
			t.Errorf("%q has %q, and with one more %q", header, ids, again)
		}
	})
}

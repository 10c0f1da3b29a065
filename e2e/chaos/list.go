package main

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// changeList replaces the router's list of mirrors while it runs.
func (w *world) changeList(e event) (func(), bool) {
	return w.once("router", func() func() {
		before := w.reloads()
		whole := w.Router.Mirrors()
		gone := w.Regions[1+e.choice/3%2] // not the one that stands for the origin
		switch e.choice % 3 {
		case 0:
			w.Router.SetMirrors(slices.DeleteFunc(slices.Clone(whole), func(m map[string]any) bool { return m["name"] == gone.Name }))
		case 1:
			w.Router.SetMirrors(append(slices.Clone(whole), map[string]any{
				"name": "dead", "urls": []string{"http://127.0.0.1:1"}, "tier": "trusted", "names": true,
				"country": gone.Country, "lat": fmt.Sprint(gone.Lat), "lon": fmt.Sprint(gone.Lon),
			}))
		default:
			w.Router.HalfWrite()
		}
		return func() {
			taken := w.reloads() - before
			w.bit(e.fault, taken)
			if taken > 0 && e.choice%3 == 0 && w.leadsTo(gone.Name, gone.Door.Address()) {
				w.t.Errorf("the router sends clients to %s, which is not on its list any more", gone.Name)
			}
			w.Router.SetMirrors(whole)
		}
	})
}

var reloadsPattern = regexp.MustCompile(`(?m)^entrepot_mirror_list_reloads_total\{.*\} (\d+)$`)

// reloads is how many changed lists the router took or refused.
func (w *world) reloads() (n int64) {
	text, _ := read(w.Router.AdminURL() + "/metrics") // where it does not answer there were none
	for _, found := range reloadsPattern.FindAllStringSubmatch(text, -1) {
		var of int64
		_, _ = fmt.Sscan(found[1], &of) // they are digits
		n += of
	}
	return n
}

// leadsTo says whether the router sends clients of a region to a host, for anything
// that there is.
func (w *world) leadsTo(region, host string) bool {
	for _, i := range w.catalog.items() {
		if i.routed != "" && strings.Contains(location(w.t.Context(), w.forward[region]+i.routed), "//"+host+"/") {
			return true
		}
	}
	return false
}

// location is where a URL redirects to; empty where it does not.
func location(ctx context.Context, url string) string {
	ctx, cancel := context.WithTimeout(ctx, readWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return ""
	}
	response, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return ""
	}
	response.Body.Close()
	return response.Header.Get("Location")
}

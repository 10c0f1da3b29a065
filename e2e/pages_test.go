package e2e

import (
	"context"
	"html"
	"net/http"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// browse is what a browser makes of a page: its document, after the browser has
// loaded all of it. What the browser complains of fails the test.
func browse(t *testing.T, page string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	browser := exec.CommandContext(ctx, testenv.Debian(t, "chromium-headless-shell", "chromium-headless-shell"),
		"--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--window-size=360,800", "--enable-logging=stderr", "--dump-dom", page)
	var complaints strings.Builder
	browser.Stderr = &complaints
	document, err := browser.Output()
	if err != nil {
		t.Fatalf("the browser fails for %s: %v\n%s", page, err, complaints.String())
	}
	if strings.Contains(complaints.String(), "CONSOLE") {
		t.Errorf("the browser complains of %s:\n%s", page, complaints.String())
	}
	return string(document)
}

// links are what a document links to, as absolute URLs.
func links(t *testing.T, page, document string) []string {
	t.Helper()
	base, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, href := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(document, -1) {
		to, err := base.Parse(html.UnescapeString(href[1]))
		if err != nil {
			t.Errorf("%s links to %q: %v", page, href[1], err)
			continue
		}
		all = append(all, to.String())
	}
	return all
}

// pagesInABrowser shows a release's pages in a browser, and follows all their links.
func pagesInABrowser(t *testing.T, w *testenv.World) {
	router := w.Router.URL()
	const folder, program = "release/v1.1.0/bin/linux/amd64/", "program-00"
	for page, shows := range map[string][]string{
		router + "/release/":          {"v1.0.0/", "v1.1.0/", "stable.txt"},
		router + "/" + folder:         {program, "SHA256SUMS"},
		w.Origin.URL() + "/" + folder: {program, "SHA256SUMS"},
		w.Regions[1].Node.URL() + "/" + testenv.WorldFiles + "/" + folder: {program, "SHA256SUMS"},
		router + "/" + folder + program + "?mirrorlist":                   {"eu", "origin"},
		router + "/where?request=/" + folder + program:                    {"127.0.0.1", "eu", "origin"},
	} {
		document := browse(t, page)
		for _, text := range shows {
			if !strings.Contains(document, text) {
				t.Errorf("%s does not show %q:\n%s", page, text, document)
			}
		}
		followed := links(t, page, document)
		if len(followed) == 0 && !strings.Contains(page, "/where") {
			t.Errorf("%s has no links:\n%s", page, document)
		}
		for _, link := range followed {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, link, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != http.StatusOK {
				t.Errorf("%s links to %s, which says %s", page, link, response.Status)
			}
		}
	}
}

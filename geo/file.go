package geo

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"entrepot/geo/choice"
	"entrepot/promote/ledger"
	"entrepot/registry"
	"entrepot/registry/access"
	"entrepot/registry/folder"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
)

// Files is an upstream of files.
type Files struct {
	// Name is its name, at nodes and in requests; "" leaves names to the mirrors.
	Name string
	// Private has all of it served by who is trusted with it only.
	Private bool
	// Immutable are the paths that never change what they are, and Moving those
	// among them that do; all else are names that only who is authoritative can
	// say.
	Immutable, Moving []access.Pattern
	// Ledger has the digests of what was promoted to Destinations, of which the
	// first counts that ever heard of a name; nil when there is none.
	Ledger       Ledger
	Destinations []string
	// Folders lists what is promoted; nil leaves folders to the mirrors.
	Folders folder.Lister
}

// Ledger is a ledger that is followed.
type Ledger interface {
	// State is the newest.
	State() *ledger.State
}

// metalinkType and metalinkSuffix are those of RFC 5854.
const (
	metalinkType   = "application/metalink4+xml"
	metalinkSuffix = ".meta4"
)

// found is a file that is asked for.
type found struct {
	up     *Files
	path   string        // as it was sent, below the upstream
	name   string        // decoded
	digest digest.Digest // "" when it is not known
	size   int64         // negative when it is not known
}

// file answers a request for a file.
func (x *exchange) file() error {
	req, err := registry.ParseFileRequest(x.r)
	if err != nil {
		return err
	}
	f, err := x.rt.find(&req)
	if err != nil {
		return err
	}
	if done, err := x.folder(f, &req); done || err != nil {
		return err
	}
	named := f.cutMetalink()
	accepted := acceptsMetalink(x.r.Header.Values("Accept"))
	if err := x.parseFile(f, named || accepted); err != nil {
		return err
	}
	var room [maxChoices]choice.Choice
	switch {
	case x.r.URL.RawQuery != "" && x.r.URL.Query().Has("mirrorlist"):
		x.mirrorList(f, x.choose(room[:0]))
		return nil
	case named, accepted && f.digest != "": // who would take the file as well gets that
		return x.metalink(f, x.choose(room[:0]))
	}
	choices := x.chooseAgain(room[:0])
	index, location, err := x.location(choices)
	if err != nil {
		return err
	}
	x.describe(f, choices)
	x.redirect(http.StatusFound, index, location)
	return nil
}

// find says which upstream's file a request means.
func (rt *Router) find(req *registry.FileRequest) (*found, error) {
	up, file := registry.RouteFile(req, rt.files, rt.files[rt.cfg.DefaultFiles])
	if up == nil {
		return nil, registry.NoFileUpstream(req)
	}
	name, err := url.PathUnescape(file)
	if err != nil {
		return nil, registry.Errorf(errcode.ErrorCodeNameInvalid, "the path %q is not percent-encoded properly: %w", file, err)
	}
	return &found{up: up, path: file, name: name, size: -1}, nil
}

// cutMetalink cuts the suffix by which the Metalink of a file is named, if the
// name has it and is not that of a file itself.
func (f *found) cutMetalink() bool {
	short, ok := strings.CutSuffix(f.name, metalinkSuffix)
	if _, is := f.up.lookup(f.name); !ok || is {
		return false
	}
	f.name, f.path = short, strings.TrimSuffix(f.path, metalinkSuffix)
	return true
}

// acceptsMetalink says whether a client names the type among those that it takes,
// as aria2 does with every request. */* does not mean it.
func acceptsMetalink(accept []string) bool {
	for item := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, parameters, err := mime.ParseMediaType(item)
		if err != nil || name != metalinkType {
			continue
		}
		weight, err := strconv.ParseFloat(cmp.Or(parameters["q"], "1"), 64)
		return err == nil && weight > 0
	}
	return false
}

// Keeps says whether a file never changes what it is.
func (up *Files) Keeps(name string) bool {
	return matchesAny(up.Immutable, name) && !matchesAny(up.Moving, name)
}

// prefix is of the upstream's paths at this router.
func (up *Files) prefix() string {
	if up.Name == "" {
		return "/"
	}
	return "/" + up.Name + "/"
}

// lookup is what the ledger says that a file is.
func (up *Files) lookup(name string) (ledger.Entry, bool) {
	if up.Ledger == nil {
		return ledger.Entry{}, false
	}
	e, known := up.Ledger.State().LookupFile(up.Destinations, name)
	return e, known && e.Exists()
}

// parseFile says what is asked for, in the words of the choice. A client that wants
// the file's Metalink verifies what it gets, as one does that says so.
func (x *exchange) parseFile(f *found, metalink bool) error {
	if e, ok := f.up.lookup(f.name); ok {
		if err := revoked(f.up.Ledger, e.Digest, f.name); err != nil {
			return err
		}
		f.digest = e.Digest
		if e.Size > 0 {
			f.size = e.Size
		}
	}
	q, t := &x.query, &x.target
	q.Namespace, q.Private, q.What, q.OfFile, q.Size = f.up.Name, f.up.Private, choice.Names, true, f.size
	if f.up.Keeps(f.name) {
		q.What = choice.File
	}
	q.Verifies = f.digest != "" && (metalink || x.verifies())
	q.Key = f.up.Name + "/" + releaseFolder(f.name)
	t.Namespace, t.File = f.up.Name, f.path
	return nil
}

func matchesAny(patterns []access.Pattern, name string) bool {
	return slices.ContainsFunc(patterns, func(p access.Pattern) bool { return p.Match(name) })
}

// releaseFolder is what of a path belongs together: its first two folders, such
// as release/v1.36.0.
func releaseFolder(name string) string {
	at := 0
	for range 2 {
		next := strings.IndexByte(name[at:], '/')
		if next < 0 {
			break
		}
		at += next + 1
	}
	return strings.TrimSuffix(name[:at], "/")
}

// verifies says whether the client shows that it checks what it gets.
func (x *exchange) verifies() bool {
	return x.r.Header.Get("Want-Repr-Digest") != "" || x.r.URL.RawQuery != "" && queryValue(x.r.URL, "verify") == "1"
}

// folder answers for a folder of promoted files, and for the checksums of one.
func (x *exchange) folder(f *found, req *registry.FileRequest) (done bool, err error) {
	if f.up.Folders == nil {
		return false, nil
	}
	d, err := folder.Open(x.r.Context(), f.up.Folders, func(name string) bool {
		_, promoted := f.up.lookup(name)
		return promoted
	}, &folder.Request{Root: req.Base() + f.up.prefix(), Path: f.name, Query: req.Query, Accept: req.Accept()})
	switch {
	case errors.Is(err, folder.ErrRequest):
		e := registry.Errorf(errcode.ErrorCodeUnsupported, "%w", err)
		e.Status = http.StatusBadRequest
		return true, e
	case err != nil || d == nil: // a mirror may know more
		return err != nil, err
	}
	x.obs.Status = http.StatusOK
	d.ServeHTTP(x.w, x.r)
	return true, nil
}

// maxDuplicates is how many other places of a file are told with a redirect.
const maxDuplicates = 3

// describe adds what RFC 6249 has for clients that can use several places and
// check what they get: the digest, other places, the Metalink and the signature.
// RFC 9530 has no field for it: Repr-Digest on a redirect would be the redirect's
// own.
func (x *exchange) describe(f *found, choices []choice.Choice) {
	if f.digest == "" {
		return
	}
	header := x.w.Header()
	if value := instanceDigest(f.digest); value != "" {
		header["Digest"] = []string{value}
	}
	var links []string
	for i, place := range x.places(choices, maxDuplicates) {
		link := "<" + place.url + ">; rel=duplicate; pri=" + strconv.Itoa(i+1)
		if country := place.mirror.Country.String(); country != "" {
			link += "; geo=" + strings.ToLower(country)
		}
		links = append(links, link)
	}
	here := f.up.prefix() + f.path
	links = append(links, "<"+here+metalinkSuffix+`>; rel=describedby; type="`+metalinkType+`"`)
	for _, signature := range []struct{ suffix, mediaType string }{
		{".asc", `; type="application/pgp-signature"`}, {".sig", ""}, // of OpenPGP or of cosign: the name does not tell
	} {
		if _, ok := f.up.lookup(f.name + signature.suffix); ok {
			links = append(links, "<"+here+signature.suffix+">; rel=describedby"+signature.mediaType)
		}
	}
	header["Link"] = links
}

// place is where a file is to be had.
type place struct {
	mirror *choice.Mirror
	url    string
	cost   float64
}

// places are the first of some choices that have a URL for the target and, as far
// as is known without waiting, the content.
func (x *exchange) places(choices []choice.Choice, most int) []place {
	var places []place
	for _, c := range choices {
		m := x.view.list.Mirror(c.Index)
		if len(places) == most || m.Incomplete {
			continue
		}
		if location := m.Location(x.query.Secure, &x.target); location != "" {
			places = append(places, place{mirror: m, url: location, cost: c.Cost})
		}
	}
	return places
}

// instanceDigest is a digest as the Digest field has it (RFC 3230, with the names
// of RFC 5843); "" for what has none.
func instanceDigest(d digest.Digest) string {
	sum, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return ""
	}
	name := map[digest.Algorithm]string{digest.SHA256: "SHA-256", digest.SHA512: "SHA-512"}[d.Algorithm()]
	if name == "" {
		return ""
	}
	return name + "=" + base64.StdEncoding.EncodeToString(sum)
}

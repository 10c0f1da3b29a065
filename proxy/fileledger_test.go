package proxy

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"entrepot/promote/ledger"

	"github.com/opencontainers/go-digest"
)

// filesDestination is where promotion puts the files of these tests.
const filesDestination = "https://up.example.org/files"

// recordFile appends an entry about a file.
func (p *production) recordFile(n *testNode, action ledger.Action, name string, d digest.Digest, reason string) {
	p.t.Helper()
	e := ledger.Entry{Kind: ledger.File, Name: name, Action: action, Digest: d, Reason: reason}
	if action != ledger.Revoke {
		e.Destinations = []string{filesDestination}
	}
	added, err := p.log.Append(p.t.Context(), func(*ledger.State) ([]ledger.Entry, error) { return []ledger.Entry{e}, nil })
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.follower.Poll(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
	if n != nil {
		n.LedgerChanged(p.t.Context(), "up", added)
	}
}

// startFiles starts a node that follows the ledger.
func (p *production) startFiles(urls ...string) *testNode {
	p.t.Helper()
	return startFiles(p.t, p.t.TempDir(), urls, p.followed())
}

// followed is an upstream of files that follows the ledger.
func (p *production) followed() nodeOption {
	return withFiles(func(c *FileUpstreamConfig) {
		c.Ledger = LedgerConfig{Ledger: p.follower, Names: []string{filesDestination}}
	})
}

func TestFileOfTheLedgerIsVerifiedByItsDigestAndNeverCheckedUpstream(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	one := up.file("/v1/kube%20ctl", 2*mib, 1, "Content-Type", "application/x-one", "Cache-Control", "no-cache")
	p.recordFile(nil, ledger.Set, "v1/kube ctl", digest.FromBytes(one.body), "")
	n := p.startFiles(up.URL)
	for range 3 {
		g := n.get(t, "/up/v1/kube%20ctl?ignored")
		g.wantBytes(t, 200, one.body)
		g.wantHeaders(t, map[string]string{"Content-Type": "application/x-one", "ETag": `"v1"`, "Repr-Digest": reprDigest(digest.FromBytes(one.body))})
		if !n.stored(t, digest.FromBytes(one.body)) {
			t.Fatal("it was not stored")
		}
	}
	up.wantLog(t, "GET /v1/kube%20ctl")

	two := up.file("/v1/kube%20ctl", 2*mib, 2)
	p.recordFile(n, ledger.Set, "v1/kube ctl", digest.FromBytes(two.body), "")
	n.get(t, "/up/v1/kube%20ctl").wantBytes(t, 200, two.body)
	p.recordFile(n, ledger.Set, "v1/kube ctl", digest.FromBytes(one.body), "rolled back")
	up.Close()
	n.get(t, "/up/v1/kube%20ctl").wantBytes(t, 200, one.body)
}

func TestFileThatIsNotWhatTheLedgerSaysIsNeverWhole(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	up.file("/v1/a", 2*mib, 1)
	want := digest.FromBytes(randomBytes(2*mib, 2))
	p.recordFile(nil, ledger.Set, "v1/a", want, "")
	n := p.startFiles(up.URL)
	if g := n.get(t, "/up/v1/a"); g.err == nil && g.status == 200 {
		t.Errorf("got %v; want a transfer that is cut", g)
	}
	if n.stored(t, want) {
		t.Error("wrong bytes are stored")
	}
}

func TestPromotedContentIsFoundByDigestWhereItsNameHasMovedOn(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	old, moved := randomBytes(2*mib, 1), randomBytes(2*mib, 2)
	d := digest.FromBytes(old)
	up.put("/v1/a", hosted{body: moved, etag: `"2"`, header: http.Header{"Repr-Digest": {reprDigest(digest.FromBytes(moved))}}})
	up.put("/blobs/"+string(d), hosted{body: old, etag: `"1"`})
	p.recordFile(nil, ledger.Set, "v1/a", d, "")
	n := p.startFiles(up.URL)
	n.get(t, "/up/v1/a").wantBytes(t, 200, old)
	n.get(t, "/blobs/"+string(d)).wantBytes(t, 200, old)
}

func TestContentThatIsNotHereIsFetchedByItsDigest(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	body := randomBytes(2*mib, 1)
	d := digest.FromBytes(body)
	up.put("/blobs/"+string(d), hosted{body: body, etag: `"1"`})
	n := p.startFiles(up.URL)
	n.head(t, "/blobs/"+string(d)).wantHeaders(t, map[string]string{"Content-Length": "2097152", "Cache-Control": "max-age=31536000, immutable"})
	n.get(t, "/blobs/sha256%3A"+d.Encoded()).wantBytes(t, 200, body)
	wrong := digest.FromString("wrong")
	up.put("/blobs/"+string(wrong), hosted{body: body, etag: `"1"`})
	if g := n.get(t, "/up/blobs/"+string(wrong)); g.err == nil && g.status == 200 {
		t.Errorf("got %v for content with another digest", g)
	}
	for range 2 {
		if g := n.get(t, "/blobs/"+string(digest.FromString("none"))); g.status != 404 {
			t.Errorf("got %v; want 404", g)
		}
	}
}

func TestDeletedFileIsGoneAndRevokedContentIsForbiddenUnderEveryName(t *testing.T) {
	up, p := newFileServer(t), newProduction(t)
	f := up.file("/v1/a", mib, 1)
	up.put("/plain", f)
	d := digest.FromBytes(f.body)
	p.recordFile(nil, ledger.Set, "v1/a", d, "")
	n := p.startFiles(up.URL)
	n.get(t, "/up/v1/a").wantBytes(t, 200, f.body)
	n.get(t, "/up/plain").wantBytes(t, 200, f.body)
	n.settled(t, "plain")
	p.recordFile(n, ledger.Delete, "v1/a", "", "it has a new home")
	for _, path := range []string{"/up/v1/a", "/up/v1/a?x"} {
		if g := n.get(t, path); g.status != 404 || !bytes.Contains(g.body, []byte("it has a new home")) {
			t.Errorf("%s: %v; want 404 with the reason", path, g)
		}
	}
	p.recordFile(n, ledger.Revoke, string(d), d, "CVE-2026-0001")
	for _, path := range []string{"/up/plain", "/up/blobs/" + string(d), "/blobs/" + string(d)} {
		if g := n.get(t, path); g.status != 451 || !strings.Contains(string(g.body), "CVE-2026-0001") {
			t.Errorf("%s: %v; want 451 with the reason", path, g)
		}
	}
	if n.stored(t, d) {
		t.Error("revoked content is in the store")
	}
}

package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// unstored starts a node that has no room for what a test asks of it, and passes it on.
func unstored(t *testing.T, up *script) *testNode {
	t.Helper()
	return startLimitedNode(t, t.TempDir(), mib, []string{up.URL}, patient)
}

// A client that resumes a download is sent the end of it only when all of it is right,
// whichever byte of it is wrong, and though nothing is stored.
func TestResumedDownloadOfWhatIsNotStoredIsVerifiedWhole(t *testing.T) {
	const size, from = 4 * mib, 2*mib + 5
	up := newScript(t)
	d, body := up.blob(size, 1)
	n := unstored(t, up)
	ranges := map[string][]byte{
		fmt.Sprintf("bytes=%d-", from):                     body[from:],
		fmt.Sprintf("bytes=%d-%d", from, size-1):           body[from:],
		fmt.Sprintf("bytes=%d-%d", from, size-2):           body[from : size-1], // nothing of the last bytes is believed
		"bytes=-1":                                         body[size-1:],
		fmt.Sprintf("bytes=%d-", size-tailSize/2):          body[size-tailSize/2:],
		fmt.Sprintf("bytes=%d-%d", size-tailSize, size-10): body[size-tailSize : size-9],
	}
	for header, want := range ranges {
		n.get(t, blobPath(d), "Range", header).wantBytes(t, http.StatusPartialContent, want)
	}
	for name, wrong := range map[string]int{"before the range": mib, "in the range": 3 * mib, "in the tail": size - 20, "the last": size - 1, "the first": 0} {
		t.Run(name, func(t *testing.T) {
			// Each time another blob, and another node, which has no opinion of upstream yet.
			d, body := up.blob(size, uint64(2+wrong))
			n := unstored(t, up)
			up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
				bad := bytes.Clone(body)
				bad[wrong] ^= 1
				up.serve(w, r, served{body: bad})
				return true
			})
			defer up.do(nil)
			for header := range ranges {
				n.get(t, blobPath(d), "Range", header).wantCut(t)
			}
			// With several parts, too.
			n.get(t, blobPath(d), "Range", fmt.Sprintf("bytes=0-9,%d-%d,%d-", mib, mib+9, from)).wantCut(t)
		})
	}
}

// A part that comes again to a verified end is verified by itself: its bytes are of
// another answer of upstream.
func TestPartsOfOneResponseAreEachVerified(t *testing.T) {
	const size = 4 * mib
	for name, wrong := range map[string]int{"in what is new": 2 * mib, "in nothing": -1} {
		t.Run(name, func(t *testing.T) {
			up := newScript(t)
			d, body := up.blob(size, uint64(3+wrong))
			n := unstored(t, up)
			header := fmt.Sprintf("bytes=%d-,100000-%d", size-tailSize, size-tailSize+9)
			whole := 0
			up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
				if r.Header.Get("Range") == "" {
					whole++
				}
				bad := bytes.Clone(body)
				if wrong >= 0 && whole > 2 { // the fill's, and that of the first part, are right
					bad[wrong] ^= 1
				}
				up.serve(w, r, served{body: bad})
				return true
			})
			if got := n.get(t, blobPath(d), "Range", header); (got.err == nil) != (wrong < 0) {
				t.Errorf("got %v", got)
			}
		})
	}
}

// What ends before the end of the blob completes nothing: it costs what it has.
func TestRangeInTheMiddleOfWhatIsNotStoredIsFetchedAlone(t *testing.T) {
	up := newScript(t)
	d, body := up.blob(4*mib, 1)
	n := unstored(t, up)
	n.get(t, blobPath(d), "Range", "bytes=1000000-1000099").wantBytes(t, http.StatusPartialContent, body[1000000:1000100])
	if log := up.log(); !strings.Contains(log[len(log)-1], " bytes=1000000-") {
		t.Errorf("upstream was asked %q", log)
	}
}

// A fill begins from byte 0, and so has verified what it gives to who wants the end; a
// range that is fetched beside it has not.
func TestWhoResumesNearTheEndOfAColdBlobWaitsForItToBeVerified(t *testing.T) {
	up, g := newScript(t), newGate()
	d, body := up.blob(32*mib, 1)
	up.do(func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Header.Get("Range") != "" { // as a source that is not to be trusted would
			up.serve(w, r, served{body: make([]byte, len(body))})
			return true
		}
		g.hold(w, r, body, mib)
		return true
	})
	n := startNode(t, t.TempDir(), []string{up.URL}, patient)
	resp := n.open(t, blobPath(d), "Range", "bytes=33000000-")
	g.open()
	if got, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(got, body[33000000:]) {
		t.Errorf("got %d with %d bytes, %v", resp.StatusCode, len(got), err)
	}
}

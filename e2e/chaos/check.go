package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"entrepot/blobstore/pause"
	"entrepot/e2e/testenv"

	"github.com/minio/minio-go/v7"
	"github.com/opencontainers/go-digest"
)

// recoverWithin is for how long after the last fault a name may not be served.
const recoverWithin = 10 * time.Second

// recovered waits until every name is served, by each node and by the router in
// each region, and says how long that took.
func (w *world) recovered() time.Duration {
	start := time.Now()
	var waiting sync.WaitGroup
	var lastly atomic.Int64 // nanoseconds
	for _, i := range w.catalog.items() {
		if !i.name {
			continue
		}
		for _, url := range w.urls(i) {
			waiting.Go(func() {
				for time.Since(start) < time.Minute && w.t.Context().Err() == nil {
					if ok, _ := w.serves(url, i); ok {
						break
					}
					_ = pause.For(w.t.Context(), 100*time.Millisecond)
				}
				took := int64(time.Since(start))
				for seen := lastly.Load(); took > seen && !lastly.CompareAndSwap(seen, took); seen = lastly.Load() {
				}
				if time.Duration(took) > recoverWithin && w.t.Context().Err() == nil {
					w.tally.add(late, 1)
					w.t.Errorf("%s was served %.1f s after the last fault", url, time.Duration(took).Seconds())
				}
			})
		}
	}
	waiting.Wait()
	return time.Duration(lastly.Load())
}

// serves says whether an item is served whole and right, and else why not.
func (w *world) serves(url string, i item) (bool, string) {
	ctx, cancel := context.WithTimeout(w.t.Context(), stuckAfter)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return false, err.Error()
	}
	req.Header.Set("Accept", acceptAll)
	req.Close = true
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return false, err.Error()
	case response.StatusCode != http.StatusOK:
		return false, fmt.Sprintf("%s: %s", response.Status, body)
	case !bytes.Equal(body, i.body):
		w.tally.add(wrongBytes, 1)
		w.t.Errorf("%s: a complete answer has %d wrong bytes", url, len(body))
		return false, "wrong bytes"
	}
	return true, ""
}

// servesSoon is serves, tried for as long as a node may leave a bucket alone that did
// not answer in time.
func (w *world) servesSoon(url string, i item) (ok bool, why string) {
	for start := time.Now(); time.Since(start) < recoverWithin; {
		if ok, why = w.serves(url, i); ok || pause.For(w.t.Context(), 200*time.Millisecond) != nil {
			break
		}
	}
	return ok, why
}

// nodeURL is an item at a node, past all links.
func nodeURL(r *testenv.Region, i item) string { return r.Node.URL() + i.path }

// wholePass pulls everything from each node, which now has to have or get it, and
// returns what is on each node's disk then.
func (w *world) wholePass() {
	for n := range w.Regions {
		r := &w.Regions[n]
		for _, i := range w.catalog.items() {
			if ok, why := w.serves(nodeURL(r, i), i); !ok {
				w.tally.add(lostNames, 1)
				w.t.Errorf("%s does not serve %s, with no fault left: %s", r.Name, i.path, why)
			}
		}
	}
}

// pushesAreKept checks that the origin has all that it acknowledged, also after it
// was killed once more.
func (w *world) pushesAreKept(acked []item) {
	w.Origin.Process().Kill()
	w.Origin.Process().Restart()
	for _, i := range acked {
		if ok, why := w.serves(w.Origin.URL()+i.path, i); !ok {
			w.tally.add(lostNames, 1)
			w.t.Errorf("the origin acknowledged %s and does not have it: %s", i.path, why)
		}
	}
}

// blobsAreKept kills each node in a moment of peace, cuts it off from upstream, and
// checks that it still serves what it had stored, and not evicted.
func (w *world) blobsAreKept() {
	w.awaitUploads()
	stored := map[string]map[string]bool{}
	for _, r := range w.Regions {
		stored[r.Name] = w.storedHex(r.Name)
	}
	for _, name := range []string{"us", "eu", "jp"} {
		w.countStore(name)
		w.links[name+"-origin"].Close()
		w.links[name+"-registry"].Close()
		w.processes[name].Kill()
		w.processes[name].Restart()
	}
	for n := range w.Regions {
		r := &w.Regions[n]
		kept := 0
		for _, i := range w.catalog.items() {
			hex := i.hex()
			if !stored[r.Name][hex] {
				continue
			}
			if ok, why := w.servesSoon(nodeURL(r, i), i); !ok {
				w.tally.add(lostBlobs, 1)
				w.t.Errorf("%s lost %s (%s): %s\n%s; it said:\n%s", r.Name, i.path, hex, why, w.inBucket(hex), w.saidOf(r.Name, hex))
				continue
			}
			kept++
		}
		w.tally.add("served with upstream down by "+r.Name, int64(kept))
	}
	for _, name := range []string{"us", "eu", "jp"} {
		w.links[name+"-origin"].Open()
		w.links[name+"-registry"].Open()
	}
}

// saidOf is the end of what a process said about something.
func (w *world) saidOf(process, what string) string {
	var lines []string
	for line := range strings.Lines(w.processes[process].Log()) {
		if strings.Contains(line, what) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

// storedHex are the blobs that a node has to have: what lies in its directory, and in
// its bucket. What the suite has damaged there, and nobody has read since, is not the
// node's to keep; nor is what the limit of a directory evicted before it was uploaded.
func (w *world) storedHex(region string) map[string]bool {
	stored := map[string]bool{}
	for _, path := range storedBlobs(w.dirs[region]) {
		hex := filepath.Base(filepath.Dir(path))
		content, err := os.ReadFile(path)
		isRight := err == nil && digest.FromBytes(content).Encoded() == hex
		if isRight || !w.damaged[region][hex] {
			stored[hex] = true
		}
	}
	if region != "eu" {
		return stored
	}
	for _, i := range w.catalog.items() {
		hex := i.hex()
		if stored[hex] {
			continue
		}
		switch there := w.inBucket(hex); there {
		case rightThere:
			stored[hex] = true
		case absentThere:
			w.tally.add(evictedEarly, 1)
			w.t.Logf("eu has %s neither in its directory nor in its bucket; it said:\n%s", hex, w.saidOf("eu", hex))
		default:
			stored[hex] = !w.damaged[bucketOwner][hex]
		}
	}
	return stored
}

// What the bucket has for a blob.
const (
	rightThere  = "it is in the bucket"
	wrongThere  = "the bucket has other bytes"
	absentThere = "it is not in the bucket"
)

func (w *world) inBucket(hex string) string {
	object, err := w.s3.Client(w.t).GetObject(w.t.Context(), w.bucket, "blobs/sha256/"+hex[:2]+"/"+hex+"/data", minio.GetObjectOptions{})
	if err != nil {
		return err.Error()
	}
	defer object.Close()
	content, err := io.ReadAll(object)
	switch {
	case minio.ToErrorResponse(err).Code == "NoSuchKey":
		return absentThere
	case err != nil:
		return err.Error()
	case digest.FromBytes(content).Encoded() != hex:
		return wrongThere
	}
	return rightThere
}

// awaitUploads waits until the bucket has what the node before it has stored.
func (w *world) awaitUploads() {
	queue := filepath.Join(w.dirs["eu"], "records", "upload")
	w.until("the bucket has everything", 90*time.Second, func() bool {
		left := 0
		// What is done meanwhile is not there.
		_ = filepath.WalkDir(queue, func(_ string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				left++
			}
			return nil
		})
		return left == 0
	})
}

// until waits for something that has to become true.
func (w *world) until(what string, patience time.Duration, done func() bool) bool {
	for start := time.Now(); !done(); {
		if time.Since(start) > patience || pause.For(w.t.Context(), 100*time.Millisecond) != nil {
			w.t.Errorf("after %v it is not so that %s", patience, what)
			return false
		}
	}
	return true
}

// storesAreSound stops the nodes and the origin, and has their stores scrubbed and
// then checked, as an operator would. Scrubbing finds what was damaged and never
// asked for again; nothing may be left of what was cut short.
func (w *world) storesAreSound() {
	for _, name := range []string{"us", "eu", "jp", "origin"} {
		w.processes[name].Stop()
	}
	for name, dir := range w.dirs {
		// Status 1 says that it found something, which the suite has done.
		_, _ = w.command("store", "scrub", dir).CombinedOutput()
		said, err := w.command("store", "check", "--deep", dir).CombinedOutput()
		if err != nil {
			w.tally.add(leaks, 1)
			w.t.Errorf("the store in %s is not as it should be: %v\n%s", name, err, said)
		}
		left, _ := filepath.Glob(filepath.Join(dir, "spool", "tmp-*"))
		w.tally.add(leaks, int64(len(left)))
		if len(left) > 0 {
			w.t.Errorf("left in %s: %s", name, strings.Join(left, " "))
		}
	}
}

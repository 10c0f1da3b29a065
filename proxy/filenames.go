package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"entrepot/proxy/upstream"
	"entrepot/registry"

	"github.com/opencontainers/go-digest"
)

// Records of what a name led to: files/<upstream>/<sha256 of path and query>, and
// queries/… of names with a query, of which anybody can invent as many as they like.
const (
	fileRecords  = "files"
	queryRecords = "queries"
)

// maxFiles bounds the names of files that are remembered in memory.
const maxFiles = 16384

// fileVersion is what the name of a file leads to: content, and what upstream
// said of it. It is immutable; its content may still be on its way.
type fileVersion struct {
	meta      *fileMeta
	digest    digest.Digest // "" while it is not known
	fill      *fill         // what brings the content, where digest is ""
	described registry.File // as clients are told of it, without Content

	checked   time.Time     // when upstream last said that it is the newest
	aged      time.Duration // for how long others had kept what it said then
	kept      time.Duration // for how long a peer had, from which it is
	fresh     time.Duration // for how long, where said
	said      bool
	transient bool // upstream does not want it kept

	reader   *fillReader  // keeps the fill going; nil but for what started it
	previous *fileVersion // which counts again if this one cannot be had; nil for none
}

// newFileVersion is the version of meta, whose digest and size may be known.
func newFileVersion(meta *fileMeta, d digest.Digest, size int64) *fileVersion {
	return &fileVersion{meta: meta, digest: d, described: meta.described(d, size), checked: time.Now()}
}

// hold notes for how long upstream says that a version holds.
func (v *fileVersion) hold(up *upstreamState, h http.Header, age string, date time.Time) {
	v.fresh, v.said, v.transient = freshness(h, age, date)
	v.aged = parseAge(age)
	if v.transient && up.files.minTTL > 0 {
		v.transient = false
	}
}

// canTell reports that a version is fresh, or can be checked without fetching it.
func (v *fileVersion) canTell(policy *Policy, rules *fileRules) bool {
	rule := rules.rule(v, policy)
	return v.meta.hasValidators() || rule.decide(time.Since(v.checked)) == serve
}

// fileRecord is the JSON value of a record of a file.
type fileRecord struct {
	Path    string        `json:"path"` // for people
	Digest  digest.Digest `json:"digest"`
	Meta    *fileMeta     `json:"meta"`
	Checked time.Time     `json:"checked"`
	Aged    int64         `json:"aged,omitempty"`  // seconds
	Fresh   int64         `json:"fresh,omitempty"` // seconds
	Said    bool          `json:"said,omitempty"`
}

// fileRecordKey is where a name's record lies. A path can be longer than a
// record's key.
func fileRecordKey(key nameKey) string {
	kind := fileRecords
	if key.ref != "" {
		kind = queryRecords
	}
	return kind + "/" + key.up.name + "/" + digest.FromString(key.repo+"?"+key.ref).Encoded()
}

func (n *Node) newFileNames() *names[*fileVersion] {
	t := newNames[*fileVersion](maxFiles)
	t.spawn = n.spawn
	t.check = n.checkFile
	t.settled = n.fileSettled
	t.rule = func(key nameKey, v *fileVersion, p *Policy) Policy { return key.up.files.rule(v, p) }
	t.equal = func(a, b *fileVersion) bool { return a.digest != "" && a.digest == b.digest && a.meta == b.meta }
	t.load = func(key nameKey) (*fileVersion, time.Time, bool, error) {
		var r fileRecord
		if !n.readRecord(fileRecordKey(key), &r) || r.Digest.Validate() != nil || r.Meta == nil || r.Meta.Size < 0 {
			return nil, time.Time{}, false, nil //nolint:nilerr // one that makes no sense is none
		}
		v := newFileVersion(r.Meta, r.Digest, r.Meta.Size)
		v.checked, v.said, v.fresh = r.Checked, r.Said, time.Duration(min(r.Fresh, maxSeconds))*time.Second
		v.aged = time.Duration(min(max(0, r.Aged), maxSeconds)) * time.Second
		return v, r.Checked, true, nil
	}
	t.save = func(key nameKey, v *fileVersion, checked time.Time, changed bool) {
		if v.digest == "" || v.transient {
			return
		}
		n.writeRecord(fileRecordKey(key), fileRecord{
			Path: key.repo + query(key.ref), Digest: v.digest, Meta: v.meta, Checked: checked,
			Aged: int64(v.aged / time.Second), Fresh: int64(v.fresh / time.Second), Said: v.said,
		}, changed)
	}
	t.drop = func(key nameKey) { n.dropRecord(fileRecordKey(key)) }
	t.touch = func(key nameKey) { n.touchRecord(fileRecordKey(key)) }
	return t
}

func query(q string) string {
	if q == "" {
		return ""
	}
	return "?" + q
}

// checkFile asks upstream what a name leads to. A version that is not here
// counts from its headers on, while its content is on its way.
func (n *Node) checkFile(ctx context.Context, key nameKey, old *fileVersion, known, _ bool) (*fileVersion, error) {
	switch {
	case !known || old.transient:
		return n.fetchFile(ctx, key, nil)
	case !old.meta.hasValidators():
		return n.fetchFile(ctx, key, old)
	}
	v, err := n.revalidate(ctx, key, old)
	if v != nil || err != nil {
		return v, err
	}
	return n.fetchFile(ctx, key, old)
}

// revalidate asks whether a version is still the newest, and returns nil when it
// is not. It asks with HEAD, of which upstream sends no content, and with GET where
// that is refused: not every server knows HEAD, and where it redirects to may be
// signed for GET only.
func (n *Node) revalidate(ctx context.Context, key nameKey, old *fileVersion) (*fileVersion, error) {
	header := make(http.Header)
	if tag := old.meta.etag(); tag != "" {
		header.Set("If-None-Match", tag)
	}
	if date := old.meta.lastModified(); date != "" {
		header.Set("If-Modified-Since", date)
	}
	req := &upstream.Request{Method: http.MethodHead, Path: key.repo, Query: key.ref, Header: header, Small: true}
	resp, err := key.up.client.Do(ctx, req)
	if ue, ok := errors.AsType[*upstream.Error](err); ok && (isRefusal(err) || ue.Kind == upstream.Invalid && ue.Status >= http.StatusBadRequest) {
		req.Method = http.MethodGet
		resp, err = key.up.client.Do(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotModified {
		now := newFileMeta(resp.Response, resp.TotalSize)
		if !old.meta.sameVersion(now, false) || now.Size >= 0 && old.meta.Size >= 0 && now.Size != old.meta.Size {
			return nil, nil //nolint:nilnil // as documented
		}
	}
	v := newFileVersion(old.meta.renewed(resp.Response), old.digest, old.described.Size)
	v.fill, v.previous = old.fill, old.previous
	v.hold(key.up, v.meta.Header, resp.Header.Get("Age"), date(resp.Header))
	return v, nil
}

// date is when an answer was made.
func date(h http.Header) time.Time {
	t, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return time.Now()
	}
	return t
}

// fetchFile starts the fill of the version that upstream has now, and returns
// once it is known which that is.
func (n *Node) fetchFile(ctx context.Context, key nameKey, old *fileVersion) (*fileVersion, error) {
	from := newFileSource(key.up, key.repo, key.ref, "", nil)
	sources := []source{from}
	if n.region != nil && old == nil {
		sources = []source{&peerVersion{region: n.region, uri: key.fileURI(), of: from}, from}
	}
	r, err := n.fills.start(ctx, &fileGoal{source: from, distrusts: n.holders != nil}, sources)
	if err != nil {
		return nil, err
	}
	size, err := r.ready(ctx)
	d, told := isTold(err)
	if err != nil && !told {
		_ = r.Close()
		return nil, err
	}
	meta := from.meta()
	if told {
		info, err := n.local.Stat(ctx, d)
		_ = r.Close()
		if err != nil {
			return nil, fmt.Errorf("looking for %s: %w", d, err)
		}
		size = info.Size
		meta = meta.sized(size)
	}
	v := newFileVersion(meta, d, size)
	aged, kept := from.age()
	v.hold(key.up, meta.Header, aged, meta.Date)
	v.kept = kept
	if !told {
		v.fill, v.previous = r.fill, old
		v.reader = r
	}
	return v, nil
}

// fileSettled sees to a version whose content is on its way. A name's first is
// waited for by requests, which keep its fill going; one that takes the place of
// another is fetched to its end in any case.
func (n *Node) fileSettled(key nameKey, v *fileVersion) {
	switch {
	case v.digest != "":
		return
	case v.reader == nil: // one that a check found to be the newest still
		select {
		case <-v.fill.finished: // while it did: who waited for that saw the one before
			n.fileArrived(key, v)
		default:
		}
		return
	}
	watched := n.spawn(func(ctx context.Context) {
		if v.previous == nil {
			_ = v.reader.Close()
		}
		select {
		case <-v.fill.finished:
			n.fileArrived(key, v) //nolint:contextcheck // for all
		case <-ctx.Done():
		}
		_ = v.reader.Close()
	})
	if !watched {
		_ = v.reader.Close()
	}
}

// fileArrived has a name lead to the content that its fill brought, or to what
// it led to before if the fill failed. Call it when the fill has finished.
func (n *Node) fileArrived(key nameKey, v *fileVersion) {
	f := v.fill
	f.mu.Lock()
	sum, size, verified, err := f.sum, f.size, f.verified && !f.direct, f.err
	f.mu.Unlock()
	is := func(now *fileVersion) bool { return now.fill == f }
	if !verified {
		before := v.previous
		if err == nil {
			err = errAbandoned
		}
		if before == nil {
			n.files.change(key, is, nil, false, time.Time{}, err)
			return
		}
		n.files.change(key, is, before, true, before.checked, err)
		return
	}
	now, known := n.files.peek(key)
	if !known || !is(now) {
		now = v
	}
	if now.transient { // not to be kept; who reads it reads on
		n.memory.Remove(sum)
		if err := ignoreAbsent(n.local.Delete(context.Background(), sum)); err != nil {
			n.log.Error("removing a file that upstream does not want kept", "content", f.goal.String(), "error", err)
		}
		n.files.change(key, is, nil, false, time.Time{}, nil)
		return
	}
	arrived := newFileVersion(now.meta.sized(size), sum, size)
	arrived.checked, arrived.aged, arrived.kept, arrived.fresh, arrived.said = now.checked, now.aged, now.kept, now.fresh, now.said
	n.files.change(key, is, arrived, true, now.checked, nil)
}

// headFile describes a file of which nothing is known here. It is asked for again
// each time: what is kept is what was downloaded.
func (n *Node) headFile(ctx context.Context, key nameKey) (*fileMeta, error) {
	m, _, err := n.fileHeads.do(ctx, n, key, true, func(ctx context.Context) (*fileMeta, error) {
		resp, err := key.up.client.Do(ctx, &upstream.Request{Method: http.MethodHead, Path: key.repo, Query: key.ref, Small: true})
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		return newFileMeta(resp.Response, resp.TotalSize), nil
	})
	return m, err
}

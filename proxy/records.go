package proxy

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// defaultMaxNames is how many records of one kind are kept, unless configured.
	defaultMaxNames = 250_000
	// trimInterval is how often records are counted, though few were written.
	trimInterval = 6 * time.Hour
	// sweepInterval is how often the records in the bucket are counted, though few were
	// written.
	sweepInterval = 24 * time.Hour
	// touchInterval is how old the time may be at which a name in use was last
	// noted to be.
	touchInterval = 24 * time.Hour
)

// keeper bounds the records of names, of each kind by itself, so that those which
// anybody can invent push none of the others out. What is used least lately goes
// first. A name whose record is gone is asked for upstream again; its content is
// still here.
//
// A bucket is bounded in the same way, for each upstream by itself, by when records were
// written: other nodes use them, and a bucket does not say when. What this node uses
// stays there.
type keeper struct {
	most   int
	kinds  []*keptRecords
	wanted chan struct{} // a kind may have too many
	sent   atomic.Int64  // records, to the bucket, since it was swept
	sweep  chan struct{} // the bucket may have too many
}

// keptRecords are those of one kind.
type keptRecords struct {
	kind  string
	spare func(key string) bool // these stay, however old
	count atomic.Int64          // counted, and written since: not less than there are
}

// newKeeper bounds the records that the node writes.
func (n *Node) newKeeper(most int) *keeper {
	no := func(string) bool { return false }
	k := &keeper{most: most, wanted: make(chan struct{}, 1), sweep: make(chan struct{}, 1)}
	for kind, spare := range map[string]func(string) bool{
		tagRecords: no, manifestRecords: n.needsManifest, listRecords: no, referrerRecords: no,
		fileRecords: no, queryRecords: no, holderRecords: n.needsHolder, fileHolderRecords: n.needsHolder,
		uploadRecords: isBlobToUpload,
	} {
		k.kinds = append(k.kinds, &keptRecords{kind: kind, spare: spare})
	}
	return k
}

// isBlobToUpload says whether what the bucket lacks is content, of which there is no more
// than the directory holds.
func isBlobToUpload(key string) bool {
	_, err := digest.Parse(strings.TrimPrefix(key, uploadRecords+"/"))
	return err == nil
}

// needsManifest says whether a manifest is promoted content, which is to be here
// whatever becomes of upstream, or was asked for lately.
func (n *Node) needsManifest(key string) bool {
	rest, _ := strings.CutPrefix(key, manifestRecords+"/")
	name, rest, _ := strings.Cut(rest, "/")
	at := strings.LastIndexByte(rest, '/')
	up := n.upstreams[name]
	if up == nil || at < 0 {
		return false
	}
	return up.ledger.Ledger != nil || n.manifests.Contains(nameKey{up, rest[:at], rest[at+1:]})
}

// needsHolder says whether nobody can be asked again which repository holds a blob: its
// upstream is without a network. Elsewhere that costs one HEAD.
func (n *Node) needsHolder(key string) bool {
	_, rest, _ := strings.Cut(key, "/")
	name, _, _ := strings.Cut(rest, "/")
	for _, up := range []*upstreamState{n.upstreams[name], n.fileUpstreams[name]} {
		if up != nil && up.client.Offline() {
			return true
		}
	}
	return false
}

// wrote counts a record that may be new.
func (k *keeper) wrote(key string) {
	kind, _, _ := strings.Cut(key, "/")
	for _, r := range k.kinds {
		if r.kind == kind && r.count.Add(1) > int64(k.most) {
			want(k.wanted)
		}
	}
	if k.sent.Add(1) > int64(k.most) {
		want(k.sweep)
	}
}

func want(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keepRecords counts records, and deletes those that are too many, until ctx ends.
func (n *Node) keepRecords(ctx context.Context) {
	tick := time.NewTicker(trimInterval)
	defer tick.Stop()
	for {
		n.trimAll(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.keeper.wanted:
		}
	}
}

// keepRemoteRecords counts the records in the bucket, and deletes those that are too many,
// until ctx ends. Nodes that share a bucket do so at different times.
func (n *Node) keepRemoteRecords(ctx context.Context) {
	for {
		tick := time.NewTimer(sweepInterval/2 + rand.N(sweepInterval)) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		case <-n.keeper.sweep:
			tick.Stop()
		}
		n.keeper.sent.Store(0)
		n.sweepRemote(ctx)
	}
}

// sweepRemote deletes the records that are too many in the bucket, of this node's
// upstreams: others may have theirs there, and so may an origin.
func (n *Node) sweepRemote(ctx context.Context) {
	for up := range n.all() {
		for _, r := range n.keeper.kinds {
			if r.kind == uploadRecords || !n.remote.up() {
				continue
			}
			spare := func(key string) bool {
				_, err := n.local.Record(ctx, key)
				return err == nil || r.spare(key)
			}
			left, deleted, err := n.remote.store.TrimRecords(ctx, r.kind+"/"+up.name, n.keeper.most, spare)
			n.remote.observe(ctx, err)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				n.log.Error("counting records in the bucket", "kind", r.kind, "upstream", up.name, "error", err)
			case deleted > 0:
				n.log.Warn("removed names from the bucket that were written first: there are more than max_names",
					"kind", r.kind, "upstream", up.name, "removed", deleted, "left", left)
			}
		}
	}
}

func (n *Node) trimAll(ctx context.Context) {
	for _, r := range n.keeper.kinds {
		n.trim(ctx, r)
	}
}

func (n *Node) trim(ctx context.Context, r *keptRecords) {
	before := r.count.Load()
	left, deleted, err := n.local.TrimRecords(ctx, r.kind, n.keeper.most, r.spare)
	if err != nil {
		if ctx.Err() == nil {
			n.log.Error("counting records", "kind", r.kind, "error", err)
		}
		return
	}
	r.count.Add(int64(left) - before) // what was written meanwhile stays counted
	if deleted > 0 {
		n.log.Warn("forgot names that were used least lately: there are more than max_names", "kind", r.kind, "forgotten", deleted, "left", left)
	}
}

// metrics tell how many records there are.
func (k *keeper) metrics() (all []prometheus.Collector) {
	for _, r := range k.kinds {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "entrepot_store_records",
			Help:        "Records of names in the directory, by what they are of; after a write of a known name up to that many more, until they are counted again.",
			ConstLabels: prometheus.Labels{"kind": r.kind},
		}, func() float64 { return float64(r.count.Load()) }))
	}
	return all
}

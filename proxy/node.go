package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"entrepot/blobstore"
	"entrepot/proxy/loop"
	"entrepot/proxy/peers"
	"entrepot/proxy/upstream"
	"entrepot/registry"
	"entrepot/registry/admission"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
)

// Bounds of what is remembered in memory besides the memory tier. What falls
// out is read from the store again.
const (
	maxTags      = 16384
	maxManifests = 16384
	maxSizes     = 16384
	maxLists     = 64
	maxAbsent    = 16384
	maxRemoteHas = 16384
	maxDoubts    = 1024
)

// UpstreamConfig is one upstream of a node.
type UpstreamConfig struct {
	upstream.Config
	// Policy is for tags and lists; Config.Observe is set by the node.
	Policy Policy
	// Ledger, when its Ledger is set, says what names the upstream has.
	Ledger LedgerConfig
	// Private says that not everybody may read what the upstream has. A node with
	// such an upstream serves content by digest only as part of what is known to
	// hold it, whichever upstream that is of.
	Private bool
}

// Config is what a node is made of.
type Config struct {
	// Local is the directory that spools fills and keeps blobs: the store
	// itself, or a disk tier in front of Remote.
	Local *blobstore.Dir
	// Remote is the store shared by nodes; nil where Local is the store.
	Remote RemoteStore
	// RedirectExpiry, when positive, has clients fetch what Local lacks and
	// Remote has from Remote itself, at a URL that holds for so long.
	RedirectExpiry time.Duration
	// Memory is the tier for manifests and small blobs.
	Memory *blobstore.Memory
	// Upstreams are the registries that are served. Their names are distinct.
	Upstreams []UpstreamConfig
	// Default is the name of the upstream for requests that name none; empty
	// refuses them.
	Default string
	// Files are the file servers that are served. Their names are distinct.
	Files []FileUpstreamConfig
	// DefaultFiles is the name of that for paths that name none; empty refuses
	// them.
	DefaultFiles string
	// MaxFills bounds the fills that run at once; 0 means 256. Others wait, at
	// most MaxFillsWaiting of them, 0 meaning 4096, each for MaxFillWait, 0
	// meaning 20 s; requests to one upstream wait for as long. All of it is shared
	// by clients (see package admission). Negative is without limit.
	MaxFills, MaxFillsWaiting int
	MaxFillWait               time.Duration
	// ID is the node's own, which no other has; empty has it keep a random one in
	// Local.
	ID string
	// Peers are the other nodes of the region; nil for a node on its own. ID and
	// Progress are set by the node, and Logger and Registerer where they are empty.
	Peers *peers.Config
	// MaxNames bounds the records of each kind that are kept about names: of tags,
	// manifests, lists, files. 0 means 250,000.
	MaxNames int
	// ListMemory bounds, in bytes, lists of tags and of referrers in memory, wherever
	// they are; 0 means 192 MiB. What is beyond it is answered with 503.
	ListMemory int64
	// VerifyReads has blobs hashed while they are read from Local, too. It
	// costs the kernel's sending of files, and a range the reading of the whole
	// blob every ten minutes.
	VerifyReads bool
	// Logger is for what an operator should know; nil discards.
	Logger *slog.Logger
	// Registerer takes the metrics; nil leaves them out.
	Registerer prometheus.Registerer
}

// upstreamState is an upstream with its policy.
type upstreamState struct {
	name    string
	client  *upstream.Upstream
	policy  Policy
	ledger  LedgerConfig
	private bool
	doubts  *lru.Cache[doubt, time.Time] // when the endpoint sent wrong bytes
	files   *fileRules                   // of a file server; nil for a registry
}

// Node is a pull-through registry, and file server. It implements
// registry.Backend and registry.FileBackend.
type Node struct {
	local          *blobstore.Dir
	remote         *remoteStore
	memory         *blobstore.Memory
	redirectExpiry time.Duration
	log            *slog.Logger

	upstreams map[string]*upstreamState
	fallback  *upstreamState

	fileUpstreams map[string]*upstreamState
	fileFallback  *upstreamState
	files         *names[*fileVersion]
	fileHeads     flights[*fileMeta]

	tags            *names[*registry.ManifestHead]
	lists           *names[[]string]
	referrers       *names[[]ocispec.Descriptor]
	listMemory      *listMemory
	listLoading     chan struct{} // holds one for each record of a list that is being read
	manifests       *lru.Cache[nameKey, *registry.ManifestHead]
	manifestFlights flights[*registry.Manifest]
	sizes           sizes
	absent          absences
	holders         *holders                             // nil where no upstream is private
	remoteHas       *lru.Cache[digest.Digest, int64]     // its size, in bytes
	resettled       *lru.Cache[digest.Digest, time.Time] // what only memory had, and when it was stored again
	fills           *fillSet
	reads           *readVerifier // nil unless reads are verified
	region          *region       // nil without peers
	id              string
	metrics         *metrics

	keeper *keeper

	base    context.Context // of background work
	endBase context.CancelFunc
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

// New makes a node. It asks no upstream: those may be down.
func New(cfg Config) (*Node, error) {
	n := &Node{
		local:          cfg.Local,
		memory:         cfg.Memory,
		redirectExpiry: cfg.RedirectExpiry,
		log:            cfg.Logger,
		upstreams:      make(map[string]*upstreamState),
		fileUpstreams:  make(map[string]*upstreamState),
	}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	labels := []string{"store"}
	if cfg.Peers != nil {
		labels = append(labels, peerLabel)
	}
	for _, uc := range cfg.Upstreams {
		labels = append(labels, uc.Name)
	}
	for _, fc := range cfg.Files {
		labels = append(labels, fc.Name)
	}
	cfg.setDefaults()
	slots := admission.NewQueue(admission.QueueConfig{
		What: "downloads from upstream", Places: cfg.MaxFills, Waiting: cfg.MaxFillsWaiting, Patience: cfg.MaxFillWait,
	})
	m := newMetrics(cfg.Registerer, labels, slots)
	n.metrics = m
	if n.id = cfg.ID; n.id == "" {
		n.id = n.ownID()
	}
	if err := errors.Join(n.addUpstreams(&cfg, m), n.addFileUpstreams(&cfg, m)); err != nil {
		n.closeUpstreams()
		return nil, err
	}
	if cfg.Peers != nil {
		if err := n.openRegion(&cfg); err != nil {
			n.closeUpstreams()
			return nil, err
		}
	}
	n.base, n.endBase = context.WithCancel(context.Background())
	n.keeper = n.newKeeper(cfg.MaxNames)
	if cfg.Registerer != nil {
		cfg.Registerer.MustRegister(n.keeper.metrics()...)
	}
	n.remote = newRemoteStore(cfg.Remote, cfg.Local, n.log)
	watchRemote(cfg.Registerer, n.remote)
	n.fills = newFillSet(cfg.Local, slots, n.log, m, n.blobStored)
	n.tags = n.newTags()
	n.files = n.newFileNames()
	n.listLoading = make(chan struct{}, listLoads)
	n.listMemory = &listMemory{most: cfg.ListMemory, drop: func() { n.lists.entries.Purge(); n.referrers.entries.Purge() }}
	n.lists = newLists(n, listRecords, tagWeight, func(a, b string) bool { return a == b }, n.fetchTags)
	n.referrers = newLists(n, referrerRecords, descriptorWeight, sameDescriptor, n.fetchReferrers)
	n.manifests = newLRU[nameKey, *registry.ManifestHead](maxManifests)
	n.sizes = sizes{newLRU[nameKey, int64](maxSizes)}
	n.absent = absences{newLRU[nameKey, absence](maxAbsent)}
	n.holders = newHolders(n)
	n.remoteHas = newLRU[digest.Digest, int64](maxRemoteHas)
	n.resettled = newLRU[digest.Digest, time.Time](maxSettled)
	if cfg.VerifyReads {
		n.reads = newReadVerifier(cfg.Local, n.log, n.spawn)
	}
	if n.remote != nil {
		for range uploaders {
			n.spawn(n.remote.work)
		}
		n.spawn(n.remote.resume)
		n.spawn(n.keepRemoteRecords)
	}
	if n.region != nil {
		n.spawn(n.region.group.Run)
	}
	n.spawn(n.removeRevoked)
	n.spawn(n.keepRecords)
	return n, nil
}

func (c *Config) setDefaults() {
	if c.MaxFills <= 0 {
		c.MaxFills = 256
	}
	c.MaxNames = cmp.Or(c.MaxNames, defaultMaxNames)
	c.ListMemory = cmp.Or(c.ListMemory, defaultListMemory)
	c.MaxFillsWaiting = max(0, cmp.Or(c.MaxFillsWaiting, 4096))
	c.MaxFillWait = max(0, cmp.Or(c.MaxFillWait, 20*time.Second))
}

func (n *Node) addUpstreams(cfg *Config, m *metrics) error {
	for _, uc := range cfg.Upstreams {
		if n.upstreams[uc.Name] != nil {
			return fmt.Errorf("upstream %s is configured twice", uc.Name)
		}
		uc.LoopID = n.id
		uc.Observe, uc.Patience = m.observe(uc.Name), cfg.MaxFillWait
		client, err := upstream.New(uc.Config)
		if err != nil {
			return fmt.Errorf("upstream %s: %w", uc.Name, err)
		}
		if uc.Offline {
			uc.Policy.TTL = forever // there is nobody to check with
		}
		n.upstreams[uc.Name] = &upstreamState{
			name: uc.Name, client: client, policy: uc.Policy, ledger: uc.Ledger, private: uc.Private,
			doubts: newLRU[doubt, time.Time](maxDoubts),
		}
	}
	if cfg.Default == "" {
		return nil
	}
	if n.fallback = n.upstreams[cfg.Default]; n.fallback == nil {
		return fmt.Errorf("the default upstream %s is not configured", cfg.Default)
	}
	return nil
}

func (n *Node) addFileUpstreams(cfg *Config, m *metrics) error {
	for _, fc := range cfg.Files {
		if n.fileUpstreams[fc.Name] != nil {
			return fmt.Errorf("upstream %s of files is configured twice", fc.Name)
		}
		rules, err := newFileRules(&fc)
		if err != nil {
			return fmt.Errorf("upstream %s of files: %w", fc.Name, err)
		}
		fc.LoopID = n.id
		fc.Observe, fc.Patience, fc.Config.Files = m.observe(fc.Name), cfg.MaxFillWait, true
		client, err := upstream.New(fc.Config)
		if err != nil {
			return fmt.Errorf("upstream %s of files: %w", fc.Name, err)
		}
		if fc.Offline {
			fc.Policy.TTL, rules.pinned.TTL, rules.pointers.TTL, rules.others.TTL = forever, forever, forever, forever
		}
		n.fileUpstreams[fc.Name] = &upstreamState{
			name: fc.Name, client: client, policy: fc.Policy, ledger: fc.Ledger, private: fc.Private, files: rules,
			doubts: newLRU[doubt, time.Time](maxDoubts),
		}
	}
	if cfg.DefaultFiles == "" {
		return nil
	}
	if n.fileFallback = n.fileUpstreams[cfg.DefaultFiles]; n.fileFallback == nil {
		return fmt.Errorf("the default upstream of files, %s, is not configured", cfg.DefaultFiles)
	}
	return nil
}

// all are the upstreams, registries and file servers.
func (n *Node) all() iter.Seq[*upstreamState] {
	return func(yield func(*upstreamState) bool) {
		for _, ups := range []map[string]*upstreamState{n.upstreams, n.fileUpstreams} {
			for _, up := range ups {
				if !yield(up) {
					return
				}
			}
		}
	}
}

// blobStored has a blob that a fill stored sent to the remote store, unless it
// came from there. What came from a peer is that one's to send first.
func (n *Node) blobStored(d digest.Digest, from string) {
	n.reads.stored(d)
	if n.forbidden(d) { // revoked while it was on its way
		n.spawn(func(ctx context.Context) { n.remove(ctx, d) })
		return
	}
	switch {
	case n.remote == nil, from == "store":
	case from == peerLabel:
		n.remote.sendLater(d)
	default:
		n.remote.send(string(d))
	}
}

// carry is base for work on behalf of a request that it outlives.
func carry(base, asks context.Context) context.Context {
	return loop.Carry(admission.Carry(base, asks), asks)
}

// spawn runs work in a goroutine that Close ends and waits for. It reports
// false when the node is closed.
func (n *Node) spawn(work func(context.Context)) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.running.Go(func() { work(n.base) })
	return true
}

// Close ends background work and fills; the spools of fills are kept, and a
// node over the same store resumes them. Close it after the HTTP server that
// uses it: requests that still run are cut.
func (n *Node) Close(ctx context.Context) error {
	n.mu.Lock()
	n.closed = true
	n.mu.Unlock()
	err := n.fills.close(ctx)
	n.endBase()
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.running.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	n.closeUpstreams()
	return err
}

func (n *Node) closeUpstreams() {
	for up := range n.all() {
		up.client.Close()
	}
}

func newLRU[K comparable, V any](size int) *lru.Cache[K, V] {
	c, err := lru.New[K, V](size)
	if err != nil {
		panic("proxy: " + err.Error()) // size is a positive constant
	}
	return c
}

// flights has requests for the same thing share one question to upstream. The
// question outlives the request that asked first, for whose client it counts.
type flights[V any] struct{ group singleflight.Group }

func (f *flights[V]) do(ctx context.Context, n *Node, key nameKey, head bool, ask func(context.Context) (V, error)) (v V, collapsed bool, err error) {
	id := fmt.Sprint(key.up.name, " ", key.repo, " ", key.ref, " ", head)
	if err := n.absent.recall(key); err != nil {
		return v, false, err
	}
	key = key.clone()
	mine, asks := false, ctx
	c := f.group.DoChan(id, func() (any, error) {
		mine = true
		type result struct {
			v   V
			err error
		}
		done := make(chan result, 1)
		ok := n.spawn(func(base context.Context) {
			ctx, cancel := context.WithTimeout(carry(base, asks), checkTimeout)
			defer cancel()
			v, err := ask(ctx)
			n.absent.remember(key, err)
			done <- result{v, err}
		})
		if !ok {
			return v, errClosing
		}
		r := <-done
		return r.v, r.err
	})
	select {
	case r := <-c:
		if r.Err != nil {
			return v, !mine, r.Err
		}
		return r.Val.(V), !mine, nil
	case <-ctx.Done():
		return v, false, ctx.Err()
	}
}

// absences remembers, briefly, what upstream clearly does not have.
type absences struct {
	cache *lru.Cache[nameKey, absence]
}

type absence struct {
	err   error
	until time.Time
}

// recall returns why a name is known to be absent, nil when it is not.
func (a *absences) recall(key nameKey) error {
	if e, ok := a.cache.Get(key); ok && time.Now().Before(e.until) {
		return e.err
	}
	return nil
}

// forget has a name asked for again.
func (a *absences) forget(key nameKey) { a.cache.Remove(key) }

// remember takes in what upstream answered.
func (a *absences) remember(key nameKey, err error) {
	if err == nil || !isRefusal(err) || key.up.policy.NegativeTTL <= 0 {
		return
	}
	a.cache.Add(key.clone(), absence{err, time.Now().Add(key.up.policy.NegativeTTL)})
}

func sameDescriptor(a, b ocispec.Descriptor) bool {
	return a.Digest == b.Digest && a.MediaType == b.MediaType && a.ArtifactType == b.ArtifactType
}

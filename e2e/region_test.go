package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"entrepot/e2e/testenv"
)

// region is three nodes on one bucket, and their upstream.
type region struct {
	upstream *bigFile
	nodes    []*testenv.Node
	path     string // of the one blob that upstream has
}

// startRegion starts the nodes, each with a directory of its own, and waits until
// they have found each other.
func startRegion(t *testing.T, size int64) *region {
	t.Helper()
	r := &region{upstream: &bigFile{size: size}}
	hash, block := sha256.New(), newBlock()
	for i := range uint64(size / bigBlock) {
		binary.BigEndian.PutUint64(block, i)
		hash.Write(block)
	}
	r.path = fmt.Sprintf("/v2/big/blobs/sha256:%x", hash.Sum(nil))
	upstream := httptest.NewServer(r.upstream)
	t.Cleanup(upstream.Close)

	s3 := testenv.S3Servers()[0].Start(t)
	store := s3Store(t, s3, "", "")
	var addresses, peers []string
	for range 3 {
		address := fmt.Sprintf("127.0.0.1:%d", testenv.FreePort(t))
		addresses, peers = append(addresses, address), append(peers, "http://"+address)
	}
	for _, address := range addresses {
		own := maps.Clone(store)
		own["cache"] = map[string]any{"dir": filepath.Join(t.TempDir(), "cache"), "max_size": "4GiB"}
		r.nodes = append(r.nodes, testenv.StartNode(t, testenv.NodeConfig{
			Upstreams: map[string][]string{upstreamName: {upstream.URL}},
			Address:   address,
			Store:     own,
			Extra: map[string]any{"peers": map[string]any{
				"list": peers, "secret": "the secret of the region", "interval": "1s",
			}},
		}))
	}
	for _, node := range r.nodes {
		waitFor(t, "the nodes to find each other", func() bool { return sample(node, `entrepot_peers{role="node",state="up"}`) == 2 })
	}
	return r
}

// filled is how many bytes a node filled its store with, from a source.
func filled(node *testenv.Node, source string) int64 {
	return int64(sample(node, fmt.Sprintf(`entrepot_fill_bytes_total{role="node",source=%q}`, source)))
}

// sample is one of a node's metrics, with its labels; 0 when it is not there.
func sample(node *testenv.Node, series string) float64 {
	match := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(node.Metrics())
	if match == nil {
		return 0
	}
	value, _ := strconv.ParseFloat(match[1], 64)
	return value
}

// pull has clients at every node get the blob and check it, and waits for them. A
// client whose node dies goes on at the next one, as clients with several hosts do.
// It returns how many had to.
func (r *region) pull(t *testing.T, clients int) (moved int64) {
	t.Helper()
	var running sync.WaitGroup
	var moves atomic.Int64
	for i := range clients {
		running.Go(func() {
			body := &resuming{ctx: t.Context(), region: r, node: i, moves: &moves}
			defer body.close()
			if err := checkBig(body, r.upstream.size); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	running.Wait()
	return moves.Load()
}

// resuming is the blob, read from one node until that breaks, and then from the
// next.
type resuming struct {
	ctx    context.Context
	region *region
	node   int
	moves  *atomic.Int64

	offset int64
	body   io.ReadCloser
}

func (b *resuming) Read(p []byte) (int, error) {
	for tries := 0; ; tries++ {
		err := b.open()
		if err == nil {
			n, read := b.body.Read(p)
			b.offset += int64(n)
			if n > 0 || errors.Is(read, io.EOF) {
				return n, read
			}
			err = read
		}
		if tries == len(b.region.nodes) {
			return 0, err
		}
		b.close()
		b.node++
		b.moves.Add(1)
	}
}

func (b *resuming) open() error {
	if b.body != nil {
		return nil
	}
	node := b.region.nodes[b.node%len(b.region.nodes)]
	request, err := http.NewRequestWithContext(b.ctx, http.MethodGet, node.URL()+b.region.path, nil)
	if err != nil {
		return err
	}
	want := http.StatusOK
	if b.offset > 0 {
		want = http.StatusPartialContent
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", b.offset))
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	b.body = response.Body
	if response.StatusCode != want {
		return fmt.Errorf("%s from byte %d", response.Status, b.offset)
	}
	return nil
}

func (b *resuming) close() {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
}

const (
	regionBlob    = 1 << 30
	killedBlob    = 256 << 20 // of the test in which a node dies
	regionClients = 60
)

func TestSixtyClientsOfThreeNodesHaveUpstreamSendABlobOnce(t *testing.T) {
	r := startRegion(t, regionBlob)
	began := time.Now()
	r.pull(t, regionClients)
	took := time.Since(began)
	if requests, sent := r.upstream.requests.Load(), r.upstream.sent.Load(); requests != 1 || sent != regionBlob {
		t.Errorf("upstream was asked %d times and sent %d bytes; want once and %d", requests, sent, int64(regionBlob))
	}
	var between int64
	for _, node := range r.nodes {
		between += filled(node, "peer")
	}
	if between != 2*regionBlob {
		t.Errorf("nodes had %d bytes from each other; want %d", between, int64(2*regionBlob))
	}
	t.Logf("%d clients of 3 nodes had %d MiB each in %v; upstream sent %.3f times the blob",
		regionClients, regionBlob>>20, took.Round(10*time.Millisecond), float64(r.upstream.sent.Load())/regionBlob)
}

func TestNodeThatIsKilledWhileItFillsForItsRegionStopsNobody(t *testing.T) {
	r := startRegion(t, killedBlob)
	half, killed := make(chan struct{}), make(chan struct{})
	stop := sync.OnceFunc(func() {
		close(half)
		<-killed
	})
	r.upstream.before = func(at int64) {
		if at >= killedBlob/2 {
			stop()
		}
	}
	began := time.Now()
	var pulling sync.WaitGroup
	var moved int64
	pulling.Go(func() { moved = r.pull(t, regionClients) })
	<-half
	var owner *testenv.Node
	for _, node := range r.nodes {
		if filled(node, upstreamName) > 0 {
			owner = node
			continue
		}
		// What is on its way between them when the owner dies is sent again.
		waitFor(t, "the others to have most of what the owner has", func() bool { return filled(node, "peer") > killedBlob/2-8<<20 })
	}
	owner.Process().Kill()
	close(killed)
	pulling.Wait()
	took := time.Since(began)
	sent := r.upstream.sent.Load()
	if sent > killedBlob*105/100 {
		t.Errorf("upstream sent %d bytes in %d requests; want at most 1.05 times %d", sent, r.upstream.requests.Load(), int64(killedBlob))
	}
	if moved == 0 {
		t.Error("no client had to go to another node: the one that was killed had none")
	}
	t.Logf("%d clients had %d MiB each in %v, %d of them from two nodes; upstream sent %.3f times the blob in %d requests",
		regionClients, killedBlob>>20, took.Round(10*time.Millisecond), moved, float64(sent)/killedBlob, r.upstream.requests.Load())
}

package proxy

import "testing"

func TestWhatIsServedFromMemoryIsNotTheFirstToLeaveTheDisk(t *testing.T) {
	up := newScript(t)
	wanted, body := up.blob(100<<10, 1)
	n := startLimitedNode(t, t.TempDir(), 10*mib, []string{up.URL})
	for range 2 { // from upstream, and from the disk into memory
		n.get(t, blobPath(wanted)).wantBytes(t, 200, body)
	}
	for seed := range uint64(20) {
		d, b := up.blob(mib, seed+2)
		n.get(t, blobPath(d)).wantBytes(t, 200, b)
		n.get(t, blobPath(wanted)).wantBytes(t, 200, body)
	}
	waitFor(t, "an eviction", func() bool { return n.dir.Usage().Evictions > 0 })
	if !n.stored(t, wanted) || n.resettled.Len() > 0 {
		t.Errorf("what everybody asks for was evicted (%d times stored again)", n.resettled.Len())
	}
}

func TestWhatOnlyMemoryHasIsStoredAgain(t *testing.T) {
	up, remote := newScript(t), newFakeRemote(t)
	d, body := up.blob(100<<10, 1)
	n := startNode(t, t.TempDir(), []string{up.URL}, withRemote(remote))
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	remote.uploaded(t, d)
	n.get(t, blobPath(d)).wantBytes(t, 200, body) // from the disk, into memory
	// As if it had been evicted from the directory before the bucket had it.
	if err := n.dir.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := remote.Dir.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it to be in memory", func() bool { _, ok := n.memory.Get(d); return ok })
	n.get(t, blobPath(d)).wantBytes(t, 200, body)
	if !n.stored(t, d) {
		t.Error("it is not on the disk")
	}
	remote.uploaded(t, d)
	if gets := up.gets(); gets != 1 {
		t.Errorf("upstream was asked %d times", gets)
	}
}

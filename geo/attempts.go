package geo

import (
	"hash/maphash"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// comesBack is after how many requests for the same thing, within
	// comesBackWithin of the first, a client is given the next mirror.
	comesBack       = 3
	comesBackWithin = 2 * time.Minute
	// attemptSlots bounds what is remembered: 16 bytes for each. Two that fall on
	// one slot forget each other, which costs a client a try.
	attemptSlots = 1 << 16
)

// attempts counts how often clients come back for the same thing.
type attempts struct {
	seed  maphash.Seed // nobody outside can aim at another's slot
	start time.Time

	mu    sync.Mutex
	slots []attempt
}

// attempt is one client and one thing.
type attempt struct {
	hash  uint64
	since uint32 // seconds after start of the first request
	count uint32
}

func newAttempts() *attempts {
	return &attempts{seed: maphash.MakeSeed(), start: time.Now(), slots: make([]attempt, attemptSlots)}
}

// next counts a request, and returns how many mirrors the client has had before:
// 0 for the first two requests, 1 for the next three. A client is an address and
// its software, as many have one address together. A range is a thing of its own,
// as clients fetch those of one blob at once; but one that goes on where a transfer
// broke is given the next mirror at once.
func (a *attempts) next(client netip.Addr, agent, path, ranges string) int {
	resumed := resumes(ranges)
	if resumed {
		ranges = ""
	}
	var h maphash.Hash
	h.SetSeed(a.seed)
	address := client.As16()
	_, _ = h.Write(address[:]) // a hash takes all
	for _, text := range []string{agent, path, ranges} {
		_, _ = h.WriteString(text)
		_ = h.WriteByte(0)
	}
	sum, now := h.Sum64(), uint32(time.Since(a.start)/time.Second)
	a.mu.Lock()
	defer a.mu.Unlock()
	slot := &a.slots[sum%attemptSlots]
	fresh := slot.hash != sum || time.Duration(now-slot.since)*time.Second > comesBackWithin
	if fresh {
		*slot = attempt{hash: sum, since: now}
	}
	slot.count++
	if resumed && !fresh { // to the next multiple
		slot.count = (slot.count + comesBack - 1) / comesBack * comesBack
	}
	return int(slot.count / comesBack)
}

// resumes says whether a range is one that goes on where a transfer broke: to the
// end, and from where no client cuts what it fetches in parts.
func resumes(ranges string) bool {
	const parts = 1 << 20
	text, ok := strings.CutPrefix(ranges, "bytes=")
	if !ok {
		return false
	}
	text, ok = strings.CutSuffix(text, "-")
	offset, err := strconv.ParseInt(text, 10, 64)
	return ok && err == nil && offset > 0 && offset%parts != 0 && offset%1_000_000 != 0
}

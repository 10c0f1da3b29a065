package access

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// maxVerified bounds the passwords that are remembered.
const maxVerified = 4096

// verified remembers passwords that were found to be right, as keyed hashes:
// neither they nor anything that could be tried against a dictionary outside
// this process lies in memory longer than a request.
type verified struct {
	key  [sha256.Size]byte // random
	ttl  time.Duration
	now  func() time.Time
	seen *lru.Cache[[sha256.Size]byte, time.Time] // when each was verified
}

func newVerified(ttl time.Duration, now func() time.Time) (*verified, error) {
	v := &verified{ttl: ttl, now: now}
	if _, err := rand.Read(v.key[:]); err != nil {
		return nil, err
	}
	var err error
	v.seen, err = lru.New[[sha256.Size]byte, time.Time](maxVerified)
	return v, err
}

// sum is what is remembered. The stored hash is part of it: with another one
// in the file, nothing that was verified before counts.
func (v *verified) sum(identity, password string, hash []byte) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, v.key[:])
	var length [8]byte
	for _, part := range []string{identity, string(hash), password} {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		mac.Write(length[:])
		mac.Write([]byte(part))
	}
	mac.Sum(sum[:0])
	return sum
}

// has says whether a password was verified not long ago. Without a memory,
// nothing was.
func (v *verified) has(identity, password string, hash []byte) bool {
	if v == nil {
		return false
	}
	sum := v.sum(identity, password, hash)
	at, ok := v.seen.Get(sum)
	if !ok {
		return false
	}
	if age := v.now().Sub(at); age < 0 || age >= v.ttl {
		v.seen.Remove(sum)
		return false
	}
	return true
}

func (v *verified) add(identity, password string, hash []byte) {
	if v != nil {
		v.seen.Add(v.sum(identity, password, hash), v.now())
	}
}

package proxy

import (
	"net/http"
	"testing"
	"time"
)

func FuzzWhatUpstreamSaysOfAFile(f *testing.F) {
	f.Add("max-age=60, s-maxage=\"5\"", "Mon, 23 Nov 2026 12:30:00 GMT", "7", "sha-256=:AAAA:;p=1, sha-512=::", "SHA-256=AAAA", "rL0Y20zC+Fzt72VPzMSk2A==")
	f.Add("no-store,no-cache", "0", "-1", "=", ",", "")
	f.Fuzz(func(t *testing.T, control, expires, age, repr, old, md5 string) {
		h := http.Header{"Cache-Control": {control}, "Expires": {expires}, "Repr-Digest": {repr}, "Digest": {old}, "Content-Md5": {md5}}
		ttl, said, transient := freshness(h, age, time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
		if ttl < 0 || transient && (ttl != 0 || !said) {
			t.Errorf("fresh for %v, said %v, transient %v", ttl, said, transient)
		}
		for _, c := range headerClaims(h) {
			if v := c.verifier(); v.Size() != len(c.want) {
				t.Errorf("%s claims %d bytes of %s", c.by, len(c.want), c.algorithm)
			}
		}
	})
}

func FuzzFindSum(f *testing.F) {
	f.Add([]byte("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  ./a\n"), "a", true)
	f.Add([]byte("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"), "b", false)
	f.Fuzz(func(t *testing.T, list []byte, name string, alone bool) {
		if sum, ok := findSum(list, name, 32, alone); ok && len(sum) != 32 {
			t.Errorf("a sum of %d bytes", len(sum))
		}
	})
}

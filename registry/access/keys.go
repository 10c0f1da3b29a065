package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/go-jose/go-jose/v4"
)

const (
	// keysEvery is how often keys are read again from a URL, and keysPause how
	// long they are left alone at least, also when tokens of keys come that are
	// not known. Files are looked at as often as that.
	keysEvery = 10 * time.Minute
	keysPause = 10 * time.Second
	// keysTimeout bounds one reading, and with it how long a request waits.
	keysTimeout = 10 * time.Second
	// maxKeySet bounds a set of keys, in bytes, and maxKeys their number.
	maxKeySet = 1 << 20
	maxKeys   = 100
	// leastRSA is the shortest key of RSA that is believed, in bits (RFC 7518,
	// section 3.3).
	leastRSA = 2048
)

// keys are an issuer's public keys, read again now and then by whoever runs it.
// While a new set cannot be read, the last good one holds.
type keys struct {
	source string
	read   func(ctx context.Context) ([]byte, error)
	every  time.Duration
	log    *slog.Logger
	wanted chan struct{} // somebody has a token of a key that is not known

	mu      sync.Mutex
	set     []jose.JSONWebKey
	failure error         // why the last reading failed
	resting bool          // one was done less than keysPause ago
	done    chan struct{} // closed when the next one is
}

// newKeys reads the keys of a file. Those of a URL are read once it runs: whoever
// has them may be down.
func newKeys(source string, log *slog.Logger) (*keys, error) {
	k := &keys{
		source: source, every: keysPause, log: log, wanted: make(chan struct{}, 1), done: make(chan struct{}),
		failure: errors.New("they were not read yet"),
	}
	if !isURL(source) {
		k.read = func(context.Context) ([]byte, error) { return readFile(source) }
		if err := k.refresh(context.Background()); err != nil {
			return nil, fmt.Errorf("reading the keys of tokens from %s: %w", source, err)
		}
		return k, nil
	}
	u, err := url.Parse(source)
	if err != nil {
		return nil, fmt.Errorf("reading the URL of the keys of tokens: %w", err)
	}
	k.every, k.read = keysEvery, (&keyServer{url: u.String()}).read
	return k, nil
}

func isURL(text string) bool {
	return strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://")
}

// run reads the keys again until ctx ends: now and then, and when somebody needs
// one that is not known, but never more often than once in keysPause.
func (k *keys) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = k.refresh(ctx) // which has told
		if !wait(ctx, keysPause, nil) {
			return
		}
		k.mu.Lock()
		k.resting = false
		every := k.every
		if k.failure != nil {
			every = 0
		}
		k.mu.Unlock()
		if !wait(ctx, every-keysPause, k.wanted) {
			return
		}
	}
}

// wait ends after d, or with what wakes it. It reports false when ctx has ended.
func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(max(0, d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
		return false
	}
	return true
}

// refresh reads the keys.
func (k *keys) refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	select {
	case <-k.wanted: // that is what this does
	default:
	}
	content, err := k.read(ctx)
	var set []jose.JSONWebKey
	if err == nil {
		set, err = parseKeys(content)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil && (k.failure == nil || k.failure.Error() != err.Error()) {
		k.log.Error("the keys of tokens cannot be read; those before still hold", "jwks", k.source, "keys", len(k.set), "error", err)
	}
	if err == nil {
		if k.failure != nil || !sameKeys(set, k.set) {
			k.log.Info("read the keys of tokens", "jwks", k.source, "keys", len(set))
		}
		k.set = set
	}
	k.failure, k.resting = err, true
	close(k.done)
	k.done = make(chan struct{})
	return err
}

// find gives the keys that a token may be signed with: those of its key id, or
// all where it says none, that are for its algorithm. Where there is none, and the
// keys have not been read lately, they are read again first.
func (k *keys) find(ctx context.Context, id, algorithm string) ([]jose.JSONWebKey, error) {
	for first := true; ; first = false {
		k.mu.Lock()
		set, failure, resting, done := k.set, k.failure, k.resting, k.done
		k.mu.Unlock()
		found := candidates(set, id, algorithm)
		switch {
		case len(found) > 0:
			return found, nil
		case first && !resting:
			select {
			case k.wanted <- struct{}{}:
			default: // somebody has said so
			}
			ctx, cancel := context.WithTimeout(ctx, keysTimeout)
			defer cancel()
			select {
			case <-done:
			case <-ctx.Done():
			}
			continue
		case len(set) == 0:
			e := registry.Errorf(errcode.ErrorCodeUnavailable, "tokens cannot be verified now: their keys are not known; try again later")
			e.RetryAfter, e.Err = keysPause, fmt.Errorf("reading the keys of tokens from %s: %w", k.source, failure)
			return nil, e
		}
		return nil, nil
	}
}

// candidates are the keys of a set with an id (any when it is "") that are for
// an algorithm.
func candidates(set []jose.JSONWebKey, id, algorithm string) []jose.JSONWebKey {
	var found []jose.JSONWebKey
	for _, key := range set {
		if (id == "" || key.KeyID == id) && signs(&key, algorithm) {
			found = append(found, key)
		}
	}
	return found
}

// signs says whether a key is for an algorithm: what it says itself, and of which
// kind it is, have both to fit.
func signs(key *jose.JSONWebKey, algorithm string) bool {
	if key.Algorithm != "" && key.Algorithm != algorithm {
		return false
	}
	switch key.Key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		return strings.HasPrefix(algorithm, "ES")
	case ed25519.PublicKey:
		return algorithm == string(jose.EdDSA)
	}
	return false
}

// parseKeys reads a set of keys. Those that are of no use are passed over: sets
// hold keys of other kinds, too.
func parseKeys(content []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, fmt.Errorf("this is not a JSON Web Key Set: %w", err)
	}
	var usable []jose.JSONWebKey
	for _, text := range set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) == nil && isUsable(&key) && len(usable) < maxKeys {
			usable = append(usable, key)
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("none of its %d keys can be used: want public keys of RSA (%d bits and more), EC or Ed25519, for signatures", len(set.Keys), leastRSA)
	}
	return usable, nil
}

func isUsable(key *jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	if k, ok := key.Key.(*rsa.PublicKey); ok {
		return k.N.BitLen() >= leastRSA
	}
	return true
}

func sameKeys(a, b []jose.JSONWebKey) bool {
	left, err := json.Marshal(a)
	right, other := json.Marshal(b)
	return err == nil && other == nil && string(left) == string(right)
}

// readFile reads a file with a set of keys.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readKeySet(f)
}

func readKeySet(r io.Reader) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(r, maxKeySet+1))
	if err == nil && len(content) > maxKeySet {
		err = fmt.Errorf("it has more than %d bytes", maxKeySet)
	}
	return content, err
}

// keyServer has a set of keys at a URL.
type keyServer struct{ url string }

// read asks for the keys. It follows no redirect: who answers has the say over
// who may read.
func (s *keyServer) read(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	transport := http.DefaultTransport.(*http.Transport).Clone()
	defer transport.CloseIdleConnections() // it is asked every ten minutes
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", s.url, resp.Status)
	}
	return readKeySet(resp.Body)
}

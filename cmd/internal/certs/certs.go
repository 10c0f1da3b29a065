// Package certs keeps a server's certificate in step with its files, so that a
// renewed one is taken without a restart.
//
// A pair that cannot be used (half written, mismatched, missing) is reported
// once and the pair in use stays.
package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Pair is a certificate chain and its key, read from two PEM files.
type Pair struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	mu            sync.Mutex
	seen          bool   // a pair of files was judged
	cert, key     []byte // what was judged last
	failedReading string // the read error that was logged last
}

// Load reads the pair of files, which must be usable now.
func Load(certFile, keyFile string, log *slog.Logger) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log}
	if _, err := p.reload(); err != nil {
		return nil, err
	}
	return p, nil
}

// Certificate returns the pair in use; it is for [tls.Config.GetCertificate].
func (p *Pair) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return p.current.Load(), nil
}

// Expiry is when the certificate in use ends to be valid.
func (p *Pair) Expiry() time.Time {
	if leaf := p.current.Load().Leaf; leaf != nil {
		return leaf.NotAfter
	}
	return time.Time{} // only with GODEBUG=x509keypairleaf=0
}

// Watch looks at the files at every interval and at every signal from now,
// until ctx ends.
func (p *Pair) Watch(ctx context.Context, interval time.Duration, now <-chan os.Signal) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-now:
		}
		p.Refresh()
	}
}

// Refresh takes a changed pair into use, and logs what it did.
func (p *Pair) Refresh() {
	changed, err := p.reload()
	switch {
	case err != nil && changed:
		p.log.Error("the new certificate cannot be used; the old one stays", "cert", p.certFile, "key", p.keyFile, "error", err)
	case changed:
		p.log.Info("took a new certificate into use", "cert", p.certFile)
	}
}

// reload judges the files when they differ from those judged last. changed
// says whether there was something new to judge, or a new reason not to.
func (p *Pair) reload() (changed bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	cert, err := os.ReadFile(p.certFile)
	if err != nil {
		return p.unreadable(fmt.Errorf("reading the certificate: %w", err))
	}
	key, err := os.ReadFile(p.keyFile)
	if err != nil {
		return p.unreadable(fmt.Errorf("reading the certificate's key: %w", err))
	}
	p.failedReading = ""
	if p.seen && bytes.Equal(cert, p.cert) && bytes.Equal(key, p.key) {
		return false, nil
	}
	p.seen, p.cert, p.key = true, cert, key
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return true, fmt.Errorf("%s and %s are not a certificate and its key: %w", p.certFile, p.keyFile, err)
	}
	p.current.Store(&pair)
	return true, nil
}

func (p *Pair) unreadable(err error) (bool, error) {
	changed := p.failedReading != err.Error()
	p.failedReading = err.Error()
	return changed, err
}

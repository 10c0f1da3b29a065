package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lockedBuffer is a log that two goroutines share: the race detector does not
// take the bubble's time for a happens-before.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// write puts a self-signed certificate for name and its key into dir.
func write(t *testing.T, dir, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	put(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return certFile, keyFile
}

func put(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func inUse(t *testing.T, p *Pair) string {
	t.Helper()
	pair, err := p.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.Subject.CommonName
}

func TestWatchTakesANewPairAndKeepsTheOldWhenTheNewIsBad(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := write(t, dir, "first")
	synctest.Test(t, func(t *testing.T) {
		var log lockedBuffer
		p, err := Load(certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		hangup := make(chan os.Signal)
		done := make(chan struct{})
		go func() { p.Watch(ctx, 10*time.Second, hangup); close(done) }()
		pass := func() { time.Sleep(11 * time.Second); synctest.Wait() }

		pass()
		if log.String() != "" {
			t.Errorf("logged about files that did not change: %s", &log)
		}

		write(t, dir, "second")
		pass()
		if got := inUse(t, p); got != "second" {
			t.Errorf("%s is in use after the files changed", got)
		}

		put(t, keyFile, []byte("half a key"))
		pass()
		pass()
		if got := inUse(t, p); got != "second" {
			t.Errorf("%s is in use after the key broke", got)
		}
		if n := strings.Count(log.String(), "the old one stays"); n != 1 {
			t.Errorf("the broken key was logged %d times: %s", n, &log)
		}

		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		pass()
		pass()
		if n := strings.Count(log.String(), "reading the certificate"); n != 1 {
			t.Errorf("the missing certificate was logged %d times: %s", n, &log)
		}

		write(t, dir, "third")
		hangup <- os.Interrupt
		synctest.Wait()
		if got := inUse(t, p); got != "third" {
			t.Errorf("%s is in use after the signal", got)
		}
		cancel()
		<-done
	})
}

func TestExpiryIsThatOfThePairInUse(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := write(t, dir, "a")
	p, err := Load(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(p.Expiry()); left < 59*time.Minute || left > time.Hour {
		t.Errorf("it ends in %v, not in an hour", left)
	}
	put(t, keyFile, []byte("nonsense"))
	p.Refresh()
	if left := time.Until(p.Expiry()); left < 59*time.Minute {
		t.Errorf("with a broken pair in the files, the one in use ends in %v", left)
	}
}

func TestLoadRefusesAPairThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := write(t, dir, "a")
	if _, err := Load(certFile, filepath.Join(dir, "none"), slog.Default()); err == nil || !strings.Contains(err.Error(), "reading the certificate's key") {
		t.Errorf("a missing key: %v", err)
	}
	put(t, keyFile, []byte("nonsense"))
	if _, err := Load(certFile, keyFile, slog.Default()); err == nil || !strings.Contains(err.Error(), "are not a certificate and its key") {
		t.Errorf("a broken key: %v", err)
	}
}

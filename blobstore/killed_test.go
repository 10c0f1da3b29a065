package blobstore_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"entrepot/blobstore"
)

// killedStore names the directory of the store that a process is to write to until
// it is killed.
const killedStore = "ENTREPOT_KILLED_STORE"

// numbered is the n-th blob that is written: from nothing much to half a mebibyte.
func numbered(n uint64) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], n)
	b := make([]byte, 1+n*7919%(512<<10))
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

// writeUntilKilled stores one blob after the other, in each of the ways, and says
// of which it was told that it is stored.
func writeUntilKilled(t *testing.T, dir string) {
	d, err := blobstore.OpenDir(dir, blobstore.DirConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(os.Getpid()) << 32; ; n++ {
		b := numbered(n)
		dgst := digest.FromBytes(b)
		if n%2 == 0 {
			err = d.Put(t.Context(), dgst, int64(len(b)), bytes.NewReader(b))
		} else {
			err = putInPieces(t, d, dgst, b)
		}
		if err == nil {
			err = d.PutRecord(t.Context(), fmt.Sprintf("tags/%d", n), []byte(dgst))
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("stored %d\n", n)
	}
}

func putInPieces(t *testing.T, d *blobstore.Dir, dgst digest.Digest, b []byte) error {
	p, err := d.Partial(t.Context(), dgst)
	if err != nil {
		return err
	}
	for at := 0; at < len(b); at += 64 << 10 {
		if _, err := p.Write(b[at:min(at+64<<10, len(b))]); err != nil {
			return errors.Join(err, p.Close())
		}
	}
	return p.Commit(t.Context())
}

func TestKilledAtAnyMomentOfAPutNothingIsLeftAndNothingHalf(t *testing.T) {
	if dir := os.Getenv(killedStore); dir != "" {
		writeUntilKilled(t, dir)
	}
	dir := filepath.Join(t.TempDir(), "store")
	var stored []uint64
	moments := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		stored = append(stored, killAfter(t, dir, time.Duration(moments.Int64N(int64(40*time.Millisecond))))...)
		d, err := blobstore.OpenDir(dir, blobstore.DirConfig{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range stored {
			dgst := digest.FromBytes(numbered(n))
			if value, err := d.Record(t.Context(), fmt.Sprintf("tags/%d", n)); err != nil || string(value) != string(dgst) {
				t.Fatalf("record %d is lost: %q, %v", n, value, err)
			}
			if _, err := d.Stat(t.Context(), dgst); err != nil {
				t.Fatalf("blob %d is lost: %v", n, err)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "spool", "tmp-*")); len(left) > 0 {
			t.Fatalf("left: %q", left)
		}
	}
	report, err := blobstore.CheckDir(t.Context(), dir, blobstore.CheckConfig{Deep: true})
	if err != nil || len(report.Findings) > 0 || report.Blobs < len(stored) {
		t.Errorf("%d blobs of at least %d, found to be wrong: %v, %v", report.Blobs, len(stored), report.Findings, err)
	}
	if len(stored) < 12 {
		t.Errorf("only %d blobs were stored: too few to tell", len(stored))
	}
}

// killAfter has a process write, kills it some time after the first blob, and
// returns which it said are stored.
func killAfter(t *testing.T, dir string, some time.Duration) (stored []uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), killedStore+"="+dir)
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		var n uint64
		if _, err := fmt.Sscanf(lines.Text(), "stored %d", &n); err != nil {
			t.Errorf("the writer said %q", strings.TrimSpace(lines.Text()))
			continue
		}
		stored = append(stored, n)
		if timer == nil {
			timer = time.AfterFunc(some, func() { _ = cmd.Process.Kill() })
		}
	}
	_ = cmd.Wait() // it was killed
	return stored
}

package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"entrepot/promote/ledger"
)

func Example() {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()

	// Once: a key, whose public half all readers get.
	keyFile := filepath.Join(dir, "ledger.key")
	if err := ledger.GenerateKey("origin.example.org/ledger", keyFile); err != nil {
		panic(err)
	}
	key, err := ledger.LoadKey(keyFile)
	if err != nil {
		panic(err)
	}

	// Promotion appends what it did, unless it was done already.
	log, err := ledger.Open(ctx, "file://"+filepath.Join(dir, "log"), ledger.Config{Key: key})
	if err != nil {
		panic(err)
	}
	promoted := ledger.Entry{
		Kind: ledger.Image, Action: ledger.Set, Name: "coredns:v1.9.3", Digest: digest.FromString("an image index"),
		Destinations: []string{"registry.example.org/coredns", "registry.example.com/coredns"}, Project: "coredns",
	}
	if _, err := log.Append(ctx, func(now *ledger.State) ([]ledger.Entry, error) {
		if e, ok := now.Lookup(promoted.Destinations[0], promoted.Name); ok && e.Digest == promoted.Digest {
			return nil, nil
		}
		return []ledger.Entry{promoted}, nil
	}); err != nil {
		panic(err)
	}

	// A node follows, here without a server between.
	public, err := ledger.LoadKey(keyFile + ".pub")
	if err != nil {
		panic(err)
	}
	follower, err := ledger.NewFollower(ctx, ledger.FollowerConfig{
		Source: ledger.NewDir(filepath.Join(dir, "log")), Key: public, Copy: ledger.NewDir(filepath.Join(dir, "copy")),
	})
	if err != nil {
		panic(err)
	}
	if err := follower.Poll(ctx); err != nil { // Run does so each second
		panic(err)
	}
	e, ok := follower.Lookup("registry.example.com/coredns/coredns:v1.9.3")
	fmt.Println(ok, e.Exists(), e.Digest == promoted.Digest)

	// Anyone audits, also a node's copy.
	report, err := ledger.Verify(ctx, ledger.NewDir(filepath.Join(dir, "copy")), ledger.Config{Key: public})
	fmt.Println(report.Checkpoint.Origin, report.Checkpoint.Size, err)
	// Output:
	// true true true
	// origin.example.org/ledger 1 <nil>
}

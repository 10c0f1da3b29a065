package promote_test

import (
	"context"
	"path/filepath"
	"testing"

	"entrepot/promote"
	"entrepot/promote/config"
	"entrepot/promote/config/configtest"
	"entrepot/promote/ledger"
	"entrepot/promote/promotetest"
	"entrepot/promote/transfer"
)

// A plan of a tree twice today's size, when nothing changed, must take under
// 3 s altogether on two cores, and ask no registry anything.
func BenchmarkPlanOfTwiceTodayUnchanged(b *testing.B) {
	dir := b.TempDir()
	tree, log, key := filepath.Join(dir, "tree"), filepath.Join(dir, "ledger"), filepath.Join(dir, "key")
	if err := configtest.TwiceToday().Write(tree); err != nil {
		b.Fatal(err)
	}
	recordTwiceToday(b, log, key)
	public, err := ledger.LoadKey(key + ".pub")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var counters transfer.Counters
		client, err := transfer.New(transfer.Config{Progress: &counters})
		if err != nil {
			b.Fatal(err)
		}
		read, err := config.Read([]string{tree}, config.Options{Strict: true})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := config.Revision(b.Context(), []string{tree}); err != nil {
			b.Fatal(err)
		}
		l, err := ledger.New(b.Context(), ledger.NewDir(log), ledger.Config{Key: public})
		if err != nil {
			b.Fatal(err)
		}
		plan, err := (&promote.Planner{Client: client}).Plan(b.Context(), read, l.State())
		if err != nil {
			b.Fatal(err)
		}
		if len(plan.Items) != 0 || plan.Unchanged != configtest.TwiceToday().Pairs {
			b.Fatalf("planned %s", plan.Summary())
		}
		if asked := counters.Counts().Requests; len(asked) != 0 {
			b.Fatalf("asked the registries: %v", asked)
		}
		if err := client.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// recordTwiceToday writes a ledger as promotion does that has set every name
// of the configuration.
func recordTwiceToday(b *testing.B, dir, key string) {
	b.Helper()
	if err := ledger.GenerateKey("bench.example/ledger", key); err != nil {
		b.Fatal(err)
	}
	private, err := ledger.LoadKey(key)
	if err != nil {
		b.Fatal(err)
	}
	l, err := ledger.New(context.Background(), ledger.NewDir(dir), ledger.Config{Key: private})
	if err != nil {
		b.Fatal(err)
	}
	if err := promotetest.Record(context.Background(), l, configtest.TwiceToday().Generate()); err != nil {
		b.Fatal(err)
	}
}

// Command tools builds every program that tests need from a pinned Go module,
// so that no test waits for a build.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"time"

	"entrepot/e2e/testenv"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	failed := false
	for _, name := range testenv.ToolNames() {
		start := time.Now()
		binary, err := testenv.BuildTool(ctx, name)
		if err != nil {
			// Tests say what they miss; one tool must not keep the others away.
			fmt.Fprintln(os.Stderr, err)
			failed = true
			continue
		}
		fmt.Printf("%-12s %6.1f s  %s\n", name, time.Since(start).Seconds(), binary)
	}
	if failed && os.Getenv("CI") == "true" {
		os.Exit(1)
	}
}

// Command docs writes what follows from the chart's values.yaml: README.md, a
// table of all values, and values.schema.json, by which Helm refuses what the
// chart does not know. Comments in values.yaml are the descriptions.
//
//	go run ./deploy/helm/docs
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	if err := run(context.Background(), "."); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// run writes the files of the chart in the module at root.
func run(ctx context.Context, root string) error {
	files, err := generate(ctx, root)
	if err != nil {
		return err
	}
	for name, content := range files {
		//nolint:gosec // documentation is public
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(name)), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const chart = "deploy/helm/entrepot/"

// generate makes the files, by their names below root.
func generate(ctx context.Context, root string) (map[string][]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(chart+"values.yaml")))
	if err != nil {
		return nil, err
	}
	all, err := parseValues(text)
	if err != nil {
		return nil, fmt.Errorf("reading values.yaml: %w", err)
	}
	intro, err := os.ReadFile(filepath.Join(root, "deploy", "helm", "docs", "README.head.md"))
	if err != nil {
		return nil, err
	}
	schema := exec.CommandContext(ctx, "go", "run", "./cmd/entrepot", "config", "schema")
	schema.Dir = root
	var stderr bytes.Buffer
	schema.Stderr = &stderr
	config, err := schema.Output()
	if err != nil {
		return nil, fmt.Errorf("asking for the schema of the configuration: %w\n%s", err, stderr.Bytes())
	}
	values, err := valuesSchema(all, config)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		chart + "README.md":          append(intro, table(all)...),
		chart + "values.schema.json": values,
	}, nil
}

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// guides are pages whose commands and configurations are held against the program.
func guides() []string { return []string{"MIRRORS.md", "AIRGAP.md"} }

// TestCommandsInTheGuidesExist parses each entrepot command of the guides with its flags.
func TestCommandsInTheGuidesExist(t *testing.T) {
	for _, page := range guides() {
		commands := 0
		for _, block := range blocks(t, page, "sh") {
			for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", " ")) {
				line, _, _ = strings.Cut(line, " #")
				args := strings.Fields(strings.ReplaceAll(line, "'", ""))
				if len(args) == 0 || args[0] != "entrepot" {
					continue
				}
				commands++
				cmd, rest, err := rootCommand().Find(args[1:])
				if err == nil {
					err = cmd.ParseFlags(rest)
				}
				if err == nil {
					err = cmd.ValidateArgs(cmd.Flags().Args())
				}
				if err == nil && cmd.PreRunE != nil {
					err = cmd.PreRunE(cmd, cmd.Flags().Args())
				}
				if err != nil || !cmd.Runnable() {
					t.Errorf("%s: %s: %v", page, line, err)
				}
			}
		}
		if commands < 3 {
			t.Errorf("%s has %d commands", page, commands)
		}
	}
}

// TestConfigurationsInTheGuidesAreValid reads each YAML example.
func TestConfigurationsInTheGuidesAreValid(t *testing.T) {
	for _, page := range guides() {
		for _, example := range blocks(t, page, "yaml") {
			if err := exampleProblem(page, example); err != nil {
				t.Errorf("%v\nin\n%s", err, example)
			}
		}
	}
}

// blocks are the code blocks of a language in a page.
func blocks(t *testing.T, page, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		found = append(found, m[1])
	}
	return found
}

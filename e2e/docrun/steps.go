// Package docrun runs the documentation: every command in it is run as it is
// written, in order, on a machine of its own on which the hosts of the examples
// exist.
//
// The machine is a network and mount namespace of the test. There,
// node.example.org and the registries of the world are servers of the test,
// with certificates that its clients trust, and what is written to /etc and
// /var/lib is gone afterwards.
//
// A page is prose for people, so little is asked of it: a block of "sh" is run
// by bash, from the page's own folder; a block of another language whose first
// line is a comment with a file's name is that file; a line that begins a server
// ("entrepot serve") is started, waited for, and ended with the page. What cannot
// be run says why, in a comment before it that readers do not see:
//
//	<!-- not run: needs a cluster -->
//
// What a reader has done already, such as making a registry of their own, is done
// in a comment too:
//
//	<!-- run: entrepot serve -->
//
// What takes more than a command is given:
//
//	<!-- given: a production -->
//	<!-- given: another machine -->
//	<!-- given: no network -->
//	<!-- given: docker -->
//
// And what a command asks at a terminal is answered:
//
//	<!-- answer: y -->
package docrun

import (
	"bufio"
	"fmt"
	"regexp"
	"strings"
)

// Step is one fenced block of a page that is to be run, a file to be written, or
// something that is given.
type Step struct {
	Line   int    // of the fence, or of the comment, from 1
	Given  string // what the page takes for granted; then nothing else is set
	File   string // to be written; "" is a script to be run
	Text   string
	Answer string // that is typed where the script asks; "" has no terminal
	Apart  string // why it is not run; "" runs it
}

// fileName is a block's first line that says which file it is.
var fileName = regexp.MustCompile(`^(?:#|//|;|--) ?((?:[~/]|\./)?[\w./@+-]+\.\w+)(?:$|[ ,:(])`)

// comment is one that readers do not see.
var comment = regexp.MustCompile(`^<!-- (not run|run|given|answer): (.+) -->$`)

// Steps are the steps of a page in Markdown. Its error names the line of a block
// that does not end.
func Steps(page string) ([]Step, error) {
	var steps []Step
	var step *Step
	var language, why, answer string
	var fence, indent string
	line := 0
	for lines := bufio.NewScanner(strings.NewReader(page)); lines.Scan(); {
		line++
		text := lines.Text()
		trimmed := strings.TrimSpace(text)
		switch {
		case step != nil && trimmed == fence:
			if step.finish(language) {
				steps = append(steps, *step)
			}
			step, why, answer = nil, "", ""
		case step != nil:
			step.Text += strings.TrimPrefix(text, indent) + "\n"
		case strings.HasPrefix(trimmed, "```"):
			fence = trimmed[:len(trimmed)-len(strings.TrimLeft(trimmed, "`"))]
			language, _, _ = strings.Cut(strings.TrimPrefix(trimmed, fence), " ")
			indent = text[:strings.Index(text, "`")]
			step = &Step{Line: line, Apart: why, Answer: answer}
		case trimmed == "":
		default:
			why, answer = "", ""
			m := comment.FindStringSubmatch(trimmed)
			if m == nil {
				continue
			}
			switch m[1] {
			case "not run":
				why = m[2]
			case "answer":
				answer = m[2]
			case "given":
				steps = append(steps, Step{Line: line, Given: m[2]})
			case "run":
				steps = append(steps, Step{Line: line, Text: m[2] + "\n"})
			}
		}
	}
	if step != nil {
		return nil, fmt.Errorf("the block that begins at line %d does not end", step.Line)
	}
	return steps, nil
}

// finish says whether the block is to be run or written.
func (s *Step) finish(language string) bool {
	switch language {
	case "sh", "bash":
		return true
	case "yaml", "toml", "json", "ini", "conf", "text":
		first, rest, _ := strings.Cut(s.Text, "\n")
		m := fileName.FindStringSubmatch(first)
		if m == nil {
			return false
		}
		s.File = m[1]
		if language == "json" {
			s.Text = rest // which has no comments
		}
		return true
	}
	return false
}

// Server says whether a line of a script begins a server, which is to run on
// while the lines after it do.
func Server(line string) bool {
	fields := strings.Fields(line)
	for len(fields) > 0 && strings.Contains(fields[0], "=") { // the environment
		fields = fields[1:]
	}
	if len(fields) < 2 {
		return false
	}
	switch fields[0] {
	case "entrepot", "registry":
		return fields[1] == "serve"
	case "minio":
		return fields[1] == "server"
	}
	return false
}

package clientconf

import (
	"bytes"
	"errors"
	"slices"
	"strings"
)

// Our part of a file of lines is between two comments.
const (
	beginMark = "# entrepot: begin"
	beginNote = beginMark + " (entrepot client-config wrote this block; --undo removes it)"
	endMark   = "# entrepot: end"
	// insteadMark is followed by the line that the block is in the place of.
	insteadMark = "; instead of: "
)

// block is our part of a file of lines.
type block struct {
	lines   []string
	instead string // the line that it replaces, without its end; "" for none
}

// insertBlock puts a block before the line that begins at an offset, with the
// ends of lines that the file has.
func insertBlock(text []byte, at int, b block) []byte {
	end := lineEnd(text)
	var out bytes.Buffer
	out.Write(text[:at])
	if at > 0 && text[at-1] != '\n' {
		out.WriteString(end)
	}
	begin := beginNote
	if b.instead != "" {
		begin = beginMark + insteadMark + b.instead
	}
	for _, line := range slices.Concat([]string{begin}, b.lines, []string{endMark}) {
		out.WriteString(line + end)
	}
	out.Write(text[at:])
	return out.Bytes()
}

var errUnfinished = errors.New("it has " + beginMark + " without " + endMark + ": remove what is left of the block by hand")

// cutBlocks takes our blocks out, and puts back the lines that they replaced.
func cutBlocks(text []byte) (rest []byte, found bool, err error) {
	var out bytes.Buffer
	inside := false
	for line := range bytes.Lines(text) {
		switch trimmed := string(bytes.TrimSpace(line)); {
		case strings.HasPrefix(trimmed, beginMark):
			if inside {
				return nil, true, errUnfinished
			}
			inside, found = true, true
			if _, instead, ok := strings.Cut(string(bytes.TrimRight(line, "\r\n")), insteadMark); ok {
				out.WriteString(instead + string(line[len(bytes.TrimRight(line, "\r\n")):]))
			}
		case inside && trimmed == endMark:
			inside = false
		case !inside:
			out.Write(line)
		}
	}
	if inside {
		return nil, true, errUnfinished
	}
	return append([]byte{}, out.Bytes()...), found, nil // of an empty file, not nil
}

// blank says whether a file has nothing, or is not there.
func blank(text []byte) bool { return len(bytes.TrimSpace(text)) == 0 }

// lineEnd is how a file ends its lines: as the first of them does.
func lineEnd(text []byte) string {
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}

// splitLines are the lines of a text, without their ends.
func splitLines(text []byte) []string {
	return strings.Split(strings.TrimRight(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), "\n")
}

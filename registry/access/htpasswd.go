package access

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const (
	// bcryptLength is the length of every bcrypt hash, in bytes:
	// "$2y$" + two digits of cost + "$" + 22 of salt + 31 of hash.
	bcryptLength = 60
	// maxCost bounds the cost of a hash. Each step doubles the time: 10 takes
	// 60 ms, 15 two seconds of a core for every guess that anybody sends.
	maxCost = 15
	// maxIdentity bounds the name of an identity, in bytes.
	maxIdentity = 255
)

// table is the content of an htpasswd file.
type table struct {
	hashes map[string][]byte // bcrypt hashes by identity
	dummy  []byte            // what passwords of nobody are compared with
}

// parseTable reads an htpasswd file. Its error names every problem, with its
// line, and nothing of the hashes.
func parseTable(content string) (*table, error) {
	t := &table{hashes: map[string][]byte{}}
	lines := map[string]int{}
	var problems []error
	number, cost := 0, bcrypt.MinCost
	for line := range strings.Lines(content) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		identity, hash, err := parseLine(line)
		if err == nil && lines[identity] != 0 {
			err = fmt.Errorf("identity %q is on line %d already", identity, lines[identity])
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		of, err := bcrypt.Cost(hash)
		if err != nil {
			problems = append(problems, fmt.Errorf("line %d: the hash of identity %q: %w", number, identity, err))
			continue
		}
		lines[identity] = number
		t.hashes[identity] = hash
		cost = max(cost, of)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	// A hash of no password that anybody knows: its last 31 bytes are made up.
	t.dummy = fmt.Appendf(nil, "$2y$%02d$%s", cost, strings.Repeat("u", bcryptLength-len("$2y$00$")))
	return t, nil
}

// parseLine reads "identity:hash".
func parseLine(line string) (identity string, hash []byte, err error) {
	identity, text, ok := strings.Cut(line, ":")
	if !ok {
		return "", nil, errors.New("want identity:hash, as htpasswd -B writes it")
	}
	if identity == "" || len(identity) > maxIdentity || strings.ContainsFunc(identity, isControl) {
		return "", nil, fmt.Errorf("identity %.80q: want 1 to %d characters, none of them control characters", identity, maxIdentity)
	}
	if identity == everyone {
		return "", nil, fmt.Errorf("an identity cannot be named %q, which means everyone in rules", everyone)
	}
	if err := checkHash(text); err != nil {
		return "", nil, fmt.Errorf("identity %q %w", identity, err)
	}
	return identity, []byte(text), nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// checkHash says whether a hash is bcrypt's, of a cost that can be afforded.
func checkHash(text string) error {
	digits, ok := strings.CutPrefix(text, "$2")
	if !ok || len(digits) < 5 || strings.IndexByte("abxy", digits[0]) < 0 || digits[1] != '$' {
		return fmt.Errorf("has %s: only bcrypt is taken, as htpasswd -B writes it", hashName(text))
	}
	if len(text) != bcryptLength || digits[4] != '$' || strings.ContainsFunc(text[len("$2y$00$"):], isNotBcrypt) {
		return fmt.Errorf("has a damaged bcrypt hash of %d characters: want %d, as htpasswd -B writes it", len(text), bcryptLength)
	}
	cost, err := bcrypt.Cost([]byte(text))
	if err != nil {
		return fmt.Errorf("has a damaged bcrypt hash: %w", err)
	}
	if cost > maxCost {
		return fmt.Errorf("has a bcrypt hash of cost %d, which takes too long to verify: want at most %d", cost, maxCost)
	}
	return nil
}

// isNotBcrypt says whether a character is not of bcrypt's own base64.
func isNotBcrypt(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '/')
}

// hashName says what kind of hash htpasswd made, without showing any of it.
func hashName(text string) string {
	for _, known := range []struct{ prefix, name string }{
		{"$apr1$", "an MD5 hash ($apr1$)"},
		{"{SHA}", "a SHA-1 hash ({SHA})"},
		{"$1$", "an MD5 hash ($1$)"},
		{"$5$", "a SHA-256 hash ($5$)"},
		{"$6$", "a SHA-512 hash ($6$)"},
		{"$y$", "a yescrypt hash ($y$)"},
		{"$argon2", "an Argon2 hash"},
		{"$2", "a bcrypt hash of a version that is not known"},
	} {
		if strings.HasPrefix(text, known.prefix) {
			return known.name
		}
	}
	if text == "" {
		return "no hash"
	}
	return "a crypt hash or a plain password"
}

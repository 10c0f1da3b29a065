package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// passwords are the identities of an htpasswd file.
type passwords struct {
	file     *file
	verified *verified // nil when nothing is remembered
	// comparing holds an element for each bcrypt at work. Guesses wait for one
	// another; whoever is remembered does not wait for them.
	comparing chan struct{}
}

// openPasswords reads an htpasswd file. What was verified is remembered for so
// long; 0 means [DefaultRememberFor], negative not at all.
func openPasswords(path string, rememberFor time.Duration, now func() time.Time, log *slog.Logger) (*passwords, error) {
	p := &passwords{comparing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
	var err error
	if p.file, err = openFile(path, now, log); err != nil {
		return nil, err
	}
	if rememberFor >= 0 {
		if p.verified, err = newVerified(cmp.Or(rememberFor, DefaultRememberFor), now); err != nil {
			return nil, fmt.Errorf("remembering verified passwords: %w", err)
		}
	}
	return p, nil
}

// missing are those identities that the file does not have.
func (p *passwords) missing(identities []string) []string {
	var missing []string
	for _, identity := range identities {
		if _, ok := p.file.current().hashes[identity]; !ok {
			missing = append(missing, identity)
		}
	}
	return missing
}

// authenticate says whether a password is the identity's. It takes as long for
// an identity that is not in the file as for one of the highest cost there, so
// that nobody learns by the time who is.
func (p *passwords) authenticate(ctx context.Context, identity, password string) (bool, error) {
	table := p.file.current()
	hash, known := table.hashes[identity]
	if !known {
		hash = table.dummy
	}
	if known && p.verified.has(identity, password, hash) {
		return true, nil
	}
	select {
	case p.comparing <- struct{}{}:
		defer func() { <-p.comparing }()
	case <-ctx.Done():
		return false, fmt.Errorf("waiting to verify a password: %w", ctx.Err())
	}
	// Requests that came together, as those of a promotion do, need it once.
	if known && p.verified.has(identity, password, hash) {
		return true, nil
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	switch {
	case errors.Is(err, bcrypt.ErrMismatchedHashAndPassword):
		return false, nil
	case err != nil: // the file was checked when it was read
		return false, fmt.Errorf("verifying the password of identity %s: %w", strconv.Quote(identity), err)
	case !known: // somebody found the dummy's password, which helps nobody
		return false, nil
	}
	p.verified.add(identity, password, hash)
	return true, nil
}

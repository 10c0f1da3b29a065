// Package access says who may do what. [Access] is the [registry.Authorizer] of
// an origin: identities with passwords in an htpasswd file, and rules that say
// which repositories and files each may push to and delete from. [Readers] are
// the [registry.Readers] of a node: identities with passwords, tokens or
// certificates, and rules that say what of which upstream each may pull.
//
// The file is read again when it changes, without a restart; while a new one is
// broken, the last good one holds. Only bcrypt is taken. What was verified is
// remembered for a while, so that a promotion of thousands of requests pays for
// bcrypt once.
//
// It issues no tokens, and locks nobody out.
//
// distribution's htpasswd access controller is not used: it makes a file that
// is missing, with an identity of its own whose password it logs; it passes
// over hashes that are not bcrypt without a word; a broken file locks everybody
// out; and every request costs a bcrypt.
package access

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Defaults of Config.
const (
	DefaultRealm       = "entrepot"
	DefaultRememberFor = 5 * time.Minute
)

// Config says who may write what.
type Config struct {
	// File is the htpasswd file: lines "identity:bcrypt hash", empty lines,
	// and lines that begin with "#".
	File string
	// Rules say what each identity may do. Without any, all identities of the
	// file may do everything.
	Rules []Rule
	// Realm is what clients show when they ask for a password; "" means
	// [DefaultRealm].
	Realm string
	// RememberFor is how long a verified password is not verified again; 0
	// means [DefaultRememberFor], negative not at all. An identity that the
	// file no longer has, or has with another hash, is forgotten at once.
	RememberFor time.Duration
	// Logger is told when the file changes, and when a new one is broken. Nil
	// discards it.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Access authorizes writing. It is safe for concurrent use.
type Access struct {
	passwords *passwords
	rules     rules
	challenge string
}

// New reads the htpasswd file and checks the rules. Its error names every
// problem, with the line where it is one of the file.
func New(cfg Config) (*Access, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	rules, err := newRules(cfg.Rules)
	if err != nil {
		return nil, fmt.Errorf("reading the rules of who may write: %w", err)
	}
	a := &Access{rules: rules, challenge: basicChallenge(cfg.Realm)}
	if a.passwords, err = openPasswords(cfg.File, cfg.RememberFor, cfg.Now, cfg.Logger); err != nil {
		return nil, err
	}
	for _, identity := range a.passwords.missing(rules.identities()) {
		cfg.Logger.Warn("a rule names an identity that the htpasswd file does not have", "identity", identity, "file", cfg.File)
	}
	return a, nil
}

// Repositories authorizes writing to repositories.
func (a *Access) Repositories() registry.Authorizer { return repositories{a} }

// Files authorizes writing to files: where [registry.Authorizer] says
// repository, it takes a file's path, without a slash at its start.
func (a *Access) Files() registry.Authorizer { return files{a} }

type repositories struct{ *Access }

// Authorize implements [registry.Authorizer].
func (a repositories) Authorize(r *http.Request, action registry.Action, repository string) (string, error) {
	return a.authorize(r, action, kindRepository, repository)
}

type files struct{ *Access }

// Authorize implements [registry.Authorizer].
func (a files) Authorize(r *http.Request, action registry.Action, path string) (string, error) {
	return a.authorize(r, action, kindFile, path)
}

func (a *Access) authorize(r *http.Request, action registry.Action, kind kind, name string) (string, error) {
	identity, password, ok := r.BasicAuth()
	if !ok {
		return "", a.unauthorized("this needs a name and a password that may write here: send them by HTTP Basic authentication")
	}
	right, err := a.passwords.authenticate(r.Context(), identity, password)
	if err != nil {
		return "", err
	}
	if !right {
		return "", a.unauthorized("the name or the password is wrong")
	}
	if action == registry.ActionLogin {
		return identity, nil
	}
	if err := a.rules.allow(identity, action, kind, name); err != nil {
		return "", registry.Errorf(errcode.ErrorCodeDenied, "%w", err)
	}
	return identity, nil
}

func (a *Access) unauthorized(message string) error {
	e := registry.Errorf(errcode.ErrorCodeUnauthorized, "%s", message)
	e.Challenge = a.challenge
	return e
}

// basicChallenge asks for a name and a password (RFC 7617, section 2).
func basicChallenge(realm string) string {
	return "Basic realm=" + quoted(cmp.Or(realm, DefaultRealm)) + `, charset="UTF-8"`
}

// quoted is a text as a quoted-string (RFC 9110, section 5.6.4).
func quoted(text string) string {
	quoted := []byte{'"'}
	for i := range len(text) {
		c := text[i]
		switch {
		case c == '"' || c == '\\':
			quoted = append(quoted, '\\', c)
		case c < ' ' || c == 0x7f:
			quoted = append(quoted, ' ') // no header holds control characters
		default:
			quoted = append(quoted, c)
		}
	}
	return string(append(quoted, '"'))
}

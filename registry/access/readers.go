package access

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// ReadersConfig says who may read what at a node.
type ReadersConfig struct {
	// Htpasswd is a file as [Config.File] is; "" takes no passwords.
	Htpasswd string
	// Tokens are those that are believed; nil takes none.
	Tokens *TokensConfig
	// Certificates has clients known by the certificates that the listener
	// verified.
	Certificates bool
	// Anonymous is what all may read, whoever they are. Rules say what those
	// may who are known; without any, whoever has a password or a certificate
	// may read everything.
	Anonymous, Rules []ReadRule
	// Images and Files are the upstreams that names are names of, and the
	// defaults those of names that name none; "" means that there is none.
	Images, Files               []Upstream
	DefaultImages, DefaultFiles string
	// Realm and RememberFor are those of [Config].
	Realm       string
	RememberFor time.Duration
	// Logger is told what an operator should know. Nil discards it.
	Logger *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Upstream is one whose names are read.
type Upstream struct {
	Name    string
	Private bool // not all may read what it has: see [ReadRule.Upstreams]
}

// Readers say who may read. They implement [registry.Readers], and are safe for
// concurrent use.
//
// Credentials are HTTP Basic authentication, a Bearer token, or else the
// certificate of the connection. Those that are sent and wrong are refused, also
// for what all may read. Whether there is what was asked for has no part in what
// is answered.
type Readers struct {
	passwords    *passwords // nil takes none
	tokens       *tokens    // nil takes none
	certificates bool
	challenge    string // Basic's, "" where passwords are not asked for

	anonymous, rules []readRule
	images, files    map[string]*Upstream
	defaultImages    *Upstream
	defaultFiles     *Upstream
}

// NewReaders reads the htpasswd file and the keys of tokens, where those are
// files, and checks the rules.
func NewReaders(cfg ReadersConfig) (*Readers, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Readers{certificates: cfg.Certificates, images: upstreams(cfg.Images), files: upstreams(cfg.Files)}
	a.defaultImages, a.defaultFiles = a.images[cfg.DefaultImages], a.files[cfg.DefaultFiles]
	if err := a.readRules(&cfg); err != nil {
		return nil, err
	}
	var err error
	if cfg.Htpasswd != "" {
		if a.passwords, err = openPasswords(cfg.Htpasswd, cfg.RememberFor, cfg.Now, cfg.Logger); err != nil {
			return nil, err
		}
		a.challenge = basicChallenge(cfg.Realm)
	}
	if cfg.Tokens != nil {
		if a.tokens, err = newTokens(*cfg.Tokens, cfg.Now, cfg.Logger); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *Readers) readRules(cfg *ReadersConfig) error {
	var known []string
	for _, up := range slices.Concat(cfg.Images, cfg.Files) {
		if !slices.Contains(known, up.Name) {
			known = append(known, up.Name)
		}
	}
	var err, other error
	if a.anonymous, err = newReadRules(cfg.Anonymous, true, known); err != nil {
		err = fmt.Errorf("reading what everybody may read: %w", err)
	}
	if a.rules, other = newReadRules(cfg.Rules, false, known); other != nil {
		other = fmt.Errorf("reading the rules of who may read: %w", other)
	}
	return errors.Join(err, other)
}

func upstreams(configured []Upstream) map[string]*Upstream {
	byName := make(map[string]*Upstream, len(configured))
	for i := range configured {
		byName[configured[i].Name] = &configured[i]
	}
	return byName
}

// Run keeps the keys of tokens up to date until ctx ends.
func (a *Readers) Run(ctx context.Context) {
	if a.tokens != nil {
		a.tokens.keys.run(ctx)
	}
}

// ReadImage implements [registry.Readers].
func (a *Readers) ReadImage(r *http.Request, req *registry.Request) (registry.Leave, error) {
	if req.Kind == registry.KindBase {
		return a.login(r)
	}
	return a.read(r, a.imageName(req))
}

// imageName is the repository that a request means. One of an upstream that is
// not here is none's.
func (a *Readers) imageName(req *registry.Request) *name {
	up, repository, err := registry.RouteImage(req, a.images, a.defaultImages)
	if err != nil {
		return &name{kind: kindRepository, private: true, name: req.Repository}
	}
	return &name{kindRepository, up.Name, up.Private, repository}
}

// ReadFile implements [registry.Readers].
func (a *Readers) ReadFile(r *http.Request, req *registry.FileRequest) (registry.Leave, error) {
	n := &name{kind: kindFile, private: true, name: req.Path}
	// Content by its digest alone is that of any upstream.
	if _, ok := registry.DigestOfPath(req.Path); !ok {
		if up, path := registry.RouteFile(req, a.files, a.defaultFiles); up != nil {
			n = &name{kindFile, up.Name, up.Private, path}
		}
	}
	if decoded, err := url.PathUnescape(n.name); err == nil {
		n.name = decoded
	}
	return a.read(r, n)
}

// caller is who sent a request.
type caller struct {
	identity string // "" for a token without a subject
	// token is what the caller's was issued for; nil for one who has none.
	token *claims
}

// read says whether a name may be read.
func (a *Readers) read(r *http.Request, n *name) (registry.Leave, error) {
	who, err := a.who(r)
	if err != nil {
		return registry.Leave{}, a.refuse(err, n)
	}
	leave := registry.Leave{Open: letAnybody(a.anonymous, n)}
	if who != nil {
		leave.Identity = who.identity
	}
	switch {
	case leave.Open:
		return leave, nil
	case who == nil:
		return registry.Leave{}, a.refuse(errNobody, n)
	case who.token != nil && who.token.scoped():
		if !a.lets(who.token, n) {
			return registry.Leave{}, a.refuse(errScope, n)
		}
		return leave, nil
	case who.token == nil && len(a.rules) == 0:
		return leave, nil
	}
	if err := let(a.rules, who.identity, n); err != nil {
		return registry.Leave{}, registry.Errorf(errcode.ErrorCodeDenied, "%w", err)
	}
	return leave, nil
}

// login says whether a client is somebody. Where nobody can be, all are welcome.
func (a *Readers) login(r *http.Request) (registry.Leave, error) {
	who, err := a.who(r)
	switch {
	case err != nil:
		return registry.Leave{}, a.refuse(err, nil)
	case who != nil:
		return registry.Leave{Identity: who.identity}, nil
	case a.passwords == nil && a.tokens == nil && !a.certificates:
		return registry.Leave{Open: true}, nil
	}
	return registry.Leave{}, a.refuse(errNobody, nil)
}

// Why credentials do not do.
var (
	errNobody   = errors.New("this needs credentials of somebody who may pull here: log in")
	errPassword = errors.New("the name or the password is wrong")
	errToken    = errors.New("the token does not count here")
	errScope    = errors.New("the token was not issued for pulling this: ask for one that is")
	errScheme   = errors.New("such credentials are not taken here")
)

// who tells who sent a request; nil for one without credentials. Errors are
// those above, and what hinders the judgement.
func (a *Readers) who(r *http.Request) (*caller, error) {
	header := r.Header["Authorization"]
	if len(header) == 0 {
		return a.certified(r), nil
	}
	if len(header) > 1 {
		return nil, errScheme
	}
	if name, password, ok := r.BasicAuth(); ok {
		switch {
		case name == "" && password == "": // what containers/image sends who was given none
			return a.certified(r), nil
		case a.passwords == nil:
			return nil, errScheme
		}
		right, err := a.passwords.authenticate(r.Context(), name, password)
		if err == nil && !right {
			err = errPassword
		}
		return &caller{identity: name}, err
	}
	scheme, token, _ := strings.Cut(header[0], " ")
	if a.tokens == nil || !strings.EqualFold(scheme, "Bearer") {
		return nil, errScheme
	}
	c, err := a.tokens.verify(r.Context(), strings.TrimSpace(token))
	if err != nil {
		return nil, err
	}
	return &caller{identity: c.Subject, token: c}, nil
}

// certified is who has the certificate of a connection; nil without one, or
// where none count.
func (a *Readers) certified(r *http.Request) *caller {
	if !a.certificates || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	identity := certificateIdentity(r.TLS.VerifiedChains[0][0])
	if identity == "" {
		return nil
	}
	return &caller{identity: identity}
}

// certificateIdentity is whom a certificate names: its subject's common name,
// else its first URI, host or mail address.
func certificateIdentity(cert *x509.Certificate) string {
	var uri, host, mail string
	if len(cert.URIs) > 0 {
		uri = cert.URIs[0].String()
	}
	if len(cert.DNSNames) > 0 {
		host = cert.DNSNames[0]
	}
	if len(cert.EmailAddresses) > 0 {
		mail = cert.EmailAddresses[0]
	}
	return cmp.Or(cert.Subject.CommonName, uri, host, mail)
}

// lets says whether a token was issued for pulling from a repository. Its names
// are those that a client would use at this node, so that one is the default
// upstream's unless it names another: two upstreams may have a repository of one
// name.
func (a *Readers) lets(token *claims, n *name) bool {
	return n.kind == kindRepository && n.upstream != "" && slices.ContainsFunc(token.pulls(), func(repository string) bool {
		named := a.imageName(&registry.Request{Repository: repository})
		return named.upstream == n.upstream && named.name == n.name
	})
}

// refuse is the answer to credentials that do not do for a name, or for anything
// if it is nil.
func (a *Readers) refuse(why error, n *name) error {
	if !slices.ContainsFunc([]error{errNobody, errPassword, errToken, errScope, errScheme}, func(e error) bool { return errors.Is(why, e) }) {
		return why // it is not the credentials' fault
	}
	e := registry.Errorf(errcode.ErrorCodeUnauthorized, "%w", why)
	switch {
	case a.tokens != nil && (a.tokens.cfg.Realm != "" || a.challenge == ""):
		e.Challenge = a.tokens.challenge(why, n)
	case a.challenge != "":
		e.Challenge = a.challenge
	default: // nothing that a header could ask for (RFC 9110, section 15.5.2)
		e.Code = errcode.ErrorCodeDenied
		if a.certificates && errors.Is(why, errNobody) {
			e.Message = "this needs a client certificate of somebody who may pull here"
		}
	}
	if errors.Is(why, errToken) {
		e.Message = errToken.Error() // the reason is for the log
	}
	return e
}

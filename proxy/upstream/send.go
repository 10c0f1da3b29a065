package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"entrepot/proxy/loop"

	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// maxRedirects bounds the hops of one request.
	maxRedirects = 5
	// maxDiscard is how much of an answer nobody wants is read, in bytes, to
	// keep its connection.
	maxDiscard = 16 << 10
)

// attempt asks one endpoint once.
func (u *Upstream) attempt(ctx context.Context, e *Endpoint, req *Request, release func()) (*Response, *Error) {
	what := req.Method + " " + e.String() + " " + req.Path
	start := time.Now()
	resp, err := u.send(ctx, e, req)
	seen := Observation{Host: e.base.Host, Method: req.Method, Latency: time.Since(start)}
	if resp != nil {
		seen.Status = resp.StatusCode
	}
	if told := (*Error)(nil); errors.As(err, &told) {
		seen.Status = told.Status
	}
	u.cfg.Observe(seen)
	if err != nil {
		return nil, sendError(err).at(what)
	}

	failure := statusError(resp, req.isConditional())
	if failure == nil && !u.cfg.Files {
		failure = checkEncoding(resp)
	}
	if failure == nil && req.Check != nil {
		if err := req.Check(resp); err != nil {
			failure = &Error{Kind: Invalid, Err: err}
		}
	}
	var at extent
	if failure == nil {
		at, failure = req.place(resp)
	}
	if failure != nil {
		dismiss(resp)
		failure.Status = resp.StatusCode
		return nil, failure.at(what)
	}
	b := &body{
		src: resp.Body, ctx: ctx, limiter: u.limiter, endpoint: e,
		skip: at.skip, length: at.length, release: release,
		reported: true, // what fails before it is handed out, this method reports
	}
	if err := b.discard(); err != nil {
		resp.Body.Close()
		return nil, sendError(&networkError{err}).at(what)
	}
	b.reported = false
	resp.Body = b
	if req.Method == http.MethodHead || resp.StatusCode == http.StatusNotModified {
		b.report(nil)
	} else {
		e.answered()
	}
	return &Response{Response: resp, Endpoint: e, TotalSize: at.total}, nil
}

// checkEncoding refuses an answer that was transformed on its way: what was
// asked for is the bytes that have the digest.
func checkEncoding(resp *http.Response) *Error {
	for _, encoding := range resp.Header.Values("Content-Encoding") {
		if encoding != "" && encoding != "identity" {
			return invalidf("sent Content-Encoding %.80q where none was asked for", encoding)
		}
	}
	return nil
}

// send gets the answer to a request wherever the endpoint redirects it to. Only
// requests to the endpoint's own origin are authenticated, and once a redirect
// has left it, none is.
func (u *Upstream) send(ctx context.Context, e *Endpoint, req *Request) (*http.Response, error) {
	x := new(exchange)
	if req.Repository != "" {
		x.scope = auth.ScopeRepository(e.prefix+req.Repository, auth.ActionPull)
		ctx = auth.WithScopes(ctx, x.scope)
	}
	ctx = context.WithValue(ctx, exchangeKey{}, x)

	target := e.url(req.Path, req.Query)
	own := true
	var seen []string
	for {
		seen = append(seen, target.String())
		header := req.header()
		if u.cfg.LoopID != "" {
			header.Set(loop.Header, loop.Value(ctx, u.cfg.LoopID))
		}
		hr := (&http.Request{Method: req.Method, URL: target, Host: target.Host, Header: header}).WithContext(ctx)
		resp, err := u.roundTrip(e, hr, own)
		if err != nil {
			return nil, err
		}
		next, err := redirectTarget(resp)
		if err == nil && next == nil {
			return resp, nil
		}
		dismiss(resp)
		if err != nil {
			return nil, err
		}
		switch {
		case next.Scheme != "https" && next.Scheme != "http" || next.Host == "":
			return nil, invalidf("%s redirects to something that is not HTTP", target.Host)
		case next.Scheme == "http" && target.Scheme == "https":
			return nil, invalidf("%s redirects from https to http, on %s", target.Host, next.Host)
		case !u.redirects.allows(next):
			return nil, invalidf("%s redirects to %s, which is not among the hosts that it may redirect to: if files do come from there, add it to redirect_hosts", target.Host, next.Host)
		case slices.Contains(seen, next.String()):
			return nil, invalidf("%s redirects in a circle", target.Host)
		case len(seen) > maxRedirects:
			return nil, invalidf("%s redirects more than %d times", e.base.Host, maxRedirects)
		}
		own = own && sameOrigin(e.base, next)
		target = next
	}
}

func (u *Upstream) roundTrip(e *Endpoint, hr *http.Request, own bool) (*http.Response, error) {
	if own {
		return e.client.Do(hr)
	}
	hr.Header.Set("User-Agent", u.cfg.UserAgent)
	resp, err := u.transport.RoundTrip(hr)
	if err != nil {
		return nil, fmt.Errorf("redirected to %s: %w", hr.URL.Host, err)
	}
	return resp, nil
}

func isRedirect(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return resp.Header.Get("Location") != ""
	}
	return false
}

// redirectTarget is where an answer redirects to, nil when it does not.
func redirectTarget(resp *http.Response) (*url.URL, error) {
	if !isRedirect(resp) {
		return nil, nil //nolint:nilnil // as documented
	}
	next, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return nil, invalidf("%s redirects to something that is not a URL", resp.Request.URL.Host)
	}
	// A redirect brings neither credentials nor a place in the document.
	next.User, next.Fragment, next.RawFragment = nil, "", ""
	return next, nil
}

// dismiss ends an answer that nobody wants.
func dismiss(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxDiscard)
	resp.Body.Close()
}

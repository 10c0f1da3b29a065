package peers

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// greetingPath is where a node says who it is, and with ?digest= how far it is with
// content. To all but peers there is nothing.
const greetingPath = "/_peer"

// greeting is the answer, in JSON.
type greeting struct {
	ID   string `json:"id"`
	Run  string `json:"run"`
	Have int64  `json:"have"` // bytes that it could send now
}

// maxGreeting bounds such an answer, in bytes.
const maxGreeting = 4 << 10

// ask greets a peer, about content unless d is "". The answer is a node's that has
// the secret.
func (g *Group) ask(ctx context.Context, p *Peer, d digest.Digest) (greeting, error) {
	uri := greetingPath
	if d != "" {
		uri += "?digest=" + string(d)
	}
	r, err := g.newRequest(ctx, p, uri)
	if err != nil {
		return greeting{}, err
	}
	resp, err := p.transport.RoundTrip(r)
	if err != nil {
		return greeting{}, fmt.Errorf("greeting %s: %w", p.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxGreeting))
	switch {
	case err != nil:
		return greeting{}, fmt.Errorf("greeting %s: %w", p.name, err)
	case resp.StatusCode == http.StatusForbidden:
		return greeting{}, fmt.Errorf("greeting %s: it answered %q", p.name, body)
	case resp.StatusCode != http.StatusOK:
		return greeting{}, fmt.Errorf("greeting %s: %s: it is no node with peers", p.name, resp.Status)
	case !hmac.Equal([]byte(resp.Header.Get(answerHeader)), []byte(g.signer.answer(r.Header.Get("Authorization"), body))):
		return greeting{}, fmt.Errorf("greeting %s: %w", p.name, errSignature)
	}
	var a greeting
	if err := json.Unmarshal(body, &a); err != nil || a.ID == "" {
		return greeting{}, fmt.Errorf("greeting %s: %w", p.name, errors.Join(errors.New("it does not say who it is"), err))
	}
	return a, nil
}

// newRequest is a signed request to a peer. uri is a path and a query.
func (g *Group) newRequest(ctx context.Context, p *Peer, uri string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base.String()+uri, nil)
	if err != nil {
		return nil, fmt.Errorf("asking %s for %s: %w", p.name, uri, err)
	}
	r.Header.Set("User-Agent", "entrepot")
	g.signer.sign(r, time.Now())
	return r, nil
}

// answer says who this node is.
func (g *Group) answer(w http.ResponseWriter, r *http.Request) {
	a := greeting{ID: g.cfg.ID, Run: g.run}
	if d := digest.Digest(r.URL.Query().Get("digest")); d.Validate() == nil && g.cfg.Progress != nil {
		a.Have = g.cfg.Progress(r.Context(), d)
	}
	body, err := json.Marshal(a)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set(answerHeader, g.signer.answer(r.Header.Get("Authorization"), body))
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(body)
}

package clientconf

import (
	"bytes"
	"fmt"
	"net"
	"net/url"
	"slices"
	"time"
)

// Client is a program that pulls.
type Client string

// The clients.
const (
	Containerd Client = "containerd"
	Docker     Client = "docker"
	Podman     Client = "podman" // and skopeo, buildah
	CRIO       Client = "crio"
	Kubeadm    Client = "kubeadm"
	Curl       Client = "curl" // and all else that downloads files
)

// Clients are all of them.
func Clients() []Client { return []Client{Containerd, Docker, Podman, CRIO, Kubeadm, Curl} }

// Server is the node or router that a client is pointed at.
type Server struct {
	URL *url.URL // scheme, host and port
	Description
	// Untrusted servers are asked only for what the client verifies: content by
	// its digest, never what a tag means.
	Untrusted bool
	// CA is what the server's certificate is verified by, in PEM, besides what
	// the machine trusts; nil for nothing.
	CA []byte
	// DialTimeout is how long a client waits for the server before it goes on
	// without, where it can be told.
	DialTimeout time.Duration
}

// plain says whether the server speaks HTTP without TLS.
func (s *Server) plain() bool { return s.URL.Scheme == "http" }

// loopback says whether the server is on this machine.
func (s *Server) loopback() bool {
	ip := net.ParseIP(s.URL.Hostname())
	return s.URL.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// ParseURL reads the URL of a server.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("%q is not a URL: write it with http:// or https://, such as https://node.example.org", text)
	case u.User != nil:
		return nil, fmt.Errorf("the URL of %s has a user: clients take credentials from their own logins", u.Host)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q has more than scheme, host and port: clients ask below /v2/ of the host", text)
	}
	host, port := u.Hostname(), ""
	if net.ParseIP(host) == nil {
		if u.Port() != "" {
			port = ":" + u.Port()
		}
		if err := CheckName(host + port); err != nil {
			return nil, err
		}
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// Action is what becomes of a file.
type Action string

// The actions.
const (
	Create    Action = "create"
	Change    Action = "change"
	Unchanged Action = "unchanged"
)

// File is a file as it is to be.
type File struct {
	Path    string `json:"path"` // as the client sees it
	Action  Action `json:"action"`
	Content string `json:"content"` // all of it

	part part
	seen seen
}

// Plan is what a client needs to use a server.
type Plan struct {
	Client Client `json:"client"`
	Files  []File `json:"files"`
	// Notes are what a person should know.
	Notes []string `json:"notes,omitempty"`
	// After is what has to be done for the files to be in force.
	After []string `json:"after,omitempty"`
	// Advice is text to use by hand, where a client has no file for it.
	Advice string `json:"advice,omitempty"`
}

// Changed says whether any file is not yet as it is to be.
func (p *Plan) Changed() bool {
	return slices.ContainsFunc(p.Files, func(f File) bool { return f.Action != Unchanged })
}

// planner makes the plan of one client.
type planner struct {
	machine *Machine
	server  *Server
	plan    *Plan
}

// Plan says what has to be in a client's files for it to use a server. An error
// names the file that cannot be read or merged.
func (m *Machine) Plan(client Client, server *Server) (*Plan, error) {
	p := &planner{machine: m, server: server, plan: &Plan{Client: client}}
	var err error
	switch client {
	case Containerd:
		err = p.containerd(server.Upstreams)
	case Docker:
		err = p.docker()
	case Podman:
		err = p.containers()
	case CRIO:
		err = p.crio()
	case Kubeadm:
		err = p.kubeadm()
	case Curl:
		p.curl()
	default:
		err = fmt.Errorf("%q is no client that is known here", client)
	}
	if err != nil {
		return nil, err
	}
	return p.plan, nil
}

func (p *planner) note(format string, args ...any) {
	p.plan.Notes = append(p.plan.Notes, fmt.Sprintf(format, args...))
}

// file adds a file to the plan. merge puts our part into what is there without
// it, which is nil when there is no file, and says how to take it out again. A
// file that says all of it already is left alone. after is the command that has a
// change of it taken into use; "" for none.
func (p *planner) file(path, after string, merge func(old []byte) ([]byte, part, error)) error {
	s, err := p.machine.look(path)
	if err != nil {
		return err
	}
	content, part, err := merge(s.base)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	f := File{Path: path, Action: Change, Content: string(content), part: part, seen: s}
	switch {
	case s.base != nil && bytes.Equal(content, s.base):
		if s.now == nil || bytes.Equal(s.now, s.base) {
			p.note("%s says this already", path)
			return nil
		}
	case s.now == nil:
		f.Action = Create
	case bytes.Equal(content, s.now):
		f.Action = Unchanged
	}
	if after != "" && f.Action != Unchanged && !slices.Contains(p.plan.After, after) {
		p.plan.After = append(p.plan.After, after)
	}
	p.plan.Files = append(p.plan.Files, f)
	return nil
}

// ca has the certificates in a file of their own, and returns its path; "" when
// there are none.
func (p *planner) ca(path string) (string, error) {
	if p.server.CA == nil {
		return "", nil
	}
	return path, p.file(path, "", func(old []byte) ([]byte, part, error) {
		return insertBlock(old, len(old), block{lines: splitLines(p.server.CA)}), part{Form: blockForm}, nil
	})
}

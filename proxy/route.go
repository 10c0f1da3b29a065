package proxy

import (
	"net"
	"strings"

	"entrepot/registry"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// route says which upstream a request means, and which of its repositories:
// by the namespace, else by the first element of the path, else by the Host,
// else the default. An upstream that is not configured is refused: a node is
// not an open proxy.
func (n *Node) route(req *registry.Request) (*upstreamState, string, error) {
	first, rest, more := strings.Cut(req.Repository, "/")
	if req.Namespace != "" {
		up := n.upstreams[req.Namespace]
		if up == nil {
			return nil, "", unknownUpstream(req.Namespace)
		}
		return up, req.Repository, nil
	}
	if up := n.upstreams[first]; up != nil && more {
		return up, rest, nil
	}
	if up := n.byHost(req.Host); up != nil {
		return up, req.Repository, nil
	}
	if more && strings.ContainsAny(first, ".:") {
		return nil, "", unknownUpstream(first)
	}
	if n.fallback == nil {
		return nil, "", registry.Errorf(errcode.ErrorCodeNameUnknown,
			"the request names no upstream, and this node has no default: put the upstream's name before the repository, or in the query as ns=NAME")
	}
	return n.fallback, req.Repository, nil
}

func (n *Node) byHost(hostport string) *upstreamState {
	if up := n.upstreams[hostport]; up != nil || hostport == "" {
		return up
	}
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil
	}
	return n.upstreams[host]
}

func unknownUpstream(name string) error {
	return registry.Errorf(errcode.ErrorCodeNameUnknown,
		"%q is not an upstream of this node: only configured upstreams are served", name)
}

package registry

import (
	"net"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// IsAPI says whether a path is one of the registry's API, and not a file's.
func IsAPI(path string) bool {
	return strings.HasPrefix(path, apiPrefix) || path+"/" == apiPrefix
}

// RouteImage says which upstream a request means, and which of its repositories: by
// the namespace, else by the first element of the path, else by the Host, else the
// fallback, which may be nil. An upstream that is not there is NAME_UNKNOWN: nobody
// is an open proxy.
func RouteImage[T any](req *Request, upstreams map[string]*T, fallback *T) (up *T, repository string, err error) {
	if req.Namespace != "" {
		if up := upstreams[req.Namespace]; up != nil {
			return up, req.Repository, nil
		}
		return nil, "", unknownUpstream(req.Namespace)
	}
	first, rest, more := strings.Cut(req.Repository, "/")
	if up := upstreams[first]; up != nil && more {
		return up, rest, nil
	}
	if up := byHost(upstreams, req.Host); up != nil {
		return up, req.Repository, nil
	}
	if more && strings.ContainsAny(first, ".:") {
		return nil, "", unknownUpstream(first)
	}
	if fallback == nil {
		return nil, "", Errorf(errcode.ErrorCodeNameUnknown,
			"the request names no upstream, and there is no default here: put the upstream's name before the repository, or in the query as ns=NAME")
	}
	return fallback, req.Repository, nil
}

// RouteFile says which upstream a request means, and which of its files: by the
// first element of the path, else by the Host, else the fallback, which may be nil;
// then up is nil too. The path is percent-encoded as it was sent.
func RouteFile[T any](req *FileRequest, upstreams map[string]*T, fallback *T) (up *T, path string) {
	first, rest, _ := strings.Cut(req.Path, "/")
	if up := upstreams[first]; up != nil {
		return up, rest
	}
	if up := byHost(upstreams, req.Host); up != nil {
		return up, req.Path
	}
	return fallback, req.Path
}

// NoFileUpstream is the error for a path of a file that names no upstream where there is
// no default.
func NoFileUpstream(req *FileRequest) error {
	return Errorf(errcode.ErrorCodeNameUnknown,
		"%s names no upstream of files, and there is no default here: put the upstream's name first, as in /NAME/path", quote("/"+req.Path))
}

// byHost is the upstream of a Host header, with its port or without.
func byHost[T any](upstreams map[string]*T, hostport string) *T {
	if up := upstreams[hostport]; up != nil || hostport == "" {
		return up
	}
	if !strings.Contains(hostport, ":") {
		return nil // the error of what follows would be made for every request
	}
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil
	}
	return upstreams[host]
}

func unknownUpstream(name string) error {
	return Errorf(errcode.ErrorCodeNameUnknown, "%q is not an upstream here: only configured upstreams are served", name)
}

package registry

import (
	"net/http"
	"slices"
	"strings"
)

// Readers says who may read. Its errors are made with [Errorf]: UNAUTHORIZED,
// with its Challenge set, when it is not known who asks, or when other
// credentials could help; DENIED when who asks may not. They are the same
// whether or not there is what was asked for. Any other error is a 500.
type Readers interface {
	// ReadImage judges a request for images. One of KindBase asks whether its
	// credentials are good for anything, as a client that logs in does.
	ReadImage(r *http.Request, req *Request) (Leave, error)
	// ReadFile judges a request for a file.
	ReadFile(r *http.Request, req *FileRequest) (Leave, error)
}

// Leave is leave to read.
type Leave struct {
	Identity string // who asks; "" for who has no name
	Open     bool   // all may read it, whoever they are: shared caches may keep the answer
}

// permitted says whether the request may be answered. If not, it has been.
func (x *exchange) permitted(leave Leave, err error) bool {
	if err != nil {
		x.fail(err)
		return false
	}
	x.obs.Identity = leave.Identity
	if x.restricted = !leave.Open; x.restricted {
		x.header["Vary"] = x.values.varyAuthorization
	}
	return true
}

// immutable is the Cache-Control of content by digest.
func (x *exchange) immutable() []string {
	if x.restricted {
		return x.values.immutablePrivate
	}
	return x.values.immutable
}

// revalidate is the Cache-Control of what a name leads to now.
func (x *exchange) revalidate() []string {
	if x.restricted {
		return x.values.revalidatePrivate
	}
	return x.values.revalidate
}

// confine takes from the header of a file what lets shared caches keep it (RFC
// 9111, section 3), whatever its upstream said, unless all may read it.
func (x *exchange) confine() {
	if !x.restricted {
		return
	}
	kept := []string{"private"}
	for directive := range strings.SplitSeq(strings.Join(x.header["Cache-Control"], ","), ",") {
		directive = strings.TrimSpace(directive)
		switch name, _, _ := strings.Cut(strings.ToLower(directive), "="); name {
		case "", "public", "private", "s-maxage", "must-revalidate", "proxy-revalidate":
		default:
			kept = append(kept, directive)
		}
	}
	x.header["Cache-Control"] = []string{strings.Join(kept, ", ")}
	if vary := x.header["Vary"]; !slices.Contains(vary, "Authorization") {
		x.header["Vary"] = append(slices.Clip(vary), x.values.varyAuthorization...)
	}
}

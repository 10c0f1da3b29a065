package registry

import (
	"errors"
	"net/http"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Action is what somebody wants to do to a repository, besides reading it.
type Action string

// The actions.
const (
	// ActionLogin is to be somebody known, in no repository: what a client
	// asks for when it is given a password.
	ActionLogin Action = "login"
	// ActionPush is to upload and mount blobs, and to set manifests and tags.
	ActionPush Action = "push"
	// ActionDelete is to remove tags, manifests and blobs.
	ActionDelete Action = "delete"
)

// Authorizer says who may write.
type Authorizer interface {
	// Authorize returns who sent r, when they may do the action in the
	// repository (empty for ActionLogin). Errors, made with [Errorf]:
	// UNAUTHORIZED, with its Challenge set, when it is not known who they
	// are; DENIED when they may not. Any other error is a 500.
	Authorize(r *http.Request, action Action, repository string) (identity string, err error)
}

// Anyone lets everybody write, without a name: for tests, and for a registry
// that only its own machine reaches.
type Anyone struct{}

// Authorize implements [Authorizer].
func (Anyone) Authorize(*http.Request, Action, string) (string, error) { return "", nil }

// Caller is who sent a request to write, for events and logs.
type Caller struct {
	Identity  string // as the Authorizer said; "" when it asks nobody's name
	Address   string // of the client, with its port
	Host      string // that the client believes it talks to
	Method    string
	UserAgent string
	RequestID string
}

// authorize says whether the request's sender may do something in the
// repository of the request. If not, it has answered.
func (x *exchange) authorize(action Action) bool {
	if x.authorizer == nil {
		x.fail(Errorf(errcode.ErrorCodeDenied,
			"this registry lets nobody write: its configuration names no identities that may"))
		return false
	}
	identity, err := x.authorizer.Authorize(x.r, action, x.req.Repository)
	if err != nil {
		x.fail(err)
		return false
	}
	x.identify()
	x.obs.Identity = identity
	x.req.Caller = &Caller{
		Identity: identity, Address: x.r.RemoteAddr, Host: x.r.Host, Method: x.r.Method,
		UserAgent: x.r.UserAgent(), RequestID: x.obs.ID,
	}
	return true
}

// ping answers KindBase. Where one has to log in to write, a client that sends
// a password is told whether it is right, and one that sends none is told, with
// a 200 because reading is open, how one is sent: containers/image and others
// decide by this answer whether they will send theirs.
func (x *exchange) ping() {
	x.header["Docker-Distribution-Api-Version"] = x.values.api
	if x.writer != nil && x.authorizer != nil {
		_, err := x.authorizer.Authorize(x.r, ActionLogin, "")
		var told *Error
		switch {
		case err == nil:
		case x.r.Header["Authorization"] == nil && errors.As(err, &told) && told.Challenge != "":
			x.header["Www-Authenticate"] = []string{told.Challenge}
		default:
			x.fail(err)
			return
		}
	}
	x.header["X-Content-Type-Options"] = x.values.nosniff
	x.document(http.StatusOK, x.values.json, []byte("{}"))
}

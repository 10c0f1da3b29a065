package proxy

import (
	"context"
	"errors"
	"net/http"

	"entrepot/blobstore"
	"entrepot/proxy/upstream"
	"entrepot/registry"
	"entrepot/registry/admission"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// clientError tells a client why something could not be had from upstream.
// what is "manifest", "blob", "repository" or "file".
func clientError(err error, what string, up *upstreamState, repo, ref string) error {
	var told *registry.Error
	if errors.As(err, &told) || errors.Is(err, context.Canceled) {
		return err
	}
	unknown := errcode.ErrorCodeNameUnknown
	subject := what + " " + repo
	switch what {
	case "manifest":
		unknown = errcode.ErrorCodeManifestUnknown
	case "blob":
		unknown = errcode.ErrorCodeBlobUnknown
	case "file":
		subject += query(ref)
		ref = ""
	}
	switch {
	case ref == "":
	case isDigest(ref):
		subject += "@" + ref
	default:
		subject += ":" + ref
	}
	answer := func(code errcode.ErrorCode, status int, text string) error {
		e := registry.Errorf(code, "%s", text)
		e.Status, e.RetryAfter, e.Err = status, retryAfter(err), err
		return e
	}
	var ue *upstream.Error
	var busy *admission.Busy
	switch {
	case errors.As(err, &busy) && busy.Share:
		return answer(errcode.ErrorCodeTooManyRequests, http.StatusTooManyRequests, busy.Error()+"; try again when some of them have ended")
	case errors.As(err, &busy):
		return answer(errcode.ErrorCodeUnavailable, http.StatusServiceUnavailable, "this node is busy: "+busy.Error()+"; try again later")
	case errors.Is(err, errTooLarge):
		return answer(errcode.ErrorCodeManifestInvalid, http.StatusBadGateway, up.name+" sent the "+subject+", but "+errTooLarge.Error())
	case errors.Is(err, blobstore.ErrDigestMismatch), errors.Is(err, errWrongDigest), errors.Is(err, errWrongSize):
		return answer(errcode.ErrorCodeUnavailable, http.StatusBadGateway, up.name+" sent wrong bytes for the "+subject+"; nothing was stored")
	case errors.Is(err, errReplaced), errors.Is(err, errNoValidator):
		return answer(errcode.ErrorCodeUnavailable, http.StatusBadGateway, up.name+" changed the "+subject+" while it was fetched, or cannot tell; try again")
	case errors.Is(err, errClosing):
		return answer(errcode.ErrorCodeUnavailable, http.StatusServiceUnavailable, "this node is shutting down")
	case errors.Is(err, blobstore.ErrNotExist):
		return answer(unknown, http.StatusNotFound, up.name+" has no "+subject)
	case errors.Is(err, context.DeadlineExceeded):
		return answer(errcode.ErrorCodeUnavailable, http.StatusGatewayTimeout, up.name+" did not answer in time for the "+subject)
	case !errors.As(err, &ue):
		return answer(errcode.ErrorCodeUnavailable, http.StatusBadGateway, up.name+" broke off while sending the "+subject)
	}
	switch ue.Kind {
	case upstream.Unavailable:
	case upstream.NotFound:
		return answer(unknown, http.StatusNotFound, up.name+" has no "+subject)
	case upstream.Denied:
		return answer(errcode.ErrorCodeDenied, http.StatusForbidden, up.name+" denies this node the "+subject+": it does not exist there, or the node needs other credentials")
	case upstream.RateLimited:
		return answer(errcode.ErrorCodeTooManyRequests, http.StatusTooManyRequests, up.name+" limits the rate of requests; try again later")
	case upstream.Invalid:
		return answer(errcode.ErrorCodeUnavailable, http.StatusBadGateway, up.name+" answered against the protocol for the "+subject)
	}
	if ue.Timeout {
		return answer(errcode.ErrorCodeUnavailable, http.StatusGatewayTimeout, up.name+" did not answer in time for the "+subject)
	}
	return answer(errcode.ErrorCodeUnavailable, http.StatusServiceUnavailable, up.name+" cannot be reached for the "+subject)
}

// isBusy reports that the node itself had no room for a question.
func isBusy(err error) bool {
	_, busy := errors.AsType[*admission.Busy](err)
	return busy
}

func isInvalid(err error) bool {
	var ue *upstream.Error
	return errors.As(err, &ue) && ue.Kind == upstream.Invalid
}

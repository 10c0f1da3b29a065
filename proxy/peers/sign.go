package peers

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"entrepot/proxy/loop"
)

const (
	// scheme is that of the Authorization header of requests between nodes:
	// "Entrepot-Peer <seconds since 1970> <HMAC-SHA-256 in hex>".
	scheme = "Entrepot-Peer"
	// answerHeader has the HMAC of the answer to a greeting.
	answerHeader = "Entrepot-Peer-Answer"
	// maxSkew is how far the clocks of two nodes may be apart. For so long,
	// too, a request that somebody saw can be sent again.
	maxSkew = 5 * time.Minute
)

// Errors of a signature.
var (
	errSignature = errors.New("the signature is not one of this region's: node.peers.secret must be the same at all nodes")
	errSkew      = fmt.Errorf("the request was signed more than %v ago, or ahead: the clocks of the nodes differ", maxSkew)
)

// signer signs with the secret. What is sent in the open does not give it away.
type signer []byte

func (s signer) mac(lines ...string) string {
	h := hmac.New(sha256.New, s)
	_, _ = h.Write([]byte(strings.Join(lines, "\n"))) // a hash never fails
	return hex.EncodeToString(h.Sum(nil))
}

// request is the signature of a request: of all that changes what is answered,
// and of who asks.
func (s signer) request(r *http.Request, uri, at string) string {
	return s.mac("request", at, r.Method, uri, strings.Join(r.Header.Values(loop.Header), ", "), r.Header.Get("Cache-Control"))
}

// sign puts a signature into a request that is to be sent.
func (s signer) sign(r *http.Request, now time.Time) {
	at := strconv.FormatInt(now.Unix(), 10)
	r.Header.Set("Authorization", scheme+" "+at+" "+s.request(r, r.URL.RequestURI(), at))
}

// isSigned says whether a request claims to come from a node.
func isSigned(r *http.Request) bool {
	values := r.Header["Authorization"]
	return len(values) == 1 && strings.HasPrefix(values[0], scheme+" ")
}

// verify checks the signature of a request that was received.
func (s signer) verify(r *http.Request, now time.Time) error {
	at, mac, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), scheme+" "), " ")
	if !hmac.Equal([]byte(mac), []byte(s.request(r, r.RequestURI, at))) {
		return errSignature
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > maxSkew {
		return errSkew
	}
	return nil
}

// answer is the signature of an answer to a request.
func (s signer) answer(authorization string, body []byte) string {
	return s.mac("answer", authorization, string(body))
}

package clientconf

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/distribution/reference"
)

// diagnose says why a request was not answered, and what would help.
func diagnose(err error) string {
	at, where := err, ""
	if u, ok := errors.AsType[*url.Error](err); ok {
		at = u.Err
		if parsed, err := url.Parse(u.URL); err == nil {
			where = parsed.Host
		}
	}
	if dns, ok := errors.AsType[*net.DNSError](at); ok {
		if dns.IsNotFound {
			return fmt.Sprintf("the name %s is not in the DNS: is it spelt right, and does this machine ask the right name server?", dns.Name)
		}
		return fmt.Sprintf("the name %s could not be looked up: %v", dns.Name, at)
	}
	if text := diagnoseTLS(at, where); text != "" {
		return text
	}
	timeout, ok := errors.AsType[net.Error](at)
	switch {
	case errors.Is(at, syscall.ECONNREFUSED):
		return fmt.Sprintf("nothing listens at %s (connection refused): is it running, and is the port right?", where)
	case errors.Is(at, syscall.EHOSTUNREACH), errors.Is(at, syscall.ENETUNREACH):
		return fmt.Sprintf("there is no way to %s from here: %v", where, at)
	case ok && timeout.Timeout(), errors.Is(at, context.DeadlineExceeded):
		return fmt.Sprintf("%s did not answer in time: a firewall may drop what is sent to it", where)
	case errors.Is(at, io.EOF), errors.Is(at, io.ErrUnexpectedEOF), errors.Is(at, syscall.ECONNRESET):
		return fmt.Sprintf("%s closed the connection without an answer: something else may listen there", where)
	}
	return at.Error()
}

// diagnoseTLS says what is wrong with a server's TLS; "" when it is not that.
func diagnoseTLS(err error, where string) string {
	if errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Sprintf("it speaks plain HTTP: write http://%s", where)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Sprintf("it does not speak TLS: is %s the right port, or is it http://?", where)
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "its certificate is of an authority that this machine does not know: name that authority's file with --ca"
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Sprintf("its certificate is not for %s: %v", where, wrong)
	}
	if wrong, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if wrong.Reason == x509.Expired {
			return fmt.Sprintf("its certificate has expired, or the clock of this machine is wrong: %v", wrong)
		}
		return fmt.Sprintf("its certificate is not valid: %v", wrong)
	}
	return ""
}

// refusal says why a manifest was not sent, and what would help.
func (c *checker) refusal(resp *http.Response, named reference.Named) string {
	code, message := ociError(readSome(resp))
	upstream := reference.Domain(named)
	told := resp.Status
	if message != "" {
		told += ": " + message
	}
	switch {
	case code == "NAME_UNKNOWN" && strings.Contains(message, "upstream"):
		return fmt.Sprintf("the upstream %s is not configured at %s: %s", upstream, resp.Request.URL.Host, message)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return fmt.Sprintf("credentials are asked for (%s): either %s wants its clients to log in, or %s wants the node to", told, resp.Request.URL.Host, upstream)
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Sprintf("there is no such image (%s)", told)
	case resp.StatusCode == http.StatusTooManyRequests:
		return fmt.Sprintf("%s has had too many requests for now (%s)", upstream, told)
	case resp.StatusCode == http.StatusUnavailableForLegalReasons:
		return fmt.Sprintf("it was revoked (%s)", told)
	case resp.StatusCode >= http.StatusInternalServerError:
		return fmt.Sprintf("%s cannot get it from %s now (%s)", resp.Request.URL.Host, upstream, told)
	}
	return told
}

// ociError reads an error as registries tell it (OCI Distribution v1.1, "Error
// Codes"); it is empty for other bodies.
func ociError(body string) (code, message string) {
	var told struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal([]byte(body), &told); err != nil || len(told.Errors) == 0 {
		return "", ""
	}
	return told.Errors[0].Code, told.Errors[0].Message
}

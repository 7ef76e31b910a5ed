package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// Reason is the kind of cause for which a client is not online.
type Reason string

// The reasons.
const (
	ReasonNoHost           Reason = "no_such_host"
	ReasonConnection       Reason = "connection_refused"
	ReasonUnreachable      Reason = "unreachable" // no route, or no answer in time
	ReasonUnknownAuthority Reason = "unknown_authority"
	ReasonWrongHost        Reason = "wrong_host" // the certificate is for another one
	ReasonExpired          Reason = "certificate_expired"
	ReasonCertificate      Reason = "bad_certificate" // for another cause
	ReasonTLS              Reason = "no_tls"          // the server speaks another protocol
	ReasonOtherService     Reason = "other_service"
	ReasonNoWaxwing        Reason = "no_waxwing"
	ReasonInviteRequired   Reason = "invite_required"
	ReasonInvalidInvite    Reason = "invalid_invite"
	ReasonNotAllowed       Reason = "not_allowed" // the account is not on the server's list
	ReasonExpelled         Reason = "expelled"    // the server's operator refuses the account
	ReasonRateLimited      Reason = "rate_limited"
	ReasonUnavailable      Reason = "unavailable" // busy, or shutting down
	ReasonRefused          Reason = "refused"     // for another cause, see Refusal
	ReasonLost             Reason = "connection_lost"
	ReasonClosed           Reason = "closed" // the client or its home
)

// The messages of refusals to admit an account, in all protocols of the server.
var admissions = map[string]Reason{"invite required": ReasonInviteRequired, "invalid invite": ReasonInvalidInvite,
	"not on the allowlist": ReasonNotAllowed, "expelled by the operator of the service": ReasonExpelled}

// wsaConnectionRefused is the code of a refused connection on Windows.
const wsaConnectionRefused = syscall.Errno(10061)

// reasonOf returns the kind of an error that ended a connection or an attempt.
func reasonOf(err error) Reason {
	var (
		name     *net.DNSError
		unknown  x509.UnknownAuthorityError
		other    x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		record   tls.RecordHeaderError
		planned  *endSession
		timeout  net.Error
		refusal  = asRefusal(err)
		isCaused = func(codes ...error) bool {
			for _, code := range codes {
				if errors.Is(err, code) {
					return true
				}
			}
			return false
		}
	)
	switch {
	case err == nil:
		return ""
	case isCaused(ErrClosed, ErrStorageKey, ErrHome):
		return ReasonClosed
	case isCaused(ErrOtherService):
		return ReasonOtherService
	case isCaused(ErrNoWaxwing):
		return ReasonNoWaxwing
	case refusal != nil:
		switch reason := admissions[refusal.Message]; {
		case reason != "":
			return reason
		case refusal.Code == codeRateLimited:
			return ReasonRateLimited
		case refusal.Code == codeUnavailable:
			return ReasonUnavailable
		}
		return ReasonRefused
	case errors.As(err, &planned):
		return ReasonUnavailable
	case errors.As(err, &name):
		return ReasonNoHost
	case isCaused(syscall.ECONNREFUSED, wsaConnectionRefused):
		return ReasonConnection
	case errors.As(err, &unknown):
		return ReasonUnknownAuthority
	case errors.As(err, &other):
		return ReasonWrongHost
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return ReasonExpired
	case errors.As(err, &invalid), errors.As(err, &verify):
		return ReasonCertificate
	case errors.As(err, &record), isCaused(http.ErrSchemeMismatch):
		return ReasonTLS
	case isCaused(syscall.EHOSTUNREACH, syscall.ENETUNREACH, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ReasonUnreachable
	}
	return ReasonLost
}

// Reason returns the kind of cause for which the client is not online; "" when it is, and before
// the first attempt.
func (s State) Reason() Reason { return reasonOf(s.Err) }

// Problem describes the cause in a sentence for people; "" if there is none. Parts of it come
// from the server or from its certificate.
func (s State) Problem() string {
	var other x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch reason := s.Reason(); reason {
	case "":
		return ""
	case ReasonNoHost:
		if name := (*net.DNSError)(nil); errors.As(s.Err, &name) && !name.IsNotFound {
			return fmt.Sprintf("the address of %s cannot be looked up", name.Name)
		}
		return "no such host: " + s.Host
	case ReasonConnection:
		return s.Host + " refuses the connection"
	case ReasonUnreachable:
		return s.Host + " does not answer"
	case ReasonUnknownAuthority:
		return "the certificate of " + s.Host + " is signed by an unknown authority"
	case ReasonWrongHost:
		if errors.As(s.Err, &other) && len(other.Certificate.DNSNames) > 0 {
			return fmt.Sprintf("the certificate of %s does not match the host: it is for %.100s", s.Host, strings.Join(other.Certificate.DNSNames, ", "))
		}
		return "the certificate of " + s.Host + " does not match the host"
	case ReasonExpired:
		if errors.As(s.Err, &invalid) && invalid.Cert != nil && time.Now().Before(invalid.Cert.NotBefore) {
			return "the certificate of " + s.Host + " is not valid before " + invalid.Cert.NotBefore.Local().Format(time.DateTime)
		} else if invalid.Cert != nil {
			return "the certificate of " + s.Host + " has expired on " + invalid.Cert.NotAfter.Local().Format(time.DateTime)
		}
		return "the certificate of " + s.Host + " has expired"
	case ReasonCertificate:
		return "the certificate of " + s.Host + " is not accepted: " + innermost(s.Err)
	case ReasonTLS:
		return s.Host + " does not speak https"
	case ReasonNoWaxwing:
		return s.Host + " answers, but is no Waxwing service"
	case ReasonInviteRequired:
		return "the server requires an invite code"
	case ReasonInvalidInvite:
		return "the server does not accept the invite code"
	case ReasonNotAllowed:
		return "the account is not on the server's list of those that it admits"
	case ReasonExpelled:
		return "the server's operator has expelled the account"
	case ReasonRateLimited:
		return "rate limited until " + s.Next.Local().Format(time.TimeOnly)
	case ReasonUnavailable:
		return "the server is busy or shutting down"
	case ReasonOtherService, ReasonRefused, ReasonClosed:
		return s.Err.Error()
	}
	return "the connection to " + s.Host + " was lost: " + innermost(s.Err)
}

// innermost returns the message of the last error in a chain.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// sentences describe the codes of refusals for people, where a message only repeats the code.
var sentences = map[string]string{
	codeForbidden:      "this account may not do that: only the owner and the admins of a room add, remove and change its members",
	codeNotFound:       "the server has nothing of that name",
	codeUnauthorized:   "the server does not accept the account's proof of its name",
	codeResumeFailed:   "the session has ended",
	codeRateLimited:    "too many requests in a short time",
	codeLimitExceeded:  "a limit of the server is reached",
	codeUnavailable:    "the server is busy or shutting down",
	codeInternal:       "the server has an internal error",
	codeEpochConflict:  "another change of the group came first",
	codeInvalidRequest: "the server does not accept the request",
	codePruned:         "the messages are no longer on the server",
}

// sentenceOf returns the message of a refusal, or a sentence for its code if it says no more than
// that.
func sentenceOf(code, message string) string {
	if said := strings.ReplaceAll(strings.ToLower(message), " ", "_"); said != "" && said != code && said != "try_again" {
		return message
	}
	if sentence, ok := sentences[code]; ok {
		return sentence
	}
	return "for the reason " + code
}

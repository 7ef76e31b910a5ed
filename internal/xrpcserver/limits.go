package xrpcserver

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
)

// callLimits holds the methods, by the last part of their name, that have a limit of their
// own. All others share limits.Calls, each method for itself.
var callLimits = map[string]string{
	"sendMessage":        limits.CallSends,
	"sendEphemeral":      limits.CallSends,
	"getMessages":        limits.CallReads,
	"getConvos":          limits.CallReads,
	"createConvo":        limits.CallCreates,
	"publishKeyPackages": limits.CallPublishes,
	"registerDevice":     limits.CallRegistrations,
}

// takeCall counts one call of a method by an account. Refusals: rate_limited.
func (s *Server) takeCall(m *ds.Meter, account ds.AccountID, method string) error {
	if err := s.limits.TakeOwn(m, limits.CallBursts, string(account)); err != nil {
		return err
	}
	name := callLimits[method[strings.LastIndexByte(method, '.')+1:]]
	if name == "" {
		name = limits.Calls
	}
	if r := s.limits.TakeN(m, name, string(account), method, 1); r != nil {
		return r
	}
	return nil
}

// writeUsage adds the headers about the tightest limit: those of the gateway, and the three that
// clients of the AT Protocol know.
func (s *Server) writeUsage(header http.Header, m *ds.Meter) {
	u, ok := s.limits.Tightest(m)
	if !ok {
		return
	}
	doors.WriteUsage(header, u)
	header.Set("RateLimit-Limit", strconv.FormatInt(u.Rate.Count, 10))
	header.Set("RateLimit-Remaining", strconv.FormatInt(u.Left, 10))
	header.Set("RateLimit-Reset", strconv.FormatInt(u.Reset.Add(time.Second-1).Unix(), 10)) // rounded up: not before it is true
	header.Set("RateLimit-Policy", fmt.Sprintf("%d;w=%d", u.Rate.Count, doors.Seconds(u.Rate.Period)))
}

package xrpcserver

import (
	"strings"

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
func (s *Server) takeCall(account ds.AccountID, method string) error {
	if err := s.limits.Take(limits.CallBursts, string(account)); err != nil {
		return err
	}
	name := callLimits[method[strings.LastIndexByte(method, '.')+1:]]
	if name == "" {
		name = limits.Calls
	}
	if r := s.limits.TakeN(name, string(account), method, 1); r != nil {
		return r
	}
	return nil
}

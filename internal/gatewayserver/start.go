package gatewayserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
)

// Bounds of a session's properties.
const (
	featuresMax         = 64
	featureBytesMax     = 64
	clientLabelBytesMax = 32
	clientLabelOther    = "unknown"
)

// start starts a session, for a socket or an HTTP call. A request that is refused before its
// token is verified does not use the token up, nor does a refusal by a limit: limits per address
// are counted by identity before the costly checks, limits per account once the account is
// proven, and noted in m, which may be nil.
func (s sessions) start(ctx context.Context, m *ds.Meter, in *gateway.Start, userAgent, address string) (identity.Ready, error) {
	start, err := sessionStart(in, userAgent)
	if err != nil {
		return identity.Ready{}, err
	}
	start.Address = address
	start.Admit = func(_ context.Context, account ds.AccountID) error {
		return s.limits.TakeOwn(m, limits.SessionStarts, string(account))
	}
	ready, err := s.identity.StartSession(ctx, start)
	return ready, refuseToken(err)
}

// sessionStart checks a request to start a session, except for its token, and translates it.
func sessionStart(in *gateway.Start, userAgent string) (identity.Start, error) {
	start := identity.Start{
		Token:       bareToken(in.AuthToken),
		Device:      ds.DeviceID(in.DeviceID),
		ClientLabel: labelOf(userAgent),
		Features:    grant(in.Features),
	}
	if in.InviteCode != nil {
		start.InviteCode = *in.InviteCode
	}
	isBad := func(f string) bool { return f == "" || len(f) > featureBytesMax }
	switch {
	case !ds.IsValidID(in.DeviceID):
		return start, ds.Refuse(ds.InvalidRequest, "invalid device_id")
	case len(start.InviteCode) > identity.InviteCodeBytesMax:
		return start, ds.Refuse(ds.InvalidRequest, "invalid invite_code")
	case len(in.Features) > featuresMax:
		return start, ds.Refuse(ds.InvalidRequest, "too many features")
	case slices.ContainsFunc(in.Features, isBad):
		return start, ds.Refuse(ds.InvalidRequest, "invalid features")
	}
	if in.ClientLabel != nil {
		if start.ClientLabel = *in.ClientLabel; !isClientLabel(start.ClientLabel) {
			return start, ds.Refuse(ds.InvalidRequest, "invalid client_label")
		}
	}
	return start, nil
}

// refuseToken hides the reason for which a token was refused, other than that a clock is wrong.
func refuseToken(err error) error {
	refusal, ok := errors.AsType[*ds.Refusal](err)
	switch {
	case !ok || refusal.Code != ds.Unauthorized:
		return err
	case refusal.Reason == ds.TokenNotYet:
		return ds.Refuse(ds.Unauthorized, "invalid auth_token: %s", refusal.Message)
	}
	return ds.Refuse(ds.Unauthorized, "invalid auth_token")
}

// bareToken returns the token in an auth_token as clients write it: some put "Bearer " before
// it.
func bareToken(s string) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(s), "Bearer "))
}

// isClientLabel reports whether s can label a session: 1–32 characters of [a-z0-9 _-], in which
// nothing looks like a token.
func isClientLabel(s string) bool {
	if s == "" || len(s) > clientLabelBytesMax || identity.ContainsToken(s) {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != ' ' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// labelOf derives a label from the first word of a User-Agent.
func labelOf(userAgent string) string {
	first, _, _ := strings.Cut(strings.TrimLeft(userAgent, " \t"), " ")
	var b strings.Builder
	for _, c := range []byte(first) {
		if b.Len() == clientLabelBytesMax {
			break
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c > ' ' && c < 0x7f {
			b.WriteByte(c)
		}
	}
	if label := b.String(); isClientLabel(label) {
		return label
	}
	return clientLabelOther
}

// grant returns the known features among the wanted ones, each once and sorted.
func grant(wanted []string) []string {
	var granted []string
	for _, f := range gateway.Features {
		if slices.Contains(wanted, f) {
			granted = append(granted, f)
		}
	}
	slices.Sort(granted)
	return granted
}

package xrpcserver

import (
	"net/http"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/doors"
	"waxwing.im/waxwing/internal/identity"
)

// invites holds the method by which an account is admitted to this service.
type invites struct {
	identity *identity.Authenticator
	proxies  doors.Proxies
}

// register registers the only method that accounts without admission may call. It reads its
// body before the token, since both are used up together.
func (n invites) register(s *Server) {
	s.register("POST", xrpc.RedeemInvite, func(w http.ResponseWriter, r *http.Request, _ *room) (any, error) {
		body, err := readBody(w, r, xrpc.BodyMax(xrpc.RedeemInvite))
		if err != nil {
			return nil, err
		}
		var in xrpc.RedeemInviteInput
		if err := xrpc.Decode(body, &in); err != nil {
			return nil, err
		}
		if in.Code == "" || len(in.Code) > identity.InviteCodeBytesMax {
			return nil, &Error{http.StatusBadRequest, xrpc.ErrorInvalidRequest, "code must be 1 to 64 bytes"}
		}
		if _, err := n.identity.RedeemInvite(r.Context(), bearer(r), xrpc.RedeemInvite, n.proxies.AddressOf(r), in.Code); err != nil {
			return nil, err
		}
		return &xrpc.RedeemInviteOutput{Admitted: true}, nil
	})
}

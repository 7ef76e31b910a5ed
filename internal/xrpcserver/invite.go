package xrpcserver

import (
	"net/http"

	"waxwing.im/waxwing/api/xrpc"
)

// registerInvites makes the method callable that accounts may call which are not let in
// yet. It reads its body before the token, for they are used up together.
func (s *Server) registerInvites() {
	s.register("POST", xrpc.RedeemInvite, func(w http.ResponseWriter, r *http.Request, _ *room) (any, error) {
		body, err := readBody(w, r, xrpc.BodyMax(xrpc.RedeemInvite))
		if err != nil {
			return nil, err
		}
		var in xrpc.RedeemInviteInput
		if err := xrpc.Decode(body, &in); err != nil {
			return nil, err
		}
		if in.Code == "" || len(in.Code) > inviteCodeBytesMax {
			return nil, &Error{http.StatusBadRequest, xrpc.ErrorInvalidRequest, "code must be 1 to 64 bytes"}
		}
		if _, err := s.identity.RedeemInvite(r.Context(), bearer(r), xrpc.RedeemInvite, s.proxies.AddressOf(r), in.Code); err != nil {
			return nil, err
		}
		return &xrpc.RedeemInviteOutput{Admitted: true}, nil
	})
}

// inviteCodeBytesMax is that of the gateway too.
const inviteCodeBytesMax = 64

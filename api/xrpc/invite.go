package xrpc

// RedeemInviteInput is the body of redeem, the one method of ours: it lets an account in
// where the server asks for an invite.
type RedeemInviteInput struct {
	Code string `json:"code"`
}

// RedeemInviteOutput is the answer of redeem.
type RedeemInviteOutput struct {
	Admitted bool `json:"admitted"`
}

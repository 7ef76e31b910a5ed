package xrpc

// RedeemInviteInput is the body of redeem, the one method of our own: it admits an account to a
// server that requires an invite.
type RedeemInviteInput struct {
	Code string `json:"code"`
}

// RedeemInviteOutput is the answer of redeem.
type RedeemInviteOutput struct {
	Admitted bool `json:"admitted"`
}

package client

import (
	"context"
	"errors"
)

// service makes calls to the server, each answered by itself. The session speaks to it in
// Go values; the gateway (gateway.go) and the AT Protocol door (xrpc_calls.go) implement it.
// A refusal is an error that wraps a *Refusal.
type service interface {
	// create makes a conversation, with another account if it is a direct one. The error
	// wraps errExists if there is one of that name already.
	create(ctx context.Context, id, peer string) error
	// conversations returns a page of the conversations of this account, and the cursor of
	// the next page, "" behind the last one.
	conversations(ctx context.Context, cursor string) (page []listed, next string, err error)
	// members returns the accounts of a conversation, the admins first.
	members(ctx context.Context, id string) ([]memberRole, error)
	// leave takes this account out of a conversation; heir owns it from then on, "" if it
	// is not ours. The error wraps errNotMember if it is not in it.
	leave(ctx context.Context, id, heir string) error
	// groupInfo returns what a device enters a group by.
	groupInfo(ctx context.Context, id string) (offeredGroup, error)
	// publish publishes key packages and returns how many the server then has of this
	// device; isFirst voids all that it had before.
	publish(ctx context.Context, packages []publication, isFirst bool) (available int64, err error)
	// fetch takes a key package of each of an account's devices.
	fetch(ctx context.Context, account string) ([]offeredPackage, error)
	// revoke ends the sessions of a device of this account and voids its key packages.
	revoke(ctx context.Context, device string) error
	// sendNow and commitNow append to a log and return the place; 0 where the server does
	// not tell.
	sendNow(ctx context.Context, m sendRequest) (seq int64, err error)
	commitNow(ctx context.Context, m commitRequest) (seq int64, err error)
}

// traits are the differences between the doors that the session decides by.
type traits struct {
	pool        string // names the counter that says whether packages were published at this door
	accountsMax int    // how many accounts one commit may add to a conversation, or remove
	namesHeir   bool   // an owner that leaves names the next one
}

// The refusals that say more than their code.
var (
	errExists    = errors.New("the conversation exists already")
	errNotMember = errors.New("the account is not in the conversation")
)

// declined is a refusal that says what; it reads as the refusal.
type declined struct {
	*Refusal
	what error
}

// Unwrap returns the refusal and what it says.
func (d *declined) Unwrap() []error { return []error{d.Refusal, d.what} }

// listed is a conversation in the server's list.
type listed struct {
	id       string
	role     string
	accounts []string // nil if the server does not say
	isEmpty  bool     // nothing was said in it yet, as far as is known
}

// memberRole is an account in a conversation.
type memberRole struct{ account, role string }

// offeredGroup is a GroupInfo as the server hands it out, and the epoch that the
// conversation is in.
type offeredGroup struct {
	message []byte
	epoch   int64
}

// offeredPackage is a key package as the server hands it out, with what the server calls
// the device and the package; "" where it names neither.
type offeredPackage struct {
	device, ref string
	message     []byte
}

// sendRequest asks for a message to be appended. Its JSON stands in journals.
type sendRequest struct {
	Conversation string `json:"conv_id"`
	ID           string `json:"msg_id"`
	Message      []byte `json:"env"`
}

// commitRequest asks for a commit to be appended, with all that takes effect with it. Its
// JSON stands in journals.
type commitRequest struct {
	Conversation string         `json:"conv_id"`
	ID           string         `json:"msg_id"`
	Commit       []byte         `json:"commit"`
	Welcome      *commitWelcome `json:"welcome,omitempty"`
	GroupInfo    []byte         `json:"group_info,omitempty"`
	Add          []string       `json:"add,omitempty"`    // accounts
	Remove       []string       `json:"remove,omitempty"` // accounts
}

// commitWelcome is the Welcome of a commit.
type commitWelcome struct {
	Message []byte      `json:"env"`
	To      []recipient `json:"to"`
}

// recipient is a device that a Welcome is for.
type recipient struct {
	Account       string `json:"user_id"`
	Device        string `json:"device_id"`
	KeyPackageRef string `json:"key_package_ref"`
}

package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// service makes calls to the server, each answered by itself. The session uses it with Go
// values; the gateway (gateway.go) and the AT Protocol door (xrpc_calls.go) implement it. A
// refusal is an error that wraps a *Refusal.
type service interface {
	// create makes a conversation, with another account if it is a direct one. The error wraps
	// errExists if there is one of that name already.
	create(ctx context.Context, id, peer string) error
	// conversations returns a page of the conversations of this account, and the cursor of the
	// next page, "" after the last one.
	conversations(ctx context.Context, cursor string) (page []listed, next string, err error)
	// members returns the accounts of a conversation, the admins first.
	members(ctx context.Context, id string) ([]RoleChange, error)
	// setAdmin makes a member an admin, or an admin a plain member; one that is so is left as it is.
	setAdmin(ctx context.Context, id, account string, isAdmin bool) error
	// leave removes this account from a conversation; successor owns it from then on, "" if it is
	// not ours. The error wraps errNotMember if the account is not in it.
	leave(ctx context.Context, id, successor string) error
	// groupInfo returns the GroupInfo by which a device enters a group.
	groupInfo(ctx context.Context, id string) (offeredGroup, error)
	// publish publishes key packages and returns the server's count for this device; isFirst
	// voids all earlier ones.
	publish(ctx context.Context, packages []publication, isFirst bool) (available int64, err error)
	// fetch takes a key package of each of an account's devices.
	fetch(ctx context.Context, account string) ([]offeredPackage, error)
	// revoke ends the sessions of a device of this account and voids its key packages.
	revoke(ctx context.Context, device string) error
	// sendNow and commitNow append to a log and return the place; 0 where the server does not
	// return it.
	sendNow(ctx context.Context, m sendRequest) (seq int64, err error)
	commitNow(ctx context.Context, m commitRequest) (seq int64, err error)
}

// door opens connections to one of the server's doors.
type door interface {
	// open makes a connection that the server has admitted this device to, and returns the
	// service for calls beside it.
	open(ctx context.Context) (connection, service, error)
}

// connection is one connection to the server, with the events of the followed logs. Requests do
// not wait: they are answered by an event with their number, and those without an answer when a
// connection ends are repeated on the next one. The methods without an answer are called by one
// goroutine at a time.
type connection interface {
	kind() Transport
	// follow reads the log of a conversation from an event on, in place of an earlier follow.
	// followEnded ends that.
	follow(id string, from int64)
	// pollWelcome requests an invitation into a conversation that is not followed, where
	// invitations are not delivered as events.
	pollWelcome(id string)
	// send and commit append to a log; appended or refused is the answer.
	send(number int, m sendRequest)
	commit(number int, m commitRequest)
	// confirm reports that a Welcome was received.
	confirm(w *welcome)
	// acknowledge reports the position up to which a log is on disk here: of a conversation, or
	// accountLog.
	acknowledge(log string, pos int64)
	report(r report)
	// check returns an error if the server must be gone, since it has sent or answered nothing
	// for too long, and requests a sign of life.
	check(pingInterval time.Duration) error
	// heldBack returns the time until which the connection held events back to complete one of
	// them, zero if it never did: the deadlines of the server's answers count from then on.
	heldBack() time.Time
	// incoming returns the server's events, in order for each log. It is closed when the
	// connection has ended, and failure returns the cause.
	incoming() <-chan event
	failure() error
	// close ends the connection and everything that it has started.
	close()
}

// eventsAhead bounds the events that a connection reads ahead of the session.
const eventsAhead = 64

// event is one of the types below.
type event any

// logMessage is a message in the log of a conversation.
type logMessage struct {
	conversation, id string
	seq              int64
	message          []byte // nil if it cannot be an MLS message
	kind             string // the server's classification, or ""
	epoch            *int64 // of the group after it, if the server sends it
}

// The kinds of messages.
const (
	kindApp      = "app"
	kindProposal = "proposal"
	kindCommit   = "commit"
)

// caughtUp reports that everything up to seq was delivered.
type caughtUp struct {
	conversation string
	seq          int64
}

// logGap reports that a message is not available at its place.
type logGap struct{ conversation string }

// followEnded reports that a log is not read any more.
type followEnded struct {
	conversation string
	refusal      *Refusal
}

// appended answers a request: seq is the place, 0 if the server does not return it.
type appended struct {
	number int
	seq    int64
}

// refused answers a request.
type refused struct {
	number  int
	refusal *Refusal
}

// membership reports that this account was added to a conversation or removed.
type membership struct {
	place        accountPlace
	conversation string
	add, remove  []string
}

// accountsChanged reports that accounts were added or removed, in its place in the log.
type accountsChanged struct {
	conversation string
	add, remove  []string
}

// accountsUnclear reports that the accounts of a conversation have to be requested. left is one
// that has left on its own, or "".
type accountsUnclear struct{ conversation, left string }

// packagesLow reports that few key packages of this device are left.
type packagesLow struct{ place accountPlace }

// reportRefused answers a report of an epoch authenticator.
type reportRefused struct {
	conversation string
	epoch        string
	refusal      *Refusal
}

// draining reports that the server is about to restart.
type draining struct{ after time.Duration }

// conversationOf returns the conversation of an event; ok is false for other events.
func conversationOf(e event) (id string, ok bool) {
	switch e := e.(type) {
	case *logMessage:
		return e.conversation, true
	case caughtUp:
		return e.conversation, true
	case logGap:
		return e.conversation, true
	case followEnded:
		return e.conversation, true
	case reportRefused:
		return e.conversation, true
	case *welcome:
		return e.Conversation, true
	case membership:
		return e.conversation, true
	case accountsChanged:
		return e.conversation, true
	case accountsUnclear:
		return e.conversation, true
	}
	return "", false
}

// accountPlace is the place of an event in the log of the account, if there is one.
type accountPlace struct {
	pos      int64
	isLogged bool
}

// welcome is an invitation into a group. Homes store its JSON.
type welcome struct {
	Pos           int64   `json:"pos"`
	ID            string  `json:"welcome_id"`
	Conversation  string  `json:"conv_id"`
	Message       lenient `json:"env"` // nil if it cannot be an MLS message
	KeyPackageRef string  `json:"key_package_ref"`
	Epoch         int64   `json:"epoch"`
	NextSeq       int64   `json:"next_seq"` // the joiner's first seq to read
	isLogged      bool    // Pos is its place in the log of the account
}

// lenient is bytes in base64; text that is not base64 decodes to nil.
type lenient []byte

// UnmarshalJSON decodes a JSON string.
func (l *lenient) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	*l = decoded(text)
	return nil
}

// decoded decodes base64; it returns nil for other text. Such a message is handled like any
// other that is not of MLS.
func decoded(text string) []byte {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return raw
}

// report informs the server about this device's state in a conversation.
type report struct {
	what         reportKind
	conversation string
	epoch        uint64 // of reportAuthenticator, with the value
	value        []byte
}

type reportKind int

// The kinds of reports.
const (
	reportGap reportKind = iota
	reportUndecryptable
	reportReload
	reportAuthenticator
)

// traits holds the differences between the doors that the session depends on.
type traits struct {
	pool           string // name of the counter that shows whether packages were published at this door
	accountsMax    int    // most accounts that one commit may add to a conversation, or remove
	namesSuccessor bool   // an owner that leaves names its successor
}

// The refusals that are more specific than their codes.
var (
	errExists    = errors.New("conversation already exists")
	errNotMember = errors.New("not a member of the conversation")
)

// listed is a conversation in the server's list.
type listed struct {
	id       string
	role     string
	accounts []string     // nil if the server does not list them
	isEmpty  bool         // has no messages yet, as far as is known
	title    string       // that the server holds
	roles    []RoleChange // nil if the server does not list them
}

// offeredGroup is a GroupInfo from the server, and the epoch of the conversation.
type offeredGroup struct {
	message []byte
	epoch   int64
}

// offeredPackage is a key package from the server, with the server's names of the device and
// the package; "" where it names neither.
type offeredPackage struct {
	device, ref string
	message     []byte
}

// sendRequest asks for a message to be appended. Journals store its JSON.
type sendRequest struct {
	Conversation string `json:"conv_id"`
	ID           string `json:"msg_id"`
	Message      []byte `json:"env"`
}

// commitRequest asks for a commit to be appended, with all that takes effect with it. Journals
// store its JSON.
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

// recipient is a device that receives a Welcome.
type recipient struct {
	Account       string `json:"user_id"`
	Device        string `json:"device_id"`
	KeyPackageRef string `json:"key_package_ref"`
}

// Package doors holds the common parts of the server's doors, independent of their protocols:
// the WebSocket and the stream of server-sent events below a connection, the registry of
// open connections with its watchdog, the addresses that callers are counted under, and the
// bound of the request bytes in memory.
//
// A door decodes, authenticates and encodes; it imports this package and no other door.
// It knows no methods, frame types or rules.
package doors

import (
	"errors"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// FreeBytes is the part of a body or frame that is not counted: most are smaller, every
// start of a session is, and a connection that holds so much costs little more than one that
// holds none. So small messages are accepted at any load.
const FreeBytes = 16 << 10

// Bodies of HTTP requests and frames that may be in memory at one time. An address may be
// shared by many people; four of the largest commits of an address or of an account fit at
// once. Strangers, callers without a proven account, have a smaller share, so that room
// remains for accounts, and so have the strangers of one address.
const (
	AddressBodyBytesMax         = 64 << 20
	AccountBodyBytesMax         = 64 << 20
	AddressStrangerBodyBytesMax = 16 << 20
	StrangerBodyBytesMax        = 64 << 20
	TotalBodyBytesMax           = 256 << 20
)

// A body that is PatienceDefault behind the rate of patienceBytes in PatienceDefault is cut:
// 1 KiB/s. Bytes that were sent early earn little credit.
const (
	PatienceDefault = 10 * time.Second
	patienceBytes   = 10 << 10
)

// Intake bounds the bodies of requests and the frames of sockets that are in memory at one
// time: per address and per account, so that none uses up the total; of all strangers, so that
// they cannot exclude accounts; and in total. Bytes count when they arrive, not when they are
// announced, until the request has been answered. It is
// safe for concurrent use.
type Intake struct {
	// Patience bounds the time that a sender may take for 10 KiB; set before use, 0 is 10 s.
	Patience time.Duration

	mu        sync.Mutex // guards the rest
	total     int64
	strangers int64           // of total, without a proven account
	addresses map[string]held // without loopback
	accounts  map[ds.AccountID]int64
}

// held holds the bytes that are counted for an address.
type held struct{ all, strangers int64 }

// NewIntake makes an empty Intake.
func NewIntake() *Intake {
	return &Intake{addresses: map[string]held{}, accounts: map[ds.AccountID]int64{}}
}

// Owner holds the address and account that are charged for bytes: "" for an address that is
// not counted, and "" for the account of a stranger, which has not proven any.
type Owner struct {
	Address string
	Account ds.AccountID
}

// The refusals of bytes that do not fit, which may be repeated soon, and of slow messages.
var (
	ErrFull          = ds.Unavailable(errors.New("too many bytes of requests are in memory"))
	ErrSlow          = ds.Refuse(ds.InvalidRequest, "the request arrives too slowly")
	refuseAddressAll = &ds.Refusal{Code: ds.RateLimited, Message: "too many bytes of requests under way from this address", RetryAfter: time.Second}
	refuseAccountAll = &ds.Refusal{Code: ds.RateLimited, Message: "too many bytes of requests under way of this account", RetryAfter: time.Second}
)

// Take counts n bytes that have arrived, or returns ErrFull or a refusal (rate_limited) where
// they are too many.
func (in *Intake) Take(o Owner, n int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	isStranger, at := o.Account == "", in.addresses[o.Address]
	switch {
	case o.Address != "" && (at.all+n > AddressBodyBytesMax || isStranger && at.strangers+n > AddressStrangerBodyBytesMax):
		return refuseAddressAll
	case !isStranger && in.accounts[o.Account]+n > AccountBodyBytesMax:
		return refuseAccountAll
	case in.total+n > TotalBodyBytesMax, isStranger && in.strangers+n > StrangerBodyBytesMax:
		return ErrFull
	}
	in.add(o, n)
	return nil
}

// Release subtracts n bytes that Take counted.
func (in *Intake) Release(o Owner, n int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.add(o, -n)
}

// add adds n to all counts. The caller holds mu.
func (in *Intake) add(o Owner, n int64) {
	in.total += n
	at := in.addresses[o.Address]
	at.all += n
	if o.Account == "" {
		in.strangers += n
		at.strangers += n
	} else if in.accounts[o.Account] += n; in.accounts[o.Account] == 0 {
		delete(in.accounts, o.Account)
	}
	if in.addresses[o.Address] = at; o.Address == "" || at.all == 0 {
		delete(in.addresses, o.Address)
	}
}

// Held returns the bytes that are counted now, of an address and altogether.
func (in *Intake) Held(address string) (ofAddress, total int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.addresses[address].all, in.total
}

// Message is a body or a frame that counts while it is read and handled.
type Message struct {
	intake     *Intake
	owner      Owner
	seen, held int64
}

// Begin makes a message without any bytes yet.
func (in *Intake) Begin(o Owner) Message { return Message{intake: in, owner: o} }

// Arrived counts n bytes, or refuses them as Take does.
func (m *Message) Arrived(n int) error {
	m.seen += int64(n)
	more := m.seen - FreeBytes - m.held
	if more <= 0 {
		return nil
	}
	if err := m.intake.Take(m.owner, more); err != nil {
		return err
	}
	m.held += more
	return nil
}

// Release ends the message and subtracts its bytes. It may be called again.
func (m *Message) Release() {
	if m.held > 0 {
		m.intake.Release(m.owner, m.held)
	}
	*m = Message{}
}

// Pace measures the time by which a message is behind the least rate. Only the time of waiting
// for bytes counts, so a sender that is read from slowly is not cut for it. The zero value is
// ready.
type Pace struct{ behind time.Duration }

// Left returns the time left to wait for the next bytes.
func (in *Intake) Left(p *Pace) time.Duration { return in.patience() - p.behind }

// Took notes that n bytes were waited for.
func (in *Intake) Took(p *Pace, n int, waited time.Duration) {
	p.behind = max(0, p.behind+waited-in.patience()*time.Duration(min(n, patienceBytes))/patienceBytes)
}

func (in *Intake) patience() time.Duration {
	if in.Patience > 0 {
		return in.Patience
	}
	return PatienceDefault
}

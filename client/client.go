package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"waxwing.im/waxwing/client/internal/home"
	"waxwing.im/waxwing/mls"
)

// StorageKeyBytes is the length of Options.StorageKey.
const StorageKeyBytes = home.StorageKeyBytes

// authority decides which devices and groups are trusted, and caches the accounts that a person
// has verified.
type authority struct{ c *Client }

// keeper changes conversations within a transaction: it applies log events and prepares
// outgoing messages and commits.
type keeper struct{ c *Client }

// errands holds the calls of a session that run in the background. They write their results to
// the home.
type errands struct{ c *Client }

// Options configures a client. Dir, StorageKey, Server and Account are required.
type Options struct {
	// Dir is the home: the directory of the local database. It is created if missing.
	Dir string
	// StorageKey (StorageKeyBytes long) seals all secret or readable data in the home. Store it
	// apart from the home, which cannot be read without it.
	StorageKey []byte
	// Server is the service's URL, such as "https://chat.example".
	Server string
	// ServerDID is the DID that the service must present; "" for the did:web of the Server's
	// host over https, and for the DID that this home has met at the address before. Another
	// one is ErrOtherService.
	ServerDID string
	// Account is the account that the client acts for. A home belongs to one account.
	Account *Account
	// DeviceID is the account's name for this device, 1–128 bytes; "" keeps the one in the
	// home, or generates one.
	DeviceID string

	// InviteCode admits the account where the server requires an invite. It has no effect
	// afterwards and may stay.
	InviteCode string

	// KeyPackages is the number of one-time key packages kept on the server, by default 32: as
	// many other devices can add this one while it is offline.
	KeyPackages int
	// LifetimeMax is the longest lifetime of key packages with which devices are added, by this
	// client or by others, by default mls.LifetimeMax. It should be the same for all members of
	// a group: a commit that adds a device with a longer one is not followed.
	LifetimeMax time.Duration
	// AllowUnverified admits devices that lack a certificate although their account could issue
	// one, such as those of clients that do not support device certificates. A server can then
	// impersonate any account that this device has not seen. It also admits external joins with
	// a new key by accounts with a DID that is not a key, and, when a group is entered again,
	// trusts devices of its members that were not in it. Leave it off.
	AllowUnverified bool
	// PingInterval is the interval at which a silent connection is checked, by default 20 s. It
	// is closed after two and a half times as long.
	PingInterval time.Duration
	// SocketProbe is the wait of a client that runs without a WebSocket before it tries one
	// again, by default 60 s; it doubles with each failure, up to eight times that.
	SocketProbe time.Duration

	// Logger receives messages for developers, without secrets or readable text. By default
	// nothing is logged.
	Logger *slog.Logger
	// HTTPClient is used for calls and for the WebSocket, by default a private one that follows
	// no redirects; another one should not either.
	HTTPClient *http.Client
	// Dial replaces the way connections are made, for tests of bad networks. It is not used
	// with HTTPClient.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock, by default time.Now.
	Now func() time.Time

	useXRPC bool
}

// Option is a setting of Open beside Options.
type Option func(*Options)

// WithXRPC makes the client use the server's AT Protocol interface instead of its gateway. It
// behaves the same, reaches the same accounts, and shares conversations with clients of the
// gateway; the package's documentation lists the differences. A home that was created with it
// should be opened with it.
func WithXRPC() Option { return func(o *Options) { o.useXRPC = true } }

// Client is one device of an account, connected while it is open. Its methods are safe for
// concurrent use.
type Client struct {
	options   Options
	account   *Account
	identity  mls.Identity
	base      *url.URL
	http      *http.Client
	ownsHTTP  bool
	log       *slog.Logger
	db        *database
	ctx       context.Context // ends with the client or its home; its cause is the reason
	cancel    context.CancelCauseFunc
	closed    chan struct{} // closed when run has ended
	door      door
	authority authority
	keeper    keeper
	errands   errands
	traits    traits // of the door

	readMu sync.Mutex // held by Next
	read   int64      // the last event that Next returned; guarded by readMu

	peopleMu sync.RWMutex
	people   map[string]trusted // accounts that a person has verified; guarded by peopleMu
	lost     []string           // devices of our account; guarded by peopleMu

	book *addressBook // names

	lostChanges atomic.Int64 // counts changes of lost

	entryPace   pacer // of requests for GroupInfos
	welcomePace pacer // of requests for invitations, over XRPC

	woken latest // conversations and chores that are due

	stateMu      sync.Mutex
	state        State         // guarded by stateMu
	stateChanged chan struct{} // guarded by stateMu

	observe func(what, conversation string, number uint64, authenticator []byte)

	statsMu sync.Mutex
	stats   Stats // guarded by statsMu
}

// Open opens or creates the home, and begins to connect. It needs no network: history can be
// read and messages can be written at once. ctx is for opening only; Close ends the client.
//
// The error wraps ErrStorageKey, ErrInUse or ErrHome if that is the cause.
func Open(ctx context.Context, o Options, with ...Option) (*Client, error) {
	for _, change := range with {
		change(&o)
	}
	return open(ctx, o, hooks{})
}

// hooks are for tests: crash stops a client between two writes, and observe is called with each
// change of its groups.
type hooks struct {
	crash   func(stage string) error
	observe func(what, conversation string, number uint64, authenticator []byte)
}

// open is Open with hooks.
func open(ctx context.Context, o Options, h hooks) (*Client, error) {
	ownsHTTP := o.HTTPClient == nil
	base, err := checkOptions(&o)
	if err != nil {
		return nil, fmt.Errorf("client options: %w", err)
	}
	at, err := home.Open(ctx, o.Dir, o.StorageKey, h.crash)
	if err != nil {
		return nil, err
	}
	o.StorageKey = nil
	db := &database{home: at, self: o.Account.DID(), cache: map[string]*conversation{}}
	c := &Client{options: o, account: o.Account, base: base, http: o.HTTPClient, ownsHTTP: ownsHTTP, log: o.Logger, db: db,
		closed: make(chan struct{}), woken: newLatest(),
		stateChanged: make(chan struct{}), observe: h.observe, traits: gatewayTraits}
	c.ctx, c.cancel = context.WithCancelCause(at.Context())
	c.book = newAddressBook(c.account.DID())
	c.authority, c.keeper, c.errands = authority{c}, keeper{c}, errands{c}
	c.door = &gatewayDoor{c: c}
	if o.useXRPC {
		c.door, c.traits = &xrpcDoor{c: c}, xrpcTraits
	}
	db.count, db.wake = c.count, c.wake
	if h.observe != nil {
		db.changed = c.keeper.groupChanged
	}
	if err := db.update(ctx, c.load); err != nil {
		c.cancel(err)
		at.Close(ErrClosed)
		return nil, fmt.Errorf("open home: %w", err)
	}
	go c.run()
	return c, nil
}

// load reads the state in memory from the home.
func (c *Client) load(tx *tx) (err error) {
	if err := c.loadIdentity(tx); err != nil {
		return err
	}
	if c.read, err = tx.Counters.Get("application"); err != nil {
		return err
	}
	if err := c.authority.loadPeople(tx); err != nil {
		return err
	}
	if c.lost, err = setting[[]string](tx, "lost"); err != nil {
		return err
	}
	return c.keeper.loadConversations(tx)
}

func checkOptions(o *Options) (*url.URL, error) {
	base, err := url.Parse(o.Server)
	switch {
	case o.Dir == "":
		return nil, errors.New("missing Dir")
	case o.Account == nil:
		return nil, errors.New("missing Account")
	case len(o.StorageKey) != StorageKeyBytes:
		return nil, fmt.Errorf("length of StorageKey is not %d bytes", StorageKeyBytes)
	case len(o.DeviceID) > 128:
		return nil, errors.New("DeviceID is longer than 128 bytes")
	case err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "":
		return nil, errors.New("option Server is not an http or https URL")
	}
	o.KeyPackages = cmp.Or(o.KeyPackages, 32)
	if o.KeyPackages < 1 || o.KeyPackages > 500 {
		return nil, errors.New("KeyPackages is not between 1 and 500")
	}
	o.LifetimeMax = cmp.Or(o.LifetimeMax, mls.LifetimeMax)
	if o.LifetimeMax < keyPackageLife+keyPackageSkew {
		return nil, errors.New("LifetimeMax is shorter than the lifetime of own key packages")
	}
	o.PingInterval = cmp.Or(max(o.PingInterval, 0), 20*time.Second)
	o.SocketProbe = cmp.Or(max(o.SocketProbe, 0), time.Minute)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.HTTPClient == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		if o.Dial != nil {
			transport.DialContext = o.Dial
		}
		o.HTTPClient = &http.Client{Transport: transport,
			// A token belongs to the server it was made for.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return base, nil
}

// Close ends the connection and all work of the client, and waits for both. Undelivered
// messages stay in the home until it is opened again.
func (c *Client) Close() error {
	c.cancel(ErrClosed)
	<-c.closed
	if c.ownsHTTP {
		c.http.CloseIdleConnections()
	}
	return c.db.home.Close(ErrClosed)
}

// DID returns the account that the client acts for.
func (c *Client) DID() string { return c.account.DID() }

// DeviceID returns the account's name for this device.
func (c *Client) DeviceID() string { return c.options.DeviceID }

// groupChanged notifies tests of each epoch that a group enters, once it is on disk.
func (k keeper) groupChanged(before, after *conversation) {
	if after.group != nil && after.phase == Joined && (before == nil || before.group == nil || before.epoch() != after.epoch()) {
		what := "joined"
		if before != nil && before.group != nil && before.phase == Joined && !after.invited {
			what = "entered"
		}
		k.observed(what, after.id, after.epoch(), after.group.EpochAuthenticator())
	}
}

func (k keeper) observed(what, conversation string, number uint64, authenticator []byte) {
	if k.c.observe != nil {
		k.c.observe(what, conversation, number, authenticator)
	}
}

func (c *Client) now() time.Time { return c.options.Now() }

// wake notifies the session that a conversation or chore is due. It carries no data: the work is
// recorded in the home.
func (c *Client) wake(conversation string) { c.woken.set(conversation, 0) }

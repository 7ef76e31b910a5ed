package client

import (
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

// authority decides which devices and groups are believed, and remembers the people that a
// person has verified.
type authority struct{ c *Client }

// keeper changes conversations within a transaction: it takes in what logs say and makes
// what is to be said.
type keeper struct{ c *Client }

// errands are the calls of a session that run in the background. They write to the home
// what they come back with.
type errands struct{ c *Client }

// Options say who a client is and where it lives. Dir, StorageKey, Server and
// Account are needed.
type Options struct {
	// Dir is the home: the directory of the local database. It is made if it is not there.
	Dir string
	// StorageKey (StorageKeyBytes long) seals everything in the home that is secret or
	// readable. Keep it apart from the home; without it the home is lost.
	StorageKey []byte
	// Server is the service's URL, such as "https://chat.example".
	Server string
	// ServerDID is who the service must say it is; "" for the did:web of the Server's
	// host. Over https a service with another name is ErrOtherService.
	ServerDID string
	// Account is whom the client acts for. A home belongs to one account.
	Account *Account
	// DeviceID is the account's name for this device, 1–128 bytes; "" keeps the one
	// that the home has, or makes one up.
	DeviceID string

	// InviteCode admits the account where the server asks for an invite; it is of no
	// use afterwards and may stay.
	InviteCode string

	// KeyPackages is how many one-time key packages wait on the server, by default 32:
	// as many others can add this device while it is away.
	KeyPackages int
	// LifetimeMax is the longest lifetime of key packages with which devices are added, by
	// this client or by others, by default mls.LifetimeMax. It should be the same for all
	// members of a group: a commit that adds a device with a longer one is not followed.
	LifetimeMax time.Duration
	// AllowUnverified lets in devices that their account does not vouch for although
	// it could: those of clients that know no device certificates. A server can then
	// pose as any account that this device has not met. It also lets accounts whose DID
	// is no key come into a group by themselves with a new key, and believes devices of
	// members that were not in a group when that is to be entered anew. Leave it off.
	AllowUnverified bool
	// PingInterval is how often a silent connection is checked, by default 20 s. It
	// is given up after two and a half times as long.
	PingInterval time.Duration
	// SocketProbe is how soon a client that had to do without a WebSocket tries one
	// again, by default 60 s; the wait doubles with each try in vain, up to eight times that.
	SocketProbe time.Duration

	// Logger gets what a developer may want to see; nothing in it is secret or readable
	// text. By default nothing is logged.
	Logger *slog.Logger
	// HTTPClient is used for calls and for the WebSocket, by default one of the
	// client's own, which follows no redirects; another one should not either.
	HTTPClient *http.Client
	// Dial replaces how connections are made, for tests of bad networks. It is not
	// used with HTTPClient.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock, by default time.Now.
	Now func() time.Time

	useXRPC bool
}

// Option changes how a client works, for Open.
type Option func(*Options)

// WithXRPC lets the client speak to the server's AT Protocol door rather than to its
// gateway. It works the same, talks with the same people, and shares conversations with
// those who use the gateway; the package's documentation lists what is different. A home
// that was made with it should be opened with it.
func WithXRPC() Option { return func(o *Options) { o.useXRPC = true } }

// Client is one device of an account, connected for as long as it is open. Its
// methods may be called from any goroutine.
type Client struct {
	options   Options
	account   *Account
	identity  mls.Identity
	base      *url.URL
	http      *http.Client
	ownsHTTP  bool
	log       *slog.Logger
	db        *database
	cancel    context.CancelFunc
	closed    chan struct{} // closed when run has ended
	door      door
	authority authority
	keeper    keeper
	errands   errands
	traits    traits // of the door

	readMu sync.Mutex // held by Next
	read   int64      // the last event that Next gave out; guarded by readMu

	peopleMu sync.RWMutex
	people   map[string]trusted // accounts that a person has verified; guarded by peopleMu
	lost     []string           // devices of our account; guarded by peopleMu

	lostChanges atomic.Int64 // how often lost has changed

	entryPace pacer // of questions for groups
	lookPace  pacer // of those for invitations, over XRPC

	wakeMu sync.Mutex
	woken  map[string]bool // conversations with something to do; guarded by wakeMu
	bell   chan struct{}

	stateMu      sync.Mutex
	state        State         // guarded by stateMu
	stateChanged chan struct{} // guarded by stateMu
	ended        error         // why run ended; guarded by stateMu

	observe func(what, conversation string, number uint64, authenticator []byte)

	stats struct{ connects, gaps, duplicates, undecryptable, commits, lostRaces, rejoins, rewinds atomic.Int64 }
}

// Open opens the home, or makes it, and begins to connect. It needs no network: what
// is known can be read and messages can be written at once. ctx is for opening only;
// Close ends the client.
//
// The error wraps ErrStorageKey, ErrInUse or ErrHome when that is what is wrong.
func Open(ctx context.Context, o Options, with ...Option) (*Client, error) {
	for _, change := range with {
		change(&o)
	}
	return open(ctx, o, hooks{})
}

// hooks are for tests: crash stops a client between two writes, and observe is told
// what happens to its groups.
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
	db := &database{home: at, cache: map[string]*conversation{}}
	c := &Client{options: o, account: o.Account, base: base, http: o.HTTPClient, ownsHTTP: ownsHTTP, log: o.Logger, db: db,
		closed: make(chan struct{}), woken: map[string]bool{}, bell: make(chan struct{}, 1),
		stateChanged: make(chan struct{}), observe: h.observe, traits: gatewayTraits}
	c.authority, c.keeper, c.errands = authority{c}, keeper{c}, errands{c}
	c.door = &gatewayDoor{c: c}
	if o.useXRPC {
		c.door, c.traits = &xrpcDoor{c: c}, xrpcTraits
	}
	db.load = c.keeper.openConversation
	if h.observe != nil {
		db.changed = c.keeper.groupChanged
	}
	err = c.loadIdentity(ctx)
	if err == nil {
		err = db.update(ctx, func(tx *tx) (err error) {
			if c.read, err = tx.Counters.Get("application"); err != nil {
				return err
			}
			if err := c.authority.loadPeople(tx); err != nil {
				return err
			}
			if _, err := tx.Settings.Get("lost", &c.lost); err != nil {
				return err
			}
			_, err = tx.conversations()
			return err
		})
	}
	if err != nil {
		at.Close(ErrClosed)
		return nil, fmt.Errorf("open home: %w", err)
	}
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go c.run(runCtx)
	return c, nil
}

func checkOptions(o *Options) (*url.URL, error) {
	if o.Dir == "" {
		return nil, errors.New("no Dir")
	}
	if o.Account == nil {
		return nil, errors.New("no Account")
	}
	if len(o.StorageKey) != StorageKeyBytes {
		return nil, fmt.Errorf("StorageKey does not have %d bytes", StorageKeyBytes)
	}
	if len(o.DeviceID) > 128 {
		return nil, errors.New("DeviceID is too long")
	}
	base, err := url.Parse(o.Server)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, errors.New("the Server is not an http or https URL")
	}
	if o.KeyPackages == 0 {
		o.KeyPackages = 32
	}
	if o.KeyPackages < 1 || o.KeyPackages > 500 {
		return nil, errors.New("KeyPackages is not in 1–500")
	}
	if o.LifetimeMax == 0 {
		o.LifetimeMax = mls.LifetimeMax
	}
	if o.LifetimeMax < keyPackageLife+keyPackageSkew {
		return nil, errors.New("LifetimeMax is shorter than the life of this package's own key packages")
	}
	if o.PingInterval <= 0 {
		o.PingInterval = 20 * time.Second
	}
	if o.SocketProbe <= 0 {
		o.SocketProbe = time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
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

// Close ends the connection and everything that the client does, and waits for it.
// What is not delivered stays in the home for the next time.
func (c *Client) Close() error {
	c.cancel()
	<-c.closed
	if c.ownsHTTP {
		c.http.CloseIdleConnections()
	}
	return c.db.home.Close(ErrClosed)
}

// DID is the account that the client acts for.
func (c *Client) DID() string { return c.account.DID() }

// DeviceID is the account's name for this device.
func (c *Client) DeviceID() string { return c.options.DeviceID }

// groupChanged tells tests of each epoch that a group enters, once it is on disk.
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

// wake tells the session that a conversation has something to do. It carries no
// data: what there is to do stands in the home.
func (c *Client) wake(conversation string) {
	c.wakeMu.Lock()
	c.woken[conversation] = true
	c.wakeMu.Unlock()
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

func (c *Client) takeWoken() map[string]bool {
	c.wakeMu.Lock()
	defer c.wakeMu.Unlock()
	woken := c.woken
	c.woken = map[string]bool{}
	return woken
}

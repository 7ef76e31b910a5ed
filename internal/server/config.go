package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"time"

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/netguard"
)

// Config holds all settings of a server. The tags are the documentation: flags, environment,
// configuration file, help, the sample and docs/configuration.md are all made from them. The
// zero value is not usable; start from DefaultConfig or from parsed flags.
type Config struct {
	Listen         string        `default:"127.0.0.1:8420" placeholder:"ADDR" help:"Address that clients connect to, as HOST:PORT. Port 0 takes a free one."`
	OpsListen      string        `placeholder:"ADDR" help:"Address of /livez, /readyz and /metrics, as HOST:PORT. Not served when empty. Keep it away from the internet: it has no authentication."`
	Data           string        `default:"data" placeholder:"DIR" help:"Directory of the embedded database and of the service key. Created when missing; only one server can use it at a time."`
	Database       string        `placeholder:"URL" secret:"url" help:"PostgreSQL database to use in place of the embedded one, as postgres://USER:PASSWORD@HOST/NAME. Several servers may share it if they have the same service key and public URL."`
	PublicURL      string        `name:"public-url" placeholder:"URL" help:"Address under which clients and other services reach this one, as https://HOST. It decides the service's DID. http is accepted for localhost only. Without it the DID is that of localhost and the bound port."`
	ServiceKey     string        `placeholder:"FILE" help:"File of the service's private key; made when missing. By default service.key in the data directory."`
	Dev            bool          `help:"Development mode: accepts --egress-loopback, --egress-resolver, --haste and --dev-secret, which weaken security. Not for a server that others can reach."`
	DevSecret      string        `name:"dev-secret" placeholder:"FILE" help:"File of a secret shared with a test harness: XRPC calls with HS256 tokens made from it are accepted, for the account that they claim. Needs --dev."`
	Admission      string        `default:"auto" enum:"auto,open,invite,allowlist" placeholder:"MODE" help:"Accounts that may begin to use the server: open for all that can prove their DID, invite for those with a code (waxwing invite) or on the allowlist, allowlist for those on it (waxwing allow). auto is open when only this machine can connect, else invite. An admitted account stays admitted."`
	PLCDirectory   string        `name:"plc-directory" default:"https://plc.directory" placeholder:"URL" help:"URL of the directory with the keys of did:plc accounts."`
	EgressAllow    []string      `name:"egress-allow" placeholder:"CIDR" help:"Networks, as 10.0.0.0/8, that the server may connect to although they are not public, and host names, as ds.corp, that it may use although they are not public ones. A name needs its network too. May be repeated."`
	EgressHosts    []string      `name:"egress-hosts" placeholder:"HOST" help:"The only hosts, with their subdomains, that the server may call. Any public one when empty. May be repeated."`
	EgressPorts    []string      `name:"egress-ports" placeholder:"PORT" help:"Ports that the server may call. 443 when empty. May be repeated."`
	EgressLoopback bool          `name:"egress-loopback" help:"Call servers on this machine over plain HTTP, for tests with a directory and other servers of their own. Needs --dev."`
	EgressResolver string        `name:"egress-resolver" placeholder:"ADDR" help:"Name server to ask, as HOST:PORT, in place of the system's, for tests with names of their own. Needs --dev."`
	Haste          int           `default:"1" placeholder:"N" help:"Divide the times after which slow clients are cut off by N, for tests. Needs --dev."`
	RecordSenders  bool          `help:"Make new conversations store the sending device with each message. By default the server does not store senders."`
	Keypackages    string        `default:"any" enum:"any,strict" placeholder:"any|strict" help:"Key packages to accept: any text (clients of the first gateway publish placeholders), or strict for valid MLS ones only."`
	MessageBytes   int           `name:"message-bytes" default:"5242880" placeholder:"BYTES" help:"Largest message that the AT Protocol door takes. More than 5 MiB does not fit through a PDS, which cuts answers at 10 MiB: for services that clients call directly. At most 10485760."`
	PingInterval   time.Duration `default:"30s" placeholder:"TIME" help:"How often a silent connection is pinged."`
	PingMisses     int           `default:"2" placeholder:"N" help:"How many unanswered pings a connection survives."`
	Heartbeat      time.Duration `default:"25s" placeholder:"TIME" help:"Longest time without a write to an open connection: proxies cut silent ones, most of them after a minute."`
	SessionTTL     time.Duration `name:"session-ttl" default:"1h" placeholder:"TIME" help:"How long a session without a connection can be resumed."`
	Limit          []string      `placeholder:"NAME=COUNT/PERIOD" help:"Change a rate limit: COUNT at once, then one more each PERIOD/COUNT, as in sends=120/1m. NAME=off or all=off removes it. May be repeated."`
	TrustedProxies []string      `name:"trusted-proxies" placeholder:"CIDR" help:"Addresses of reverse proxies, as 10.0.0.0/8. X-Forwarded-For from them names the address that limits per address count; from others it is ignored. May be repeated."`
	LogLevel       string        `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Lowest level to log, to standard error: debug, info, warn or error."`
	LogFormat      string        `default:"text" enum:"text,json" placeholder:"FORMAT" help:"Format of the log: text or json."`

	// LogTo is the destination of log lines; nil discards them.
	LogTo io.Writer `kong:"-"`
	// Listener is used instead of listening at Listen; nil: listen. Its address is a
	// *net.TCPAddr.
	Listener net.Listener `kong:"-"`
	// Now is the clock of this machine; nil is the system's. Stored times are compared with the
	// clock of the database, which may be another.
	Now func() time.Time `kong:"-"`
	// OnDial is called with every address that is about to be dialled; nil: no call.
	OnDial func(netguard.Dial) `kong:"-"`
	// Version is reported by metrics.
	Version string `kong:"-"`
}

// DefaultConfig returns the configuration of a server on a free port of the loopback address
// with its database in dir, for tests and the demo.
func DefaultConfig(dir string) Config {
	return Config{
		Listen: "127.0.0.1:0", Data: dir, Keypackages: "any", MessageBytes: core.MessageBytesDefault,
		PingInterval: 30 * time.Second, PingMisses: 2, Heartbeat: 25 * time.Second, SessionTTL: time.Hour,
		Admission: "auto", PLCDirectory: identity.PLCDirectory,
		LogLevel: "info", LogFormat: "text", Haste: 1,
	}
}

// patience returns the time d after which a slow client is cut off.
func (c Config) patience(d time.Duration) time.Duration { return d / time.Duration(max(c.Haste, 1)) }

// The bounds of --message-bytes: the gateway's own limit, and the one of the lexicons.
const (
	messageBytesMin = 256 << 10
	messageBytesMax = 10 << 20
)

// Validate checks the configuration as a whole. Every message names the option.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(isAddress(c.Listen), "listen: %q is not HOST:PORT", c.Listen)
	check(c.OpsListen == "" || isAddress(c.OpsListen), "ops-listen: %q is not HOST:PORT", c.OpsListen)
	check(c.Data != "", "data: name a directory")
	if c.Database != "" {
		u, err := url.Parse(c.Database) // err would repeat the URL and with it the password
		check(err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql"), "database: want postgres://USER:PASSWORD@HOST/NAME")
	}
	if c.PublicURL != "" {
		if _, err := identity.ServiceDID(c.PublicURL); err != nil {
			errs = append(errs, fmt.Errorf("public-url: %w", err))
		}
	}
	check(c.Keypackages == "any" || c.Keypackages == "strict", "keypackages: %q is neither any nor strict", c.Keypackages)
	check(c.MessageBytes >= messageBytesMin && c.MessageBytes <= messageBytesMax, "message-bytes: %d is not within %d and %d", c.MessageBytes, messageBytesMin, messageBytesMax)
	check(c.PingInterval >= 10*time.Millisecond && c.PingInterval <= time.Hour, "ping-interval: %s is not within 10ms and 1h", c.PingInterval)
	check(c.PingMisses >= 0 && c.PingMisses <= 100, "ping-misses: %d is not within 0 and 100", c.PingMisses)
	check(c.Heartbeat >= 10*time.Millisecond && c.Heartbeat <= time.Hour, "heartbeat: %s is not within 10ms and 1h", c.Heartbeat)
	check(c.SessionTTL >= time.Second && c.SessionTTL <= 365*24*time.Hour, "session-ttl: %s is not within 1s and 8760h", c.SessionTTL)
	check(c.Dev || c.Haste == 1, "haste: needs --dev")
	check(c.Haste >= 1 && c.Haste <= 100, "haste: %d is not within 1 and 100", c.Haste)
	if _, err := c.rates(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, c.validateIdentity())
	if _, err := c.proxies(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Config) rates() (limits.Rates, error) {
	rates := limits.Default()
	for _, assignment := range c.Limit {
		if err := rates.Set(assignment); err != nil {
			return nil, err
		}
	}
	return rates, nil
}

// proxies parses the trusted proxies; a bare address is a network of one.
func (c Config) proxies() ([]netip.Prefix, error) {
	list := make([]netip.Prefix, 0, len(c.TrustedProxies))
	for _, text := range c.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			var address netip.Addr
			if address, err = netip.ParseAddr(text); err == nil {
				prefix, err = address.Prefix(address.BitLen())
			}
		}
		if err != nil {
			return nil, fmt.Errorf("trusted-proxies: %q is neither a network, as 10.0.0.0/8, nor an address", text)
		}
		list = append(list, prefix)
	}
	return list, nil
}

func (c Config) storeURL() string {
	if c.Database != "" {
		return c.Database
	}
	return "sqlite:" + c.Data
}

func (c Config) serviceKeyFile() string {
	if c.ServiceKey != "" {
		return c.ServiceKey
	}
	return filepath.Join(c.Data, "service.key")
}

func isAddress(s string) bool {
	_, port, err := net.SplitHostPort(s)
	return err == nil && port != ""
}

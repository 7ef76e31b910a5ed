package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/netguard"
)

// The options about admission and outgoing calls.

// validateIdentity checks these options.
func (c Config) validateIdentity() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(slices.Contains([]string{"", "auto", "open", "invite", "allowlist"}, c.Admission), "admission: %q is none of auto, open, invite and allowlist", c.Admission)
	check(c.Dev || c.DevSecret == "", "dev-secret: needs --dev")
	check(c.Dev || !c.EgressLoopback, "egress-loopback: needs --dev")
	check(c.Dev || c.EgressResolver == "", "egress-resolver: needs --dev")
	check(c.EgressResolver == "" || isAddress(c.EgressResolver), "egress-resolver: %q is not HOST:PORT", c.EgressResolver)
	guard, err := c.guard(nil, nil)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer guard.Close()
	resolver, err := identity.NewResolver(identity.ResolverOptions{Guard: guard, Directory: c.PLCDirectory})
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("plc-directory: want an https URL of a public host, or one that egress-allow, egress-ports and egress-hosts permit"))...)
	}
	resolver.Close()
	return errors.Join(errs...)
}

// guard makes the netguard that the options describe. Both arguments may be nil.
func (c Config) guard(logger *slog.Logger, onDial func(netguard.Dial)) (*netguard.Guard, error) {
	ports := make([]int, len(c.EgressPorts))
	for i, text := range c.EgressPorts {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 65535 {
			return nil, fmt.Errorf("egress-ports: %q is not a port", text)
		}
		ports[i] = n
	}
	guard, err := netguard.New(netguard.Options{
		Allow: c.EgressAllow, Hosts: c.EgressHosts, Ports: ports,
		LoopbackHTTP: c.EgressLoopback && c.Dev, Dev: c.Dev, Resolver: netguard.ResolverAt(c.EgressResolver), Logger: logger, OnDial: onDial,
	})
	if err != nil {
		return nil, fmt.Errorf("egress-allow, egress-hosts: %w", err)
	}
	return guard, nil
}

// admission returns the mode; auto is resolved by the addresses that can connect.
func (c Config) admission() identity.Admission {
	switch {
	case c.isOpenByDefault():
		return identity.AdmissionOpen
	case c.Admission == "" || c.Admission == "auto":
		return identity.AdmissionInvite
	}
	return identity.Admission(c.Admission)
}

// isOpenByDefault reports whether auto admits every account. A proxy before the server is not
// detected.
func (c Config) isOpenByDefault() bool {
	return (c.Admission == "" || c.Admission == "auto") && isLoopback(c.Listen)
}

// hidesAddresses reports whether clients reach the server through an untrusted proxy on this
// machine: loopback is never counted.
func (c Config) hidesAddresses() bool {
	u, err := url.Parse(c.PublicURL)
	if err != nil || c.PublicURL == "" || len(c.TrustedProxies) > 0 {
		return false
	}
	return isLoopback(c.Listen) && !isLoopback(net.JoinHostPort(u.Hostname(), "0")) && !strings.HasSuffix(u.Hostname(), ".localhost")
}

// isLoopback reports whether only this machine can connect to an address to listen at.
func isLoopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

const devSecretBytesMax = 1 << 10

// devSecret reads the secret of development mode; nil without one.
func (c Config) devSecret() ([]byte, error) {
	if !c.Dev || c.DevSecret == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.DevSecret)
	if err != nil {
		return nil, fmt.Errorf("dev-secret: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || len(secret) > devSecretBytesMax {
		return nil, errors.New("dev-secret: want a line of text")
	}
	return []byte(secret), nil
}

// newIdentity builds the netguard, the resolver and the authenticator.
func (s *Server) newIdentity() error {
	var err error
	if s.guard, err = s.config.guard(s.logger, s.config.OnDial); err != nil {
		return err
	}
	s.metrics.MustRegister(s.guard.Collectors()...)
	s.resolver, err = identity.NewResolver(identity.ResolverOptions{
		Guard: s.guard, Directory: s.config.PLCDirectory, Store: s.store, Limit: s.limits.Take,
	})
	if err != nil {
		return err
	}
	if s.config.isOpenByDefault() && s.config.PublicURL != "" && !strings.HasPrefix(s.public, "http://") {
		s.logger.Warn("everybody who reaches the public URL is admitted, for the listener is this machine's only; set --admission to decide that")
	}
	if s.config.hidesAddresses() {
		s.logger.Warn("every client has the address of the proxy that the public URL leads to, so no limit per address holds; set --trusted-proxies")
	}
	secret, err := s.config.devSecret()
	if err != nil {
		return err
	}
	if secret != nil {
		s.logger.Warn("tokens of the development secret are accepted: whoever has it can be anybody")
	}
	s.identity, err = identity.New(identity.Options{
		Store: s.store, Now: s.store.Now, SessionTTL: s.config.SessionTTL, Logger: s.logger,
		Audience: func() []string { return identity.Audiences(s.did) },
		Resolver: s.resolver, Admission: s.config.admission(), Limit: s.limits.Take, DevSecret: secret,
	})
	if err == nil {
		s.metrics.MustRegister(s.identity.Collectors()...)
	}
	return err
}

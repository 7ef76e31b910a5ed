package prove

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/drive"
)

const (
	sdkPing      = 500 * time.Millisecond // a half-open connection is given up after two and a half times as long
	pollInterval = 5 * time.Millisecond
)

// sdkClient is a device that takes part in conversations by the SDK, over a network of its own.
type sdkClient struct {
	sdk      *client.Client // the open one: another one after open
	options  client.Options
	overXRPC bool
	net      *drive.FaultProxy
	past     client.Stats // of those before
	read     int64        // the last event that was read
	connects int64        // of the open client, when it is over what broke its network
}

// newSDKClient makes a device of the account with that name, whose home is empty. It is closed with
// the run.
func (r *Run) newSDKClient(s *Server, account, device string, overXRPC bool) (*sdkClient, error) {
	m := &sdkClient{overXRPC: overXRPC}
	var err error
	if m.options.Account, err = client.AccountFromSeed(fmt.Append(nil, "proof ", r.Seed), account); err != nil {
		return nil, err
	}
	if m.options.Dir, err = r.Folder(); err != nil {
		return nil, err
	}
	if m.net, err = drive.NewFaultProxy(s.Address(), r.Seed); err != nil {
		return nil, err
	}
	r.Cleanup(m.end)
	m.options.StorageKey = bytes.Repeat([]byte{1}, client.StorageKeyBytes)
	m.options.Server, m.options.DeviceID, m.options.KeyPackages, m.options.PingInterval = s.URL, device, 4, sdkPing
	m.options.Dial = m.net.Dial
	return m, nil
}

// open opens the client on its home.
func (m *sdkClient) open(ctx context.Context) (err error) {
	var with []client.Option
	if m.overXRPC {
		with = append(with, client.WithXRPC())
	}
	m.sdk, err = client.Open(ctx, m.options, with...)
	return err
}

// shut ends the client wherever it is; only what is in its home remains. Transactions under way
// are rolled back, and the server hears nothing.
func (m *sdkClient) shut() {
	if m.sdk == nil {
		return
	}
	_ = m.sdk.Close() // that it could not finish its work is the purpose
	m.past = m.stats()
	m.sdk, m.connects = nil, 1
}

// crash ends the client, and opens it again on its home.
func (m *sdkClient) crash(ctx context.Context) error {
	m.shut()
	m.net.Release()
	return m.open(ctx)
}

// end ends the client and its network.
func (m *sdkClient) end() {
	m.shut()
	m.net.Close()
}

// stats returns the counts of all clients on the home.
func (m *sdkClient) stats() client.Stats {
	sum := m.past
	if m.sdk != nil {
		s := m.sdk.Stats()
		sum.Connects, sum.Gaps, sum.Duplicates = sum.Connects+s.Connects, sum.Gaps+s.Gaps, sum.Duplicates+s.Duplicates
		sum.Undecryptable, sum.Commits, sum.LostRaces = sum.Undecryptable+s.Undecryptable, sum.Commits+s.Commits, sum.LostRaces+s.LostRaces
		sum.Rejoins, sum.Rewinds = sum.Rejoins+s.Rejoins, sum.Rewinds+s.Rewinds
	}
	return sum
}

// poll waits until is reports true, for at most limit; the error wraps what in that case.
func poll(ctx context.Context, limit time.Duration, what error, is func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("waited %s in vain: %w", limit, what))
	defer cancel()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if done, err := is(); done || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

package prove

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/client"
)

// eventsMax bounds the time for events of a home, which are there already.
const eventsMax = 50 * time.Millisecond

// membership is a change of the members of the group.
type membership struct {
	what      string
	by        []*sdkClient // each makes one commit; none for a device that does not exist yet
	gone      []*sdkClient // removed by it
	newcomers []*sdkClient // invited by it
	commits   int
	do        func(ctx context.Context) error
}

// change changes the members of the group, while others of them commit and one of them crashes.
func (e *echoRun) change(ctx context.Context) error {
	before, err := e.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	racers := e.shuffled()
	m, err := e.membership()
	if err != nil {
		return err
	}
	// Those that change the members have fresh keys with that.
	racers = slices.DeleteFunc(racers, func(r *sdkClient) bool { return slices.Contains(m.by, r) || slices.Contains(m.gone, r) })
	racers = racers[:min(len(racers), 1+e.random.IntN(2))]
	welcomes(ctx, m.newcomers) // of earlier invitations
	var lost int64
	for _, by := range m.by {
		lost -= by.stats().LostRaces
	}
	e.owe(racers)
	var acting errgroup.Group
	acting.Go(func() error { return m.do(ctx) })
	for _, r := range racers {
		acting.Go(func() error { return r.sdk.Refresh(ctx, e.room) })
	}
	if err := acting.Wait(); err != nil {
		return err
	}
	if len(racers) > 0 && e.random.IntN(3) == 0 {
		e.count.crashes++
		if err := racers[0].crash(ctx); err != nil {
			return err
		}
	}
	n := m.commits + len(racers)
	err = e.converge(ctx, n, m.what)
	e.count.welcomes += welcomes(ctx, m.newcomers)
	if err != nil {
		return err
	}
	for _, by := range m.by {
		lost += by.stats().LostRaces
	}
	if len(m.newcomers) > 0 && lost > 0 {
		e.count.lateInvitations++
	}
	return e.noteRaces(ctx, before, n)
}

// membership chooses a change, of each kind in turn. The members that are to be in the group are
// those after it.
func (e *echoRun) membership() (m membership, err error) {
	defer func() { e.changes++ }()
	account := 1 + e.random.IntN(len(e.away)-1)
	next := 1 + account%(len(e.away)-1) // another one than the owner's
	switch e.changes % 4 {
	case 0:
		e.out = []int{account, next}
		e.count.removals += 2
		e.away[account], e.away[next] = true, true
		dids := []string{e.devices[account][0].sdk.DID(), e.devices[next][0].sdk.DID()}
		return membership{what: "a removal", by: e.devices[0][:1], gone: slices.Concat(e.devices[account], e.devices[next]), commits: 1,
			do: func(ctx context.Context) error { return e.devices[0][0].sdk.Remove(ctx, e.room, dids...) }}, nil
	case 1: // by two devices of the owner at once, so that one of the commits loses
		m = membership{what: "two invitations", by: e.devices[0][:2], commits: 2}
		var dids []string
		for _, out := range e.out {
			e.away[out] = false
			m.newcomers = append(m.newcomers, e.devices[out]...)
			dids = append(dids, e.devices[out][0].sdk.DID())
		}
		e.count.invitations += 2
		m.do = func(ctx context.Context) error {
			inviting, ctx := errgroup.WithContext(ctx)
			for i, did := range dids {
				inviting.Go(func() error { return m.by[i].sdk.Invite(ctx, e.room, did) })
			}
			return inviting.Wait()
		}
		return m, nil
	case 2:
		for len(e.devices[account]) == 1 {
			account = 1 + account%(len(e.away)-1)
		}
		by, last := e.devices[account][0], e.devices[account][len(e.devices[account])-1]
		e.devices[account] = e.devices[account][:len(e.devices[account])-1]
		e.ended = append(e.ended, last)
		e.count.devices++
		return membership{what: "the removal of a device", by: []*sdkClient{by}, gone: []*sdkClient{last}, commits: 1,
			do: func(ctx context.Context) error { return by.sdk.RemoveDevice(ctx, last.options.DeviceID) }}, nil
	}
	e.count.joins++
	device, err := e.add(account)
	return membership{what: "a new device", commits: 1, do: device.open}, err
}

// welcomes reads the new events of devices and returns how many of them were given more than
// one Welcome.
func welcomes(ctx context.Context, devices []*sdkClient) (several int) {
	for _, m := range devices {
		ctx, cancel := context.WithTimeout(ctx, eventsMax)
		given := 0
		for event, err := range m.sdk.Events(ctx, m.read) {
			if err != nil {
				break
			}
			m.read = event.ID
			if event.Type == client.EventJoined || event.Type == client.EventProblem && errors.Is(event.Err(), client.ErrWelcome) {
				given++
			}
		}
		cancel()
		if given > 1 {
			several++
		}
	}
	return several
}

// endRemoved ends the devices that were removed for good, once they know it.
func (e *echoRun) endRemoved(ctx context.Context) error {
	for _, m := range e.ended {
		if err := poll(ctx, e.patient, errors.New("a device learns that it was removed"), func() (bool, error) {
			c, err := m.sdk.Conversation(ctx, e.room)
			return c.Phase == client.Removed, err
		}); err != nil {
			return errors.Join(errors.New(m.options.DeviceID), err)
		}
		e.undecryptable += m.stats().Undecryptable
		m.end()
	}
	e.ended = nil
	return nil
}

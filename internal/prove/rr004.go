package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/drive"
)

var rr004 = Proof{
	ID: "RR-004", Title: "echo before apply",
	Attack: "Members of one MLS group commit for the same epoch at once, while the log is held back from them, their networks break and their clients crash between a commit and its echo; " +
		"accounts are removed and invited and devices join by external commits meanwhile. Every fourth account uses XRPC.",
	Mitigation: "The server accepts one commit of an epoch, in the transaction that appends it. A client applies its own commit when the log shows it, and repeats its changes on top of another one.",
	Detection:  []string{"waxwing_commits_total", "waxwing_commit_conflicts_total", "waxwing_epoch_attestations_total", "waxwing_epoch_attestation_mismatch_total"},
	Run:        runRR004,
}

const (
	racedShareMin = 0.3
	changeEvery   = 3 // of so many rounds one changes the members
	racersMax     = 4
	decisionMax   = 3 * time.Second
	cutMax        = 2 // members whose networks break beside those of racers
)

var errUndecided = errors.New("the server has decided all commits")

// echoRun is one group and its members.
type echoRun struct {
	r       *Run
	server  *Server
	random  *rand.Rand
	patient time.Duration // the longest time for a round

	room           string
	devices        [][]*sdkClient       // by account; the first account owns the room
	away           []bool               // accounts that are removed
	owed           map[*sdkClient]int64 // commits of members that have more to make
	ended          []*sdkClient         // devices that are removed for good
	undecryptable  int64                // messages, for those
	changes        int                  // of the members so far
	out            []int                // accounts that were removed last
	made           int                  // devices so far
	epoch          uint64               // in which all have agreed last
	authenticators map[uint64]string

	violations []string
	count      struct {
		raced, held, early, second, forks, wrong, welcomes, crashes, broken int
		joins, removals, invitations, devices, lateInvitations              int
	}
}

func runRR004(ctx context.Context, r *Run) error {
	server, err := r.Serve(ctx, "--limit", "all=off")
	if err != nil {
		return err
	}
	e := &echoRun{r: r, server: server, random: r.Random(4), patient: Size(r, 25*time.Second, 2*time.Minute), authenticators: map[uint64]string{}}
	if err := e.found(ctx, Size(r, 6, 24), Size(r, 8, 32)); err != nil {
		return err
	}
	memory := r.Watch(ctx, server)
	before, err := server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	first, epochs, rounds := e.epoch, uint64(Size(r, 25, 1000)), 0
	agreeing := r.Plot("a round, until all members agree", "ms", "time")
	for ; err == nil && (e.epoch < first+epochs || r.Quick && e.isUnfinished()); rounds++ {
		r.At(int(e.epoch-first), int(epochs), "%d members change their group at once", len(e.present()))
		began, wasBelow := time.Now(), e.epoch < first+epochs/10
		if rounds%changeEvery == changeEvery-1 {
			err = e.change(ctx)
		} else {
			err = e.race(ctx)
		}
		if err == nil {
			err = e.endRemoved(ctx)
		}
		agreeing.Add(float64(time.Since(began).Milliseconds()))
		if isTenth := wasBelow && e.epoch >= first+epochs/10; isTenth && err == nil {
			err = memory.Baseline(ctx)
		}
	}
	e.figures(int(e.epoch-first), int(epochs))
	if err != nil {
		return errors.Join(err, e.violated())
	}
	after, err := server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	accepted := commits(after, "ok") - commits(before, "ok")
	r.Exactly("commits that the server accepted, beyond one for each epoch", float64(accepted-int(e.epoch-first)), 0, "")
	r.Moved(before, after, `commits_total{result="ok"}`, `commits_total{result="conflict"}`, "commit_conflicts_total", "epoch_attestations_total")
	mismatches, _ := after.Sum("waxwing_epoch_attestation_mismatch_total")
	r.Exactly("authenticators that members reported and that differ", mismatches, 0, "")
	r.Bars("commits that the server decided", map[string]float64{"accepted": float64(accepted), "refused: another was first": float64(commits(after, "conflict") - commits(before, "conflict"))})
	r.Did("%d rounds moved a group of %d devices by %d epochs over both doors of the server.", rounds, Size(r, 8, 32), e.epoch-first)
	return errors.Join(memory.Check(ctx), e.violated())
}

// commits returns how many commits the server has decided in that way.
func commits(m drive.Metrics, result string) int {
	sum, _ := m.Sum("waxwing_commits_total", `result="`+result+`"`)
	return int(sum)
}

// isUnfinished reports whether a quick run has not met all that it is about: it is too short for
// chance.
func (e *echoRun) isUnfinished() bool {
	c := e.count
	return c.lateInvitations == 0 || c.crashes < 2 || c.joins == 0 || c.removals == 0
}

// violate records what must not be.
func (e *echoRun) violate(format string, args ...any) {
	if len(e.violations) < violationsMax {
		e.violations = append(e.violations, fmt.Sprintf(format, args...))
	}
}

func (e *echoRun) violated() error {
	if len(e.violations) == 0 {
		return nil
	}
	return errors.New(strings.Join(e.violations, "\n"))
}

// figures adds what was counted.
func (e *echoRun) figures(epochs, want int) {
	r, c := e.r, e.count
	var s client.Stats // of the devices that are left
	for _, m := range slices.Concat(e.devices...) {
		of := m.stats()
		s.Undecryptable, s.Rejoins, s.LostRaces, s.Commits = s.Undecryptable+of.Undecryptable, s.Rejoins+of.Rejoins, s.LostRaces+of.LostRaces, s.Commits+of.Commits
	}
	r.Exactly("commits that a client applied before their echo", float64(c.early), 0, "")
	r.Exactly("members with another authenticator than others in their epoch", float64(c.forks), 0, "")
	r.Exactly("second commits of an epoch that the server accepted", float64(c.second), 0, "")
	r.Exactly("devices that got a Welcome of a commit that lost", float64(c.welcomes), 0, "")
	r.Exactly("changes that were not made once", float64(c.wrong), 0, "")
	r.Exactly("messages that a member could not open", float64(s.Undecryptable+e.undecryptable), 0, "")
	r.Exactly("members that had to enter the group again", float64(s.Rejoins), 0, "")
	r.AtLeast("epochs", float64(epochs), float64(want), "")
	r.AtLeast("epochs with several commits", 100*float64(c.raced)/float64(max(epochs, 1)), 100*racedShareMin, "%")
	r.AtLeast("clients that were kept from the echo of a commit", float64(c.held), float64(want)*racedShareMin, "")
	r.AtLeast("commits that lost and were made again", float64(s.LostRaces), float64(want)*racedShareMin, "")
	r.AtLeast("invitations with a commit that lost", float64(c.lateInvitations), 1, "")
	r.AtLeast("crashes between a commit and its echo", float64(c.crashes), max(2, float64(want)/20), "")
	r.AtLeast("networks broken", float64(c.broken), float64(want)/20, "")
	r.Did("Members were kept from the log %d times while they committed, which %d of them did in vain; %d clients were ended before the echo came and opened again, and %d networks broke.", c.held, s.LostRaces, c.crashes, c.broken)
	r.Did("%d accounts were removed and %d invited, %d devices joined by an external commit and %d were removed.", c.removals, c.invitations, c.joins, c.devices)
}

// add makes a device of an account.
func (e *echoRun) add(account int) (*sdkClient, error) {
	e.made++
	m, err := e.r.newSDKClient(e.server, fmt.Sprintf("p%02d", account), fmt.Sprintf("device %d", e.made), account%4 == 3)
	if err == nil {
		e.devices[account] = append(e.devices[account], m)
	}
	return m, err
}

// found creates the group.
func (e *echoRun) found(ctx context.Context, accounts, devices int) error {
	e.r.Step("%d members create a group", devices)
	e.devices, e.away = make([][]*sdkClient, accounts), make([]bool, accounts)
	var others []string
	for i := range devices {
		m, err := e.add(i % accounts)
		if err == nil {
			err = m.open(ctx)
		}
		if err != nil {
			return err
		}
		if 0 < i && i < accounts {
			others = append(others, m.sdk.DID())
		}
	}
	for _, m := range e.present() {
		if err := m.sdk.WaitOnline(ctx); err != nil {
			return err
		}
	}
	var err error
	if e.room, err = e.owner().sdk.CreateRoom(ctx, others...); err != nil {
		return err
	}
	return e.agree(ctx, 1)
}

func (e *echoRun) owner() *sdkClient { return e.devices[0][0] }

// present lists the devices that are to be in the group.
func (e *echoRun) present() (list []*sdkClient) {
	for account, devices := range e.devices {
		if !e.away[account] {
			list = append(list, devices...)
		}
	}
	return list
}

// see returns the epoch of a member, and compares its group with those of others in that epoch;
// 0 if it has none.
func (e *echoRun) see(ctx context.Context, m *sdkClient) (uint64, error) {
	authenticator, epoch, err := m.sdk.EpochAuthenticator(ctx, e.room)
	switch {
	case errors.Is(err, client.ErrNoGroup) || errors.Is(err, client.ErrUnknownConversation):
		return 0, nil
	case err != nil:
		return 0, err
	}
	text := fmt.Sprintf("%x", authenticator)
	if known, ok := e.authenticators[epoch]; !ok {
		e.authenticators[epoch] = text
	} else if known != text {
		e.count.forks++
		e.violate("%s has another authenticator in epoch %d than others", m.sdk.DeviceID(), epoch)
		return 0, fmt.Errorf("a fork in epoch %d", epoch)
	}
	return epoch, nil
}

// agree waits until all that are to be in the group are in one epoch, which is least or later,
// and the group has no other members; and those that were removed know it.
func (e *echoRun) agree(ctx context.Context, least uint64) error {
	present := e.present()
	var state string
	err := poll(ctx, e.patient, errors.New("all members agree on the group"), func() (bool, error) {
		state = fmt.Sprintf("at least epoch %d was expected", least)
		head, differs := uint64(0), false
		for _, m := range present { // all of them, since a fork may be short
			epoch, err := e.see(ctx, m)
			if err != nil {
				return false, err
			}
			if head == 0 {
				head = epoch
			}
			if had, ok := e.owed[m]; epoch != head || epoch < least || ok && m.stats().Commits <= had {
				c, _ := m.sdk.Conversation(ctx, e.room)
				state += fmt.Sprintf("; %s is %s in epoch %d, owes a commit: %v, %q", m.sdk.DeviceID(), c.Phase, epoch, ok && m.stats().Commits <= had, c.Problem)
				differs = true
			}
		}
		if differs {
			return false, nil
		}
		for _, m := range slices.Concat(e.devices...) {
			c, err := m.sdk.Conversation(ctx, e.room)
			isIn := slices.Contains(present, m)
			if err != nil {
				return false, err
			}
			if isIn && (c.Phase != client.Joined || c.Epoch != head || len(c.Members) != len(present) || len(c.Inviting)+len(c.Removing) > 0) || !isIn && c.Phase != client.Removed {
				state = fmt.Sprintf("%s is %s in epoch %d with %d members of %d, %d to be invited and %d to be removed; %q", m.sdk.DeviceID(), c.Phase, c.Epoch,
					len(c.Members), len(present), len(c.Inviting), len(c.Removing), c.Problem)
				return false, nil
			}
		}
		e.epoch = head
		return true, nil
	})
	if err != nil && state != "" {
		err = fmt.Errorf("%w: %s", err, state)
	}
	return err
}

// shuffled returns the members that are in the group, in any order.
func (e *echoRun) shuffled() []*sdkClient {
	list := e.present()
	e.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// steady waits until enough members for a race are connected again after their networks broke,
// and returns them, in any order.
func (e *echoRun) steady(ctx context.Context) (list []*sdkClient, err error) {
	err = poll(ctx, e.patient, errors.New("members are connected again"), func() (bool, error) {
		list = slices.DeleteFunc(e.shuffled(), func(m *sdkClient) bool {
			state, _ := m.sdk.State()
			return state.Link != client.Online || m.sdk.Stats().Connects < m.connects
		})
		return len(list) > 2, nil
	})
	return list, err
}

// race lets several members commit for one epoch while the log is held back from them. They must
// stay in their epoch until they see its end in the log, and each must have made its commit at last.
func (e *echoRun) race(ctx context.Context) error {
	before, err := e.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	list, err := e.steady(ctx)
	if err != nil {
		return err
	}
	n := min(racersMax, len(list)-1, 2+e.random.IntN(racersMax-1)*e.random.IntN(2))
	witness, racers, cut := list[0], list[1:1+n], list[1+n:]
	cut = cut[:e.random.IntN(min(cutMax, len(cut))+1)]
	for _, m := range slices.Concat(cut, racers) {
		m.net.Hold()
	}
	acting, acts := errgroup.WithContext(ctx)
	acting.Go(func() error { _, err := witness.sdk.Send(acts, e.room, []byte("meanwhile")); return err })
	e.owe(racers)
	for _, m := range racers {
		acting.Go(func() error { return m.sdk.Refresh(acts, e.room) })
	}
	if err := acting.Wait(); err != nil {
		return err
	}
	var accepted int
	err = poll(ctx, decisionMax, errUndecided, func() (bool, error) {
		now, err := e.server.Ops.Metrics(ctx)
		accepted = commits(now, "ok") - commits(before, "ok")
		return accepted+commits(now, "conflict")-commits(before, "conflict") >= n, err
	})
	if errors.Is(err, errUndecided) { // one was about to connect again
		for _, m := range slices.Concat(cut, racers) {
			m.net.Release()
		}
		return e.converge(ctx, n, "a race")
	} else if err != nil {
		return err
	}
	e.count.held += n
	if accepted > 1 {
		e.count.second += accepted - 1
		e.violate("the server accepted %d commits of epoch %d", accepted, e.epoch)
		return errors.New("an epoch with two commits")
	}
	if err := poll(ctx, e.patient, errors.New("a member sees the new epoch"), func() (bool, error) {
		epoch, err := e.see(ctx, witness)
		return epoch > e.epoch, err
	}); err != nil {
		return err
	}
	e.applied(ctx, racers)
	for _, m := range slices.Concat(racers, cut) {
		if err := e.fate(ctx, m, slices.Contains(racers, m)); err != nil {
			return err
		}
	}
	if err := e.converge(ctx, n, "a race"); err != nil {
		return err
	}
	return e.noteRaces(ctx, before, n)
}

// noteRaces counts the epochs since before in which several of n commits were made: at least as
// many as it takes for the number of those that lost, since of i commits for one epoch i-1 lose.
func (e *echoRun) noteRaces(ctx context.Context, before drive.Metrics, n int) error {
	now, err := e.server.Ops.Metrics(ctx)
	lost := commits(now, "conflict") - commits(before, "conflict")
	for i := n - 1; i > 0 && lost > 0; i-- {
		e.count.raced++
		lost -= i
	}
	return err
}

// applied checks that members from which the log is held back are in the epoch as before.
func (e *echoRun) applied(ctx context.Context, racers []*sdkClient) {
	for _, m := range racers {
		if _, epoch, err := m.sdk.EpochAuthenticator(ctx, e.room); err == nil && epoch != e.epoch {
			e.count.early++
			e.violate("%s was in epoch %d before it could know how epoch %d ended", m.sdk.DeviceID(), epoch, e.epoch)
		}
	}
}

// fate ends the time in which the log is held back from a member.
func (e *echoRun) fate(ctx context.Context, m *sdkClient, isRacing bool) error {
	faults := []drive.Fault{drive.ResetMidFrame, drive.BeforeAck, drive.LostReady, drive.HalfOpen}
	if m.overXRPC {
		faults = faults[:3] // a call waits longer than a socket
	}
	switch chance := e.random.Float64(); {
	case isRacing && chance < 0.25:
		e.count.crashes++
		return m.crash(ctx)
	case !isRacing || chance < 0.4:
		e.count.broken++
		m.connects = m.sdk.Stats().Connects + 1
		m.net.Break(faults[e.random.IntN(len(faults))])
	default:
		m.net.Release()
	}
	return nil
}

// owe notes that members are about to make one commit each.
func (e *echoRun) owe(members []*sdkClient) {
	e.owed = map[*sdkClient]int64{}
	for _, m := range members {
		e.owed[m] = m.stats().Commits
	}
}

// converge waits until all agree after n changes, and those of members that owe a commit are made.
func (e *echoRun) converge(ctx context.Context, n int, what string) error {
	before := e.epoch
	if err := e.agree(ctx, before+uint64(n)); err != nil {
		for m, had := range e.owed {
			if m.stats().Commits <= had {
				e.count.wrong++
			}
		}
		return fmt.Errorf("%s with %d changes: %w", what, n, err)
	}
	for m, had := range e.owed {
		if more := m.stats().Commits - had - 1; more > 0 {
			e.count.wrong += int(more)
			e.violate("%s: %s made %d commits of one change", what, m.sdk.DeviceID(), more+1)
		}
	}
	return nil
}

package core

import (
	"context"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// WelcomeChoice selects among the Welcomes that wait for an account: those for key packages,
// by their refs, or those for a device. Without either it selects the newest.
type WelcomeChoice struct {
	Refs   []string    // hex
	Device ds.DeviceID // by any of its names
}

// GroupState holds the data with which a member can enter the group, or enter it again.
type GroupState struct {
	Epoch     int64
	Info      []byte // the newest GroupInfo, nil for none
	InfoEpoch int64  // of Info
	Welcome   []byte // the one that waits for the caller, nil for none
}

// GroupState returns the requested data; the epoch always. A Welcome continues to wait. Former
// members may call it too: they get the GroupInfo while the rules of the conversation let them
// return by it. Refusals: forbidden (NotMember), invalid_request.
func (s *Service) GroupState(ctx context.Context, who ds.Caller, id ds.ConversationID, withInfo, withWelcome bool, choice WelcomeChoice) (GroupState, error) {
	if err := checkChoice(choice); err != nil {
		return GroupState{}, err
	}
	var welcome []byte
	st, err := s.standing(ctx, who, id, withInfo, func(tx *store.Tx) error {
		if !withWelcome {
			return nil
		}
		chosen, err := meantWelcomes(tx, who.Account, id, choice)
		if err != nil || len(chosen) == 0 {
			return err
		}
		bodies, err := tx.Welcomes.Bodies([]string{chosen[0].WelcomeID})
		welcome = bodies[chosen[0].WelcomeID]
		return err
	})
	if err != nil {
		return GroupState{}, err
	}
	state := GroupState{Epoch: st.head.Epoch, Welcome: welcome}
	if st.info != nil && st.mayReturn(st.head.Policy, s.now().UnixMilli()) {
		if info, err := readGroupInfo(st.info); err == nil {
			state.Info, state.InfoEpoch = st.info, int64(info.Context.Epoch)
		}
	}
	return state, nil
}

// EndWelcome ends the wait of a Welcome for the caller: it was used, or, with a reason, cannot
// be used. Refusals: forbidden (NotMember), not_found if none waits.
func (s *Service) EndWelcome(ctx context.Context, who ds.Caller, id ds.ConversationID, choice WelcomeChoice, reason string) error {
	if err := checkChoice(choice); err != nil {
		return err
	}
	if _, err := s.standing(ctx, who, id, false); err != nil {
		return err
	}
	var ended int64
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		chosen, err := meantWelcomes(tx, who.Account, id, choice)
		if err != nil {
			return err
		}
		ended, err = tx.Welcomes.Consume(chosen, reason)
		return err
	})
	if err == nil && ended == 0 {
		err = ds.Refuse(ds.NotFound, "no welcome is waiting")
	}
	return err
}

func checkChoice(choice WelcomeChoice) error {
	if len(choice.Refs) > welcomeRefsMax {
		return ds.Refuse(ds.InvalidRequest, "at most %d key packages", welcomeRefsMax)
	}
	if len(choice.Device) > deviceNameBytesMax {
		return ds.Refuse(ds.InvalidRequest, "not a device id")
	}
	return nil
}

// meantWelcomes lists the selected ones of the Welcomes that wait for an account.
func meantWelcomes(tx *store.Tx, account ds.AccountID, id ds.ConversationID, choice WelcomeChoice) ([]store.WelcomeRecipient, error) {
	device, err := ownDevice(tx, account, choice.Device)
	if err != nil {
		return nil, err
	}
	list, err := tx.Welcomes.Waiting(account, id, welcomesWaitingMax)
	return choose(list, WelcomeChoice{Refs: choice.Refs, Device: device}), err
}

// ownDevice returns the device of an account by name: our id, alone or after the DID, or the
// device's own UUID. Any other name may be a device of the gateway protocol, which are not
// registered.
func ownDevice(tx *store.Tx, account ds.AccountID, name ds.DeviceID) (ds.DeviceID, error) {
	if name == "" {
		return "", nil
	}
	devices, err := tx.Devices.Of(account)
	if err != nil {
		return "", err
	}
	if d := directory.FindDevice(devices, string(name), ""); d != nil {
		return d.Device.ID, nil
	}
	return name[strings.LastIndexByte(string(name), '#')+1:], nil
}

// choose selects among the Welcomes that wait, the newest first. One with an unknown device or
// key package may be for any device, and so may the newest if nothing is selected; of these it
// returns only one, since the others may be for other devices.
func choose(list []store.WelcomeRecipient, choice WelcomeChoice) []store.WelcomeRecipient {
	matches := func(fits func(r store.WelcomeRecipient) bool) []store.WelcomeRecipient {
		var some []store.WelcomeRecipient
		for _, r := range list {
			if fits(r) {
				some = append(some, r)
			}
		}
		return some
	}
	var exact, any []store.WelcomeRecipient
	switch {
	case len(choice.Refs) > 0:
		exact = matches(func(r store.WelcomeRecipient) bool {
			return r.KeyPackageRef != "" && slices.ContainsFunc(choice.Refs, func(ref string) bool { return strings.EqualFold(ref, r.KeyPackageRef) })
		})
		any = matches(func(r store.WelcomeRecipient) bool {
			return r.KeyPackageRef == "" && (r.Device == "" || choice.Device == "" || r.Device == choice.Device)
		})
	case choice.Device != "":
		exact = matches(func(r store.WelcomeRecipient) bool { return r.Device == choice.Device })
		any = matches(func(r store.WelcomeRecipient) bool { return r.Device == "" })
	default:
		any = list
	}
	if len(exact) > 0 {
		return exact
	}
	return any[:min(len(any), 1)]
}

// Readdition is an Op by which a member asks the others to add it to the group again.
type Readdition struct{ ConversationID ds.ConversationID }

func (in Readdition) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in Readdition) check(*action) error { return checkConversationID(in.ConversationID) }

func (Readdition) limits() []string { return []string{limits.Readditions} }

func (Readdition) may(*logs.Conversation, *action, int64) error { return nil }

func (Readdition) judge(*logs.Conversation, *action) (verdict, error) {
	return verdict{bytes: memberBytes}, nil
}

func (Readdition) do(c *logs.Conversation, a *action, _ verdict, nowMS int64) Result {
	return Result{Record: c.Note(ds.RequestEvent, ds.Request{By: a.who.Account, Wants: ds.WantsReaddition}, nowMS)}
}

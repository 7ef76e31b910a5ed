package core

import (
	"context"
	"errors"
	"sync"

	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// RegisterDevice registers a device in the directory, and notifies the members of the
// account's conversations that it is waiting to be added.
func (s *Service) RegisterDevice(ctx context.Context, who ds.Caller, in directory.Registration) (directory.Device, []ds.ConversationID, error) {
	d, conversations, fresh, err := s.directory.RegisterDevice(ctx, who, in)
	if err != nil {
		return directory.Device{}, nil, err
	}
	return d, conversations, s.announceAdditions(ctx, who, fresh)
}

// announceAdditions notifies the members of each conversation, by a record of its log, that a
// device is waiting to be added, and records that they were notified. It skips conversations
// that the device's account has left.
func (s *Service) announceAdditions(ctx context.Context, who ds.Caller, list []directory.Addition) error {
	errs := make([]error, len(list))
	var running sync.WaitGroup
	places := make(chan struct{}, additionsUnderWayMax)
	for i, a := range list {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			_, errs[i] = s.Apply(ctx, who, DeviceAddition{a.Conversation, ds.Addition{ID: a.ID, Device: a.Device, Name: a.DeviceName}})
		})
	}
	running.Wait()
	var told []string
	var failure error
	for i, err := range errs {
		switch {
		case err == nil:
			told = append(told, list[i].ID)
		case ds.CodeOf(err) == "" && !errors.Is(err, errAway): // an unavailable home must not fail the registration
			failure = err
		}
	}
	if len(told) == 0 {
		return failure
	}
	return errors.Join(failure, s.store.Update(ctx, func(tx *store.Tx) error { return tx.Devices.NoteAdditions(told) }))
}

// DeviceAddition is an Op that notifies the members of a conversation that a device of the
// caller's account is waiting to be added to the group.
type DeviceAddition struct {
	ConversationID ds.ConversationID
	Addition       ds.Addition
}

func (in DeviceAddition) place() (ds.ConversationID, ds.MessageID) { return in.ConversationID, "" }

func (in DeviceAddition) check(*action) error { return checkConversationID(in.ConversationID) }

// limits returns none: an account registers few devices.
func (DeviceAddition) limits() []string { return nil }

func (DeviceAddition) may(*logs.Conversation, *action, int64) error { return nil }

func (DeviceAddition) judge(*logs.Conversation, *action) (verdict, error) {
	return verdict{bytes: memberBytes}, nil
}

func (in DeviceAddition) do(c *logs.Conversation, _ *action, _ verdict, nowMS int64) Result {
	return Result{Record: c.Note(ds.DeviceAddition, in.Addition, nowMS)}
}

package xrpcserver

import (
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
)

// sharedEvent is an event that is encoded once for all its readers. The counter and the
// cursor, which differ between them, are inserted when it is sent.
type sharedEvent struct {
	// index is its place among the events of its record, the same for both generations:
	// an event that one of them does not know takes an index too.
	index int
	kind  string
	known [3]bool // by generation
	frame xrpc.Frame
	text  func() [2]string // the event in JSON, before and after the cursor
}

// noCursor is the placeholder in an encoded event for the cursor of its reader.
const noCursor = "\x00\x00\x00\x00"

// encoder makes events of records and announcements, encoded once for all readers.
type encoder struct{ logger *slog.Logger }

// eventsOf returns the events of a record of a conversation, in order, in the forms of both
// generations. Records of kinds that clients do not know have no events. It is a function of
// the record alone: readers share its result, so it must not depend on when it is called.
func (e encoder) eventsOf(id ds.ConversationID, r *ds.Record) []sharedEvent {
	var list []sharedEvent
	for i, event := range translate(id, r) {
		list = e.share(list, i, event)
	}
	return list
}

// share encodes an event in every form that a generation knows it in.
func (e encoder) share(list []sharedEvent, index int, event xrpc.Event) []sharedEvent {
	from := len(list)
	for _, g := range []xrpc.Generation{xrpc.GenerationUnknown, xrpc.GenerationA, xrpc.GenerationB} {
		form := g.For(event)
		if form == nil {
			continue
		}
		at := slices.IndexFunc(list[from:], func(e sharedEvent) bool { return e.kind == form.Type() })
		if at < 0 {
			frame, err := xrpc.NewFrame(form)
			if err != nil {
				e.logger.Error("encode event", "kind", form.Type(), "err", err) // of ours: a time out of all bounds
				continue
			}
			list = append(list, sharedEvent{index: index, kind: form.Type(), frame: frame, text: sync.OnceValue(func() [2]string {
				text, err := xrpc.EventJSON(form, 0)
				if err != nil {
					panic(err) // the frame could be made
				}
				before, after, _ := strings.Cut(string(text), cursorJSON)
				return [2]string{before, after}
			})})
			at = len(list) - 1 - from
		}
		list[from+at].known[g] = true
	}
	return list
}

// cursorJSON is the JSON form of noCursor. It is the first field, so it precedes all text
// that a client can have written.
const cursorJSON = `"cursor":"\u0000\u0000\u0000\u0000"`

// translate makes events of a record. Accounts other than DIDs, which the
// gateway's conversations may have, are omitted: clients would refuse them.
func translate(id ds.ConversationID, r *ds.Record) []xrpc.Event {
	convo := string(id)
	switch r.Kind {
	case ds.App, ds.Proposal:
		return []xrpc.Event{&xrpc.MessageEvent{Cursor: noCursor, Message: messageView(id, r)}}
	case ds.Commit:
		list := []xrpc.Event{&xrpc.MessageEvent{Cursor: noCursor, Message: messageView(id, r)},
			&xrpc.EpochAdvanced{Cursor: noCursor, ConvoID: convo, Epoch: r.Epoch, Reason: "commit"}}
		if len(r.ConfirmationTag) > 0 { // else there is nothing to compare
			list = append(list, &xrpc.TreeChanged{Cursor: noCursor, ConvoID: convo, ConfirmationTag: r.ConfirmationTag, Epoch: r.Epoch})
		}
		return list
	case ds.Membership:
		return membershipEvents(convo, r)
	case ds.Roles:
		return []xrpc.Event{&xrpc.ConversationUpdated{Cursor: noCursor, ConvoID: convo, UpdatedFields: []string{"roles"}}}
	case ds.SettingsEvent:
		var change ds.SettingsChange
		if json.Unmarshal(r.Body, &change) == nil {
			return []xrpc.Event{&xrpc.ConversationUpdated{Cursor: noCursor, ConvoID: convo, UpdatedFields: change.Fields}}
		}
	case ds.RequestEvent:
		return requestEvents(convo, r)
	case ds.DeviceAddition:
		var added ds.Addition
		if json.Unmarshal(r.Body, &added) == nil && isDID(added.Device.Account) {
			return []xrpc.Event{&xrpc.NewDeviceEvent{Cursor: noCursor, ConvoID: convo, UserDID: string(added.Device.Account), DeviceID: string(added.Device.ID),
				DeviceName: added.Name, DeviceCredentialDID: string(added.Device.Account) + "#" + string(added.Device.ID), PendingAdditionID: added.ID}}
		}
	case ds.ReactionEvent:
		var reaction ds.Reaction
		if json.Unmarshal(r.Body, &reaction) == nil && isDID(reaction.Account) {
			action := "add"
			if reaction.Removed {
				action = "remove"
			}
			return []xrpc.Event{&xrpc.ReactionEvent{Cursor: noCursor, ConvoID: convo, MessageID: string(reaction.MessageID),
				DID: string(reaction.Account), Reaction: reaction.Reaction, Action: action}}
		}
	}
	return nil
}

func membershipEvents(convo string, r *ds.Record) []xrpc.Event {
	var change ds.MembershipChange
	if json.Unmarshal(r.Body, &change) != nil {
		return nil
	}
	var list []xrpc.Event
	for _, account := range change.Add {
		if isDID(account) {
			list = append(list, &xrpc.MemberJoined{Cursor: noCursor, ConvoID: convo, DID: string(account), Epoch: r.Epoch})
		}
	}
	for _, account := range change.Remove {
		if !isDID(account) {
			continue
		}
		left := &xrpc.MemberLeft{Cursor: noCursor, ConvoID: convo, DID: string(account), Epoch: r.Epoch, Action: "removed"}
		if change.By == account || change.By == "" { // the service itself removes as if the account had left
			left.Action = "left"
		} else if isDID(change.By) {
			left.Actor = string(change.By)
		}
		list = append(list, left)
	}
	return list
}

func requestEvents(convo string, r *ds.Record) []xrpc.Event {
	var request ds.Request
	if json.Unmarshal(r.Body, &request) != nil || !isDID(request.By) {
		return nil
	}
	at := xrpc.TimeMS(r.CreatedMS)
	switch request.Wants {
	case ds.WantsGroupInfo:
		return []xrpc.Event{&xrpc.GroupInfoRefreshRequestedEvent{Cursor: noCursor, ConvoID: convo, RequestedBy: string(request.By), RequestedAt: at}}
	case ds.WantsReaddition:
		return []xrpc.Event{&xrpc.ReadditionRequestedEvent{Cursor: noCursor, ConvoID: convo, RequestedBy: string(request.By), RequestedAt: at}}
	}
	return nil
}

// eventOfAnnouncement returns the event of an announcement, which is not in any log.
func (e encoder) eventOfAnnouncement(id ds.ConversationID, a *logs.Announcement) []sharedEvent {
	convo := string(id)
	switch a.Kind {
	case logs.Typing:
		return e.share(nil, 0, &xrpc.TypingEvent{Cursor: noCursor, ConvoID: convo, DID: string(a.Account), IsTyping: a.IsTyping})
	case logs.Read:
		return e.share(nil, 0, &xrpc.ReadEvent{Cursor: noCursor, ConvoID: convo, DID: string(a.Account), MessageID: string(a.MessageID), ReadAt: coarse(a.AtMS)})
	case logs.Ephemeral:
		view := messageView(id, &ds.Record{Kind: ds.App, MessageID: a.MessageID, Epoch: a.Epoch, CreatedMS: a.AtMS, Body: a.Body})
		if view.ID == "" {
			view.ID = newULID(a.AtMS)
		}
		return e.share(nil, 0, &xrpc.MessageEvent{Cursor: noCursor, Message: view, Ephemeral: true})
	}
	return nil
}

package xrpc

// Type returns the name of the event.
func (*MessageEvent) Type() string { return "messageEvent" }

// Type returns the name of the event.
func (*ReactionEvent) Type() string { return "reactionEvent" }

// Type returns the name of the event.
func (*TypingEvent) Type() string { return "typingEvent" }

// Type returns the name of the event.
func (*NewDeviceEvent) Type() string { return "newDeviceEvent" }

// Type returns the name of the event.
func (*InfoEvent) Type() string { return "infoEvent" }

// Type returns the name of the event.
func (*MemberJoined) Type() string { return "memberJoined" }

// Type returns the name of the event.
func (*MemberLeft) Type() string { return "memberLeft" }

// Type returns the name of the event.
func (*EpochAdvanced) Type() string { return "epochAdvanced" }

// Type returns the name of the event.
func (*ConversationUpdated) Type() string { return "conversationUpdated" }

// Type returns the name of the event.
func (*ReadEvent) Type() string { return "readEvent" }

// Type returns the name of the event.
func (*MembershipChangeEvent) Type() string { return "membershipChangeEvent" }

// Type returns the name of the event.
func (*GroupInfoRefreshRequestedEvent) Type() string { return "groupInfoRefreshRequestedEvent" }

// Type returns the name of the event.
func (*ReadditionRequestedEvent) Type() string { return "readditionRequestedEvent" }

// Type returns the name of the event.
func (*TreeChanged) Type() string { return "treeChanged" }

// Type returns the name of the event.
func (*GroupResetEvent) Type() string { return "groupResetEvent" }

// Type returns the name of the event.
func (*CircuitBreakerTrippedEvent) Type() string { return "circuitBreakerTrippedEvent" }

// Type returns the name of the event.
func (*ResetRequestedEvent) Type() string { return "resetRequestedEvent" }

// Type returns the name of the event.
func (*WelcomeReissueRequestedEvent) Type() string { return "welcomeReissueRequestedEvent" }

// eventKind holds what is known of an event: the generations that have it, and its
// constructor.
type eventKind struct {
	inA, inB bool
	make     func() Event
}

// eventKinds holds the unions of both generations. A client that receives a type outside its
// union ends the stream, so only events that are listed here for a client are sent to it.
var eventKinds = map[string]eventKind{
	"messageEvent":                   {true, true, func() Event { return &MessageEvent{} }},
	"reactionEvent":                  {true, true, func() Event { return &ReactionEvent{} }},
	"typingEvent":                    {true, true, func() Event { return &TypingEvent{} }},
	"newDeviceEvent":                 {true, true, func() Event { return &NewDeviceEvent{} }},
	"infoEvent":                      {true, true, func() Event { return &InfoEvent{} }},
	"memberJoined":                   {true, false, func() Event { return &MemberJoined{} }},
	"memberLeft":                     {true, false, func() Event { return &MemberLeft{} }},
	"epochAdvanced":                  {true, false, func() Event { return &EpochAdvanced{} }},
	"conversationUpdated":            {true, false, func() Event { return &ConversationUpdated{} }},
	"readEvent":                      {true, false, func() Event { return &ReadEvent{} }},
	"membershipChangeEvent":          {false, true, func() Event { return &MembershipChangeEvent{} }},
	"groupInfoRefreshRequestedEvent": {false, true, func() Event { return &GroupInfoRefreshRequestedEvent{} }},
	"readditionRequestedEvent":       {false, true, func() Event { return &ReadditionRequestedEvent{} }},
	"treeChanged":                    {false, true, func() Event { return &TreeChanged{} }},
	"groupResetEvent":                {false, true, func() Event { return &GroupResetEvent{} }},
	"circuitBreakerTrippedEvent":     {false, true, func() Event { return &CircuitBreakerTrippedEvent{} }},
	"resetRequestedEvent":            {false, true, func() Event { return &ResetRequestedEvent{} }},
	"welcomeReissueRequestedEvent":   {false, true, func() Event { return &WelcomeReissueRequestedEvent{} }},
}

// Knows reports whether the union of a client of this generation contains the event. If the
// generation is unknown, only events of both are safe.
func (g Generation) Knows(eventType string) bool {
	kind := eventKinds[eventType]
	switch g {
	case GenerationA:
		return kind.inA
	case GenerationB:
		return kind.inB
	}
	return kind.inA && kind.inB
}

// For converts an event to the equivalent event of this generation, if there is one: a request
// for a GroupInfo or an addition is an infoEvent for clients that may not know the specific
// event, and membership changes have an event in each generation. It returns nil if nothing may
// be sent.
func (g Generation) For(event Event) Event {
	if g.Knows(event.Type()) {
		return event
	}
	switch e := event.(type) {
	case *GroupInfoRefreshRequestedEvent:
		return &InfoEvent{e.Cursor, "a current GroupInfo is wanted", "groupInfoRefreshRequested", e.ConvoID, e.RequestedBy}
	case *ReadditionRequestedEvent:
		return &InfoEvent{e.Cursor, "a member wants to be added again", "readditionRequested", e.ConvoID, e.RequestedBy}
	case *MemberJoined:
		if g == GenerationB {
			return &MembershipChangeEvent{e.Cursor, e.ConvoID, e.DID, "joined"}
		}
	case *MemberLeft:
		if g == GenerationB {
			return &MembershipChangeEvent{e.Cursor, e.ConvoID, e.DID, e.Action}
		}
	}
	return nil
}

package xrpc

// Type names the event.
func (*MessageEvent) Type() string { return "messageEvent" }

// Type names the event.
func (*ReactionEvent) Type() string { return "reactionEvent" }

// Type names the event.
func (*TypingEvent) Type() string { return "typingEvent" }

// Type names the event.
func (*NewDeviceEvent) Type() string { return "newDeviceEvent" }

// Type names the event.
func (*InfoEvent) Type() string { return "infoEvent" }

// Type names the event.
func (*MemberJoined) Type() string { return "memberJoined" }

// Type names the event.
func (*MemberLeft) Type() string { return "memberLeft" }

// Type names the event.
func (*EpochAdvanced) Type() string { return "epochAdvanced" }

// Type names the event.
func (*ConversationUpdated) Type() string { return "conversationUpdated" }

// Type names the event.
func (*ReadEvent) Type() string { return "readEvent" }

// Type names the event.
func (*MembershipChangeEvent) Type() string { return "membershipChangeEvent" }

// Type names the event.
func (*GroupInfoRefreshRequestedEvent) Type() string { return "groupInfoRefreshRequestedEvent" }

// Type names the event.
func (*ReadditionRequestedEvent) Type() string { return "readditionRequestedEvent" }

// Type names the event.
func (*TreeChanged) Type() string { return "treeChanged" }

// Type names the event.
func (*GroupResetEvent) Type() string { return "groupResetEvent" }

// Type names the event.
func (*CircuitBreakerTrippedEvent) Type() string { return "circuitBreakerTrippedEvent" }

// Type names the event.
func (*ResetRequestedEvent) Type() string { return "resetRequestedEvent" }

// Type names the event.
func (*WelcomeReissueRequestedEvent) Type() string { return "welcomeReissueRequestedEvent" }

// eventKind is a row of the table of A.12: who knows the event, and how to make one.
type eventKind struct {
	inA, inB bool
	make     func() Event
}

// eventKinds has the unions of both generations. A client that meets a type outside its
// union ends the stream, so nothing is sent that is not in here for it.
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

// Knows says whether a client of this generation has the event in its union. When the
// generation is unknown, only what both have is safe.
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

// For turns an event into one that a client of this generation knows, where there is one
// that says the same: a wish for a GroupInfo or an addition is an infoEvent to those who
// may not know the event of that name, and coming and going have an event in each
// generation. It returns nil when nothing may be sent.
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

package chat

import (
	"cmp"

	"waxwing.im/waxwing/client"
)

// noteOf describes an event in sentences for people; messages have none.
func (t *Terminal) noteOf(e client.Event) []string {
	var out []string
	switch e.Type {
	case client.EventMessage:
	case client.EventJoined:
		out = append(out, "you are in")
	case client.EventRejoined:
		out = append(out, "you have rejoined the group: "+cmp.Or(e.Problem, "your own state was unusable"))
	case client.EventRemoved:
		out = append(out, "you are no longer in this conversation")
	case client.EventMembers:
		for _, m := range e.Members {
			out = append(out, t.comer(m)+" joined")
		}
		for _, m := range e.Gone {
			out = append(out, t.comer(m)+" left")
		}
	case client.EventKeyChange:
		out = append(out, t.people.newKey(e.From))
	case client.EventName:
		out = append(out, t.people.newName(e))
	case client.EventLeftOut:
		out = append(out, "a device of "+t.people.nameOf(e.From)+" could not be added: "+e.Problem)
	default:
		out = append(out, cmp.Or(e.Problem, string(e.Type)))
	}
	return out
}

// newKey describes a device with an unknown key.
func (p people) newKey(m client.Member) string {
	whose := "your device"
	if m.Account != p.self {
		whose = "a device of " + p.called(m.Account) + p.markOf(m)
	}
	return whose + ", " + deviceName(m) + ", has a new key: compare safety numbers again (/verify)"
}

// newName describes a name that was chosen or given.
func (p people) newName(e client.Event) string {
	switch {
	case e.From.Account == p.self:
		return p.nameDescription()
	case e.Conversation == "":
		return short(e.From.Account) + " is " + p.called(e.From.Account) + " now, by another device of yours"
	case shownName(e.Name) == "":
		return short(e.From.Account) + " goes by no name now"
	}
	return short(e.From.Account) + " goes by " + markClaimed + shownName(e.Name) + " now"
}

// comer names a member that joins or leaves; one of our own account is another device.
func (t *Terminal) comer(m client.Member) string {
	if m.Account == t.self {
		return "your device " + deviceName(m)
	}
	return t.people.nameOf(m)
}

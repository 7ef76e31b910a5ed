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
		out = append(out, "a new key of "+t.nameOf(e.From)+": compare safety numbers again (/verify)")
	case client.EventLeftOut:
		out = append(out, "a device of "+t.nameOf(e.From)+" could not be added: "+e.Problem)
	default:
		out = append(out, cmp.Or(e.Problem, string(e.Type)))
	}
	return out
}

// comer names a member that joins or leaves; one of our own account is another device.
func (t *Terminal) comer(m client.Member) string {
	if m.Account == t.self {
		return "your device " + deviceName(m)
	}
	return t.nameOf(m)
}

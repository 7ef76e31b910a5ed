package chat

import (
	"cmp"
	"slices"

	"waxwing.im/waxwing/client"
)

// noteOf describes an event in sentences for people; messages have none.
func (t *Terminal) noteOf(e client.Event) []string {
	var out []string
	switch e.Type {
	case client.EventMessage:
	case client.EventJoined:
		text := "you are in"
		if e.By.Account != "" && e.By.Account != t.self {
			text += ": " + t.people.nameOf(e.By) + " added you"
		}
		out = append(append(out, text), t.people.comings(e)...)
	case client.EventRejoined:
		out = append(out, "you have rejoined the group: "+cmp.Or(e.Problem, "your own state was unusable"))
	case client.EventRemoved:
		switch {
		case len(e.Left) > 0:
			out = append(out, "you left")
		case e.By.Account != "":
			out = append(out, t.people.doer(e.By)+" removed you")
		default:
			out = append(out, "you are no longer in this conversation")
		}
	case client.EventMembers:
		out = t.people.comings(e)
	case client.EventTitle:
		out = append(out, t.people.titleNote(e))
	case client.EventRoles:
		out = t.people.roleNotes(e)
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

// comings describes who came and went by a commit. A further device is no further person.
func (p people) comings(e client.Event) []string {
	var out []string
	said := map[string]bool{}
	each := func(devices []client.Member, accounts []string, text func(name string) string) {
		for _, m := range devices {
			if slices.Contains(accounts, m.Account) && !said[m.Account] {
				said[m.Account] = true
				out = append(out, text(p.nameOf(m)))
			}
		}
	}
	each(e.Members, e.Added, func(name string) string { return p.doer(e.By) + " added " + name })
	each(e.Gone, e.Removed, func(name string) string { return p.doer(e.By) + " removed " + name })
	each(e.Gone, e.Left, func(name string) string { return name + " left" })
	if e.Type != client.EventMembers {
		return out
	}
	for _, m := range e.Members {
		if !said[m.Account] {
			out = append(out, "a new device of "+p.deviceOf(m))
		}
	}
	for _, m := range e.Gone {
		if !said[m.Account] {
			out = append(out, "no longer a device of "+p.deviceOf(m))
		}
	}
	return out
}

// doer names the member that made a change.
func (p people) doer(m client.Member) string {
	if m.Account == p.self {
		return "you"
	}
	return p.nameOf(m)
}

// deviceOf names a device and the account that it belongs to.
func (p people) deviceOf(m client.Member) string {
	if m.Account == p.self {
		return "yours: " + deviceName(m)
	}
	return p.nameOf(m) + ": " + deviceName(m)
}

// isInHistory reports whether the history has an event besides the messages.
func isInHistory(e client.Event) bool {
	switch e.Type {
	case client.EventJoined, client.EventRejoined, client.EventRemoved, client.EventMembers, client.EventRoles:
		return true
	case client.EventTitle:
		return e.By.Account != "" // otherwise it was sent again
	}
	return false
}

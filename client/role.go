package client

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"time"
)

// The roles of accounts in a conversation, as the server assigns them.
const (
	RoleOwner  = "owner"
	RoleAdmin  = "admin"
	RoleMember = "member"
)

// mayManage reports whether an account with that role may add and remove others.
func mayManage(role string) bool { return role == RoleOwner || role == RoleAdmin }

// RoleChange is the role of an account in a conversation.
type RoleChange struct {
	Account string `json:"account"`
	Role    string `json:"role"` // RoleOwner, RoleAdmin or RoleMember
}

// appointment is a role that SetAdmin has requested.
type appointment struct {
	Account string `json:"account"`
	IsAdmin bool   `json:"admin"`
}

// SetAdmin makes members of a room admins or, with isAdmin false, admins plain members. Only the
// owner of the room may do so, with WithXRPC its admins too, which the server checks
// (EventProblem). An EventRoles reports the completion. The error wraps ErrNoMember for an
// account that is not in the room, and ErrOwner for its owner; nothing is changed then.
func (c *Client) SetAdmin(ctx context.Context, room string, isAdmin bool, members ...string) error {
	return c.manage(ctx, room, func(conv *conversation) error {
		info := conv.editInfo()
		for _, account := range members {
			switch {
			case !conv.isWanted(account) && (conv.group == nil || !hasAccount(conv.group, account)):
				return fmt.Errorf("set role: %w: %s", ErrNoMember, account)
			case conv.roleOf(account) == RoleOwner || account == c.account.DID() && conv.info.Role == RoleOwner:
				return fmt.Errorf("set role: %w: %s", ErrOwner, account)
			}
			info.Appoint = slices.DeleteFunc(info.Appoint, func(a appointment) bool { return a.Account == account })
			info.Appoint = append(info.Appoint, appointment{account, isAdmin})
		}
		return nil
	})
}

// isWanted reports whether an account is to be added to the group.
func (c *conversation) isWanted(account string) bool {
	return slices.ContainsFunc(c.info.Wanted, func(w wanted) bool { return w.Account == account && !w.Own })
}

// roleOf returns the last known role of an account, "" if unknown.
func (c *conversation) roleOf(account string) string {
	if c.info.Managers == nil {
		return ""
	}
	if role := c.info.Managers[account]; role != "" {
		return role
	}
	return RoleMember
}

// accounts returns the accounts in the group, sorted.
func (c *conversation) accounts() []string {
	in := map[string]bool{}
	if c.group != nil {
		for _, leaf := range c.group.Members() {
			in[string(leaf.Credential)] = true
		}
	}
	return slices.Sorted(maps.Keys(in))
}

// nextAppointment returns the first appointment that can be carried out.
func (c *conversation) nextAppointment() (appointment, bool) {
	at := slices.IndexFunc(c.info.Appoint, func(a appointment) bool { return !c.isWanted(a.Account) })
	if at < 0 || c.phase != Joined {
		return appointment{}, false
	}
	return c.info.Appoint[at], true
}

// appoint has the server change the roles that SetAdmin has requested. After a crash it repeats
// the last change.
func (e errands) appoint(ctx context.Context, by service, id string) error {
	for {
		conv, err := e.c.snapshot(ctx, id)
		if err != nil || conv == nil {
			return err
		}
		a, ok := conv.nextAppointment()
		if !ok {
			return nil
		}
		err = by.setAdmin(ctx, id, a.Account, a.IsAdmin)
		refusal := asRefusal(err)
		if err != nil && (refusal == nil || refusal.mayPass() || refusal.Code == codeUnauthorized) {
			return fmt.Errorf("set role: %w", err)
		}
		if err := e.c.db.edit(ctx, id, func(tx *tx, conv *conversation) error { return e.appointed(tx, conv, a, refusal) }); err != nil {
			return err
		}
	}
}

// appointed records the answer of the server to a change of a role. The other members are told,
// encrypted: the server reports no roles unless it is asked.
func (e errands) appointed(tx *tx, conv *conversation, a appointment, refusal *Refusal) error {
	info := conv.editInfo()
	info.Appoint = slices.DeleteFunc(info.Appoint, func(other appointment) bool { return other == a })
	info.RolesDue = true
	if refusal != nil {
		return e.c.keeper.reportProblem(tx, conv, refusal)
	}
	if conv.phase != Joined {
		return nil
	}
	role := RoleMember
	if a.IsAdmin {
		role = RoleAdmin
	}
	change := []RoleChange{{a.Account, role}}
	if err := e.c.keeper.addContent(tx, conv, contentRoom, roomContent{Roles: change}); err != nil {
		return err
	}
	return conv.changeRoles(tx, e.c.account.DID(), conv.withRoles(change), Event{Conversation: conv.id, Time: e.c.now(), By: e.c.Self()}, nil)
}

// withRoles returns the owner and admins after some changes, nil if they are unknown. Ownership
// does not change, and accounts that are not in the group have no role.
func (c *conversation) withRoles(changes []RoleChange) map[string]string {
	next := maps.Clone(c.info.Managers)
	for _, change := range changes {
		switch {
		case next == nil || next[change.Account] == RoleOwner || !hasAccount(c.group, change.Account):
		case change.Role == RoleAdmin:
			next[change.Account] = RoleAdmin
		case change.Role == RoleMember:
			delete(next, change.Account)
		}
	}
	return next
}

// changeRoles replaces the known roles, and reports what has changed by e; digest is that of the
// record which says so. self is the own account.
func (c *conversation) changeRoles(tx *tx, self string, next map[string]string, e Event, digest *digest) error {
	if next == nil || maps.Equal(next, c.info.Managers) {
		return nil
	}
	before := c.clone()
	info := c.editInfo()
	info.Managers = next
	info.Role = c.roleOf(self)
	for _, account := range c.accounts() {
		if role := c.roleOf(account); before.info.Managers != nil && role != before.roleOf(account) {
			e.Roles = append(e.Roles, RoleChange{account, role})
		}
	}
	if len(e.Roles) == 0 {
		return nil
	}
	e.Type = EventRoles
	return tx.saveChange(c, e, digest)
}

// applyRoles applies what a member says about roles. One that may change roles is believed, and
// in any case the server is asked: its list is what counts.
func (c *conversation) applyRoles(tx *tx, self string, e Event, digest *digest, changes []RoleChange) error {
	c.askRoles()
	e.By, e.From = e.From, Member{}
	return c.changeRoles(tx, self, c.withRoles(changes), e, digest)
}

// confirmRoles applies what a member said about roles as far as the server's list agrees. It
// reports that also if no roles were known before.
func (c *conversation) confirmRoles(tx *tx, self string, e Event, changes []RoleChange, managers map[string]string) error {
	var confirmed []RoleChange
	for _, change := range changes {
		if hasAccount(c.group, change.Account) && cmp.Or(managers[change.Account], RoleMember) == change.Role {
			confirmed = append(confirmed, change)
		}
	}
	if c.info.Managers != nil {
		return c.changeRoles(tx, self, c.withRoles(confirmed), e, nil)
	}
	if len(confirmed) == 0 {
		return nil
	}
	e.Type, e.Roles = EventRoles, confirmed
	return tx.saveChange(c, e, nil)
}

// listRoles applies the server's list of the members.
func (c *conversation) listRoles(tx *tx, self string, list []RoleChange, now time.Time) error {
	managers := map[string]string{}
	for _, m := range list {
		if mayManage(m.Role) {
			managers[m.Account] = m.Role
		}
	}
	if err := c.settleClaims(tx, self, managers); err != nil {
		return err
	}
	return c.changeRoles(tx, self, managers, Event{Conversation: c.id, Time: now}, nil)
}

// What members say about roles makes all others ask the server. They do so at different times, and
// not more often than at intervals, or one member could have them all ask all the time.
const (
	rolesSpread   = 20 * time.Millisecond // for each member
	rolesInterval = 30 * time.Second
)

// advanceRoles requests the roles and members that are due, or the changes of roles.
func (s *session) advanceRoles(ctx context.Context, conv *conversation, sub *subscription) {
	if s.jobs[conv.id] || !sub.commit.isReady() || conv.phase != Joined {
		return
	}
	id := conv.id
	isUnknown := conv.info.Role == "" || conv.info.Kind == Room && conv.info.Managers == nil
	_, isAppointing := conv.nextAppointment()
	switch {
	case !conv.info.RolesDue && sub.roles.isReady():
		sub.roles.ok()
	case conv.info.RolesDue && sub.roles == (retry{}):
		sub.roles = retry{failed: 1, at: time.Now().Add(mathrand.N(rolesSpread * time.Duration(len(conv.group.Members()))))}
	}
	switch {
	case isAppointing:
		s.start(ctx, id, func(ctx context.Context) error { return s.c.errands.appoint(ctx, s.calls, id) },
			func(err error) { sub.rosterDue = sub.rosterDue || err == nil })
	case sub.rosterDue || isUnknown && !sub.rosterRequested || conv.info.RolesDue && sub.roles.isReady():
		sub.rosterRequested = true
		sub.roles = retry{failed: 1, at: time.Now().Add(rolesInterval)}
		s.start(ctx, id, func(ctx context.Context) error { return s.c.errands.requestRoster(ctx, s.calls, id) },
			func(err error) { sub.rosterDue = err != nil && sub.commit.failed < rosterTries })
	}
}

// expectedSuccessor returns the owner of the conversation after this account, its owner, has left without
// naming one, as far as the members are known; "" if it is not the owner, or the server chooses.
func (e errands) expectedSuccessor(conv *conversation) string {
	if !e.c.traits.namesSuccessor || conv.info.Kind != Room || conv.info.Managers == nil {
		return ""
	}
	var list []RoleChange
	for _, role := range []string{RoleOwner, RoleAdmin, RoleMember} { // as the server's list is sorted
		for _, account := range conv.accounts() {
			if conv.roleOf(account) == role && !slices.Contains(conv.info.Missing, account) {
				list = append(list, RoleChange{account, role})
			}
		}
	}
	return e.successor(list, "")
}

package identity

import (
	"bytes"
	"context"
	"slices"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
)

// Selection names sessions of the caller's account to revoke: one by its id, or all
// of a device. Exactly one of the two is set.
type Selection struct {
	SessionID string
	DeviceID  ds.DeviceID
	// IncludeSelf lets the selection contain the caller's own session.
	IncludeSelf bool
}

// Sessions lists the live sessions of the account of s: s first, then by device and id.
func (a *Authenticator) Sessions(ctx context.Context, s Session) ([]Session, error) {
	rows, err := store.Get(ctx, a.o.Store.Read, func(tx *store.Tx) ([]store.Session, error) {
		return tx.Sessions.Of(s.Account, a.o.Now().UnixMilli())
	})
	if err != nil {
		return nil, err
	}
	list := make([]Session, 0, len(rows))
	for _, row := range rows {
		if bytes.Equal(row.Hash, s.hash[:]) {
			list = slices.Insert(list, 0, asSession(row))
		} else {
			list = append(list, asSession(row))
		}
	}
	return list, nil
}

// Logout ends the session: its tokens become invalid and its sockets and streams are notified.
func (a *Authenticator) Logout(ctx context.Context, s Session) error {
	_, err := a.revoke(ctx, s, s.ID, "", nil)
	if err == nil {
		a.end([][32]byte{s.hash}) // even if its row is gone already
	}
	return err
}

// LogoutAll ends the sessions of the account of s, s itself only if includeSelf is
// set, and returns how many.
func (a *Authenticator) LogoutAll(ctx context.Context, s Session, includeSelf bool) (int, error) {
	ids, err := a.revoke(ctx, s, "", "", keepUnless(includeSelf, s))
	return len(ids), err
}

// Revoke ends the selected sessions and returns their ids, sorted. It is not an error if a
// session does not exist or belongs to another account.
func (a *Authenticator) Revoke(ctx context.Context, s Session, selection Selection) ([]string, error) {
	if (selection.SessionID == "") == (selection.DeviceID == "") {
		return nil, ds.Refuse(ds.InvalidRequest, "exactly one of session_id and device_id is required")
	}
	if selection.SessionID == s.ID && !selection.IncludeSelf {
		return nil, ds.Refuse(ds.InvalidRequest, "refusing to revoke current session without include_self")
	}
	return a.revoke(ctx, s, selection.SessionID, selection.DeviceID, keepUnless(selection.IncludeSelf, s))
}

func keepUnless(includeSelf bool, s Session) []byte {
	if includeSelf {
		return nil
	}
	return s.hash[:]
}

// revoke ends sessions and returns the ids of those that were alive, sorted. A session that has
// expired by its row may still be attached, here or on another node, so all of them are ended.
func (a *Authenticator) revoke(ctx context.Context, s Session, id string, device ds.DeviceID, keep []byte) ([]string, error) {
	var rows []store.Session
	nowMS := a.o.Now().UnixMilli()
	err := a.writer.do(ctx, &job{isRevocation: true, run: func(tx *store.Tx) (err error) {
		rows, err = tx.Sessions.Revoke(s.Account, id, device, keep, nowMS)
		return err
	}})
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(rows))
	hashes := make([][32]byte, 0, len(rows))
	for _, row := range rows {
		if a.isAlive(row, nowMS) {
			ids = append(ids, row.ID)
		}
		hashes = append(hashes, [32]byte(row.Hash))
	}
	a.end(hashes)
	slices.Sort(ids)
	return ids, nil
}

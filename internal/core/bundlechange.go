package core

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// GroupChange is a commit with what belongs to it, as clients of the XRPC API describe
// one: they name accounts and key packages, and leave devices to the service.
type GroupChange struct {
	ConversationID ds.ConversationID
	// Method and Key name the request among those of its caller: once more under the same
	// name it is answered as the first time. Without a Key the commit's bytes name it.
	Method, Key string

	Commit, Welcome, GroupInfo []byte // MLSMessages; the latter two may be nil
	ConfirmationTag            []byte // of the epoch that the commit opens, or nil
	// Add names accounts for whom the Welcome is: new ones, or members who get another
	// device into the group. Remove names accounts that are no members from then on.
	Add, Remove []ds.AccountID
	// Packages says whose key packages were used, as far as the caller says it.
	Packages []UsedPackage
	// Enters says that the caller enters the group by itself: the commit is an external
	// one (RFC 9420, section 12.4.3.2). A former member becomes one again by it, where the
	// rules of the conversation allow that. Device is then the caller's, as it calls it,
	// or "".
	Enters bool
	Device ds.DeviceID
}

// UsedPackage is a key package that a Welcome was made for.
type UsedPackage struct {
	Account ds.AccountID
	Ref     string // hex
}

// CommitID is the message id of a commit that came without one: the same for the same
// request of the same account and for nobody else's, or, without a key, for the same bytes.
func CommitID(account ds.AccountID, method, key string, commit []byte) ds.MessageID {
	prefix, sum := "c-", sha256.Sum256(commit)
	if key != "" {
		prefix, sum = "k-", sha256.Sum256([]byte(string(account)+"\x00"+method+"\x00"+key))
	}
	return ds.MessageID(prefix + hex.EncodeToString(sum[:])[:40])
}

// ChangeGroup puts a commit with what belongs to it into the log, or answers where an
// earlier one of the same name stands; the record's Epoch is the one that the commit
// opened, its Body the commit that was stored, if it is still there. Refusals:
// invalid_request (BadCommit, BadGroupInfo, NoKeyPackage, AlreadyMember), forbidden
// (NotMember, NotAllowed), limit_exceeded (TooManyMembers), epoch_conflict (LostRace),
// rate_limited.
func (s *Service) ChangeGroup(ctx context.Context, who ds.Caller, g GroupChange) (ds.Record, error) {
	b := Bundle{ConversationID: g.ConversationID, ID: CommitID(who.Account, g.Method, g.Key, g.Commit), Commit: g.Commit, Welcome: g.Welcome,
		GroupInfo: g.GroupInfo, Add: g.Add, Remove: g.Remove, Encoding: ds.Binary, ConfirmationTag: g.ConfirmationTag, isLoose: true}
	if err := CheckIDs(b.ConversationID, b.ID); err != nil {
		return ds.Record{}, err
	}
	if len(g.Add)+len(g.Remove) > changeAccountsMax || len(g.Packages) > recipientsMax {
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "at most %d accounts in one commit", changeAccountsMax).Because(ds.TooManyMembers)
	}
	seen, err := checkBundle(b)
	if err != nil {
		return ds.Record{}, err
	}
	switch {
	case seen.external != g.Enters && g.Enters:
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "not an external commit").Because(ds.BadCommit)
	case seen.external != g.Enters:
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "an external commit is for entering the group by oneself").Because(ds.BadCommit)
	case len(g.Add) > 0 && g.Welcome == nil:
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "accounts are added with a welcome")
	case g.Enters && len(g.Add)+len(g.Remove)+len(g.Packages)+len(g.Welcome) > 0:
		return ds.Record{}, ds.Refuse(ds.InvalidRequest, "an external commit adds and removes no accounts").Because(ds.BadCommit)
	case g.Enters:
		b.entry, b.entered, err = s.judgeEntry(ctx, who, b, g.Device)
	default:
		b.To, err = s.findRecipients(ctx, g)
		b.entered = enteredBy(b.To)
	}
	if seen.refused = err; err != nil && ds.CodeOf(err) == "" {
		return ds.Record{}, err // what is a refusal counts once it is clear that this is no repeat
	}
	r, err := s.submitBundle(ctx, who, b, seen)
	if err == nil && r.Body == nil {
		r, err = s.stored(ctx, r)
	}
	return r, err
}

// stored is a record with all that is kept of it, or what is known of it where the
// record itself is gone.
func (s *Service) stored(ctx context.Context, known ds.Record) (ds.Record, error) {
	list, err := s.store.RecordsAfter(ctx, known.Log, known.Pos-1, 1, 1)
	if len(list) == 1 && list[0].Pos == known.Pos {
		known = list[0]
	}
	return known, err
}

// submitBundle hands a bundle to its conversation's flusher.
func (s *Service) submitBundle(ctx context.Context, who ds.Caller, b Bundle, seen sight) (ds.Record, error) {
	accounts := slices.Concat(b.Add, b.Remove)
	for _, to := range b.To {
		accounts = append(accounts, to.Device.Account)
	}
	welcomeID := rand.Text()
	r := &request{conversation: b.ConversationID, who: who, messageID: b.ID, accounts: accounts,
		bytes: len(b.Commit) + len(b.Welcome) + len(b.GroupInfo) + 2*nameBytes(accounts) + recipientBytes(b.To)}
	r.rule = func(c *conversation, nowMS int64) error {
		var err error
		r.record, err = s.decideBundle(c, who, b, seen, welcomeID, nowMS)
		return err
	}
	if err := s.submit(ctx, r); err != nil {
		return ds.Record{}, err
	}
	return r.record, nil
}

// recipientBytes is what a list of recipients keeps alive, with what enteredBy makes of it.
func recipientBytes(to []Recipient) int {
	n := 0
	for _, r := range to {
		n += 3*requestNameBytes + len(r.Device.Account) + len(r.Device.ID) + len(r.KeyPackageRef)
	}
	return n
}

// knownPackages is what the directory knows of the key packages of one change.
type knownPackages struct {
	owners     map[string]ds.Device // by ref
	publishers map[ds.AccountID]bool
}

// findRecipients says whom a Welcome is for.
func (s *Service) findRecipients(ctx context.Context, g GroupChange) ([]Recipient, error) {
	refs := welcomeRefs(g.Welcome)
	if len(refs)+len(g.Packages) == 0 {
		return nil, nil
	}
	asked, accounts := slices.Clone(refs), make([]ds.AccountID, len(g.Packages))
	for i, p := range g.Packages {
		asked, accounts[i] = append(asked, strings.ToLower(p.Ref)), p.Account
	}
	var known knownPackages
	err := s.store.View(ctx, func(tx *store.Tx) (err error) {
		if known.owners, err = tx.PackageOwners(asked); err != nil {
			return err
		}
		known.publishers, err = tx.Publishers(distinct(accounts))
		return err
	})
	if err != nil {
		return nil, err
	}
	return recipientsOf(g, refs, known)
}

// readWelcome reads a Welcome, by itself or as an MLSMessage; nil if it is none.
func readWelcome(data []byte) *wire.Welcome {
	var m wire.Message
	if err := wire.Unmarshal(data, &m); err == nil && m.Welcome != nil {
		return m.Welcome
	}
	w := new(wire.Welcome)
	if err := wire.Unmarshal(data, w); err != nil || len(w.Secrets) == 0 {
		return nil
	}
	return w
}

// welcomeRefs are the key packages that a Welcome says it is for, once each.
func welcomeRefs(welcome []byte) []string {
	w := readWelcome(welcome)
	if w == nil {
		return nil
	}
	refs := make([]string, 0, len(w.Secrets))
	for i := range w.Secrets {
		refs = append(refs, hex.EncodeToString(w.Secrets[i].NewMember))
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}

// recipientsOf finds the recipients of a Welcome: by the key packages that it names,
// where the directory or the caller says whose they are; what is left over is for any
// device of the accounts that are to be added and have none yet.
func recipientsOf(g GroupChange, refs []string, known knownPackages) ([]Recipient, error) {
	if len(refs) > recipientsMax {
		return nil, ds.Refuse(ds.InvalidRequest, "the welcome is for too many devices").Because(ds.BadCommit)
	}
	said := map[string]ds.AccountID{}
	for _, p := range g.Packages {
		ref := strings.ToLower(p.Ref)
		owner, isKnown := known.owners[ref]
		if isKnown && owner.Account != p.Account || !isKnown && known.publishers[p.Account] {
			return nil, ds.Refuse(ds.InvalidRequest, "%s has published no key package %.64s", p.Account, p.Ref).Because(ds.NoKeyPackage)
		}
		if _, isNamed := slices.BinarySearch(refs, ref); !isNamed {
			return nil, ds.Refuse(ds.InvalidRequest, "the welcome is not for the key package %.64s", p.Ref).Because(ds.BadCommit)
		}
		said[ref] = p.Account
	}
	var list []Recipient
	found, unknown := map[ds.AccountID]bool{}, 0
	for _, ref := range refs {
		device, isKnown := known.owners[ref]
		if !isKnown {
			device = ds.Device{Account: said[ref]}
		}
		if device.Account == "" {
			unknown++
			continue
		}
		found[device.Account] = true
		list = append(list, Recipient{Device: device, KeyPackageRef: ref})
	}
	named := len(list)
	for _, account := range g.Add {
		if unknown > 0 && !found[account] {
			found[account] = true
			list = append(list, Recipient{Device: ds.Device{Account: account}})
		}
	}
	if unknown > 0 && len(list) == named {
		return nil, ds.Refuse(ds.InvalidRequest, "the welcome is for a key package that nobody has published").Because(ds.NoKeyPackage)
	}
	return list, nil
}

// enteredBy is what a Welcome's recipients say of devices and key packages.
func enteredBy(to []Recipient) (e store.Entered) {
	for _, r := range to {
		if r.Device.ID != "" {
			e.Devices, e.Packages = append(e.Devices, r.Device), append(e.Packages, r.KeyPackageRef)
		}
	}
	return e
}

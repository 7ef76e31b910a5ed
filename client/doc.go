// Package client is the Go SDK of Waxwing: one device of an account, with its keys,
// conversations and history, over one WebSocket, or over plain HTTP on networks that block
// WebSockets.
//
// # A first conversation
//
// An account is a key; there is no registration. A client lives in a home directory, whose
// contents are sealed with a storage key:
//
//	account, err := client.AccountFromSeed(seed, "ann")
//	c, err := client.Open(ctx, client.Options{
//		Dir: "/home/ann/.waxwing", StorageKey: key, Server: "https://chat.example", Account: account,
//	})
//	defer c.Close()
//
//	dm, err := c.StartDM(ctx, bob)
//	id, err := c.Send(ctx, dm, []byte("hello"))
//
//	for {
//		e, err := c.Next(ctx)
//		if err != nil {
//			return err
//		}
//		if e.Type == client.EventMessage {
//			fmt.Println(e.From.Account, string(e.Text))
//		}
//		err = c.Ack(ctx, e.ID)
//	}
//
// Open needs no network, nor do StartDM, CreateRoom, Invite and Send: they record the request
// in the home, and the client carries it out as soon as possible, across lost connections,
// crashes and restarts. State returns the state of the connection.
//
// # The life of a room
//
// The account that creates a room owns it; the owner and the admins manage its members:
//
//	room, err := c.CreateRoom(ctx, bob, cid)
//	err = c.Invite(ctx, room, dee)          // all of dee's devices
//	err = c.Remove(ctx, room, bob)          // all of bob's
//	err = c.Refresh(ctx, room)              // fresh keys for this device
//	err = c.Leave(ctx, room)                // with all devices of this account
//
// An event reports the completion of each: EventJoined, EventMembers, EventRemoved, or
// EventProblem if the server does not allow it. A change of the group is a commit. Of several
// concurrent commits one takes effect and the others are made again on top of it, after a
// random delay, until all changes are made.
//
// Removing an account takes two steps: the server stops delivering to it, and the group gets
// keys that it does not have. Remove does both at once. Where an account is off the server's
// list and still in the group, because it left or because another client removed it there only,
// the removal is pending (Conversation.Removing): an admin's client commits it at once, any
// other before it sends its next message or after a delay. No message is encrypted in between.
//
// An account may add us to a room and never make its group. The client asks for the groups of
// such conversations at growing intervals, for a bounded number at a time, and gives up after a
// day (Conversation.GaveUp); an invitation is accepted even then, and Retry asks again. A
// device whose key package makes a commit fail is left out of it (EventLeftOut).
//
// A Conversation holds the members of the group, the account's role, and the number of unread
// messages (MarkRead). Search searches the local history.
//
// # Several devices
//
// An account may have any number of devices, each with a home of its own; they share only the
// account's key. A new one can be invited at once, and joins on its own, by an external commit,
// every conversation whose group contains a device of the account: it reads from there on.
// OwnDevices lists them, AddDevice adds one from another, and RemoveDevice removes a lost one
// from all groups.
//
// In the same way a device rejoins after its home was lost, or when it can no longer follow the
// group because commits it needs are gone (EventRejoined).
//
// # Guarantees
//
// A message for which Send has returned an id is delivered once, in order after those sent
// before it into the same conversation, or reported as EventRefused. It is delivered when it
// comes back as an EventMessage with Own set: the log of the conversation then has it, in a
// place that is the same for all members.
//
// Every message of a conversation reaches the application exactly once, in the order of its
// log. New MLS state, the plaintext and the server's cursor change in one local transaction,
// and are acknowledged to the server after that; the application reads from a local inbox with
// a cursor of its own (Next and Ack, or Events for applications that store the cursor with
// their own data). Seq grows by one from message to message; if one is missing the client
// requests it again and skips none. A message that cannot be decrypted is reported and does not
// block the next ones.
//
// # Networks without WebSockets
//
// If a WebSocket cannot be opened the client falls back to HTTP on its own: it reads
// server-sent events and posts its requests. It does so when the handshake is answered with
// anything but a WebSocket, is cut, or gets no answer, and when two sockets in a row end before
// the session begins. All guarantees hold there as well, since the same code handles the same
// frames, and each connection, of either kind, continues from the state in the home. The
// session is resumed across the change, and unanswered requests are sent again under the same
// id.
//
// Meanwhile the client tries a WebSocket from time to time (Options.SocketProbe), and switches
// to it on success. State.Transport is the transport in use.
//
// # XRPC
//
// A server has another door, of the AT Protocol. WithXRPC makes a client use that one:
//
//	c, err := client.Open(ctx, options, client.WithXRPC())
//
// Clients of both doors share conversations, and all guarantees hold for both. The client makes
// an HTTP call for each message, with a token that the account signs for it; a WebSocket
// announces new messages, and those that it does not deliver in order are read from the log.
//
// The protocol lacks some features. LeaveTo is ErrNotOverXRPC: when an owner leaves, the server
// chooses the successor. Epoch authenticators are not reported, so there is no EventFork. A
// device that is removed while offline cannot read the messages that it has missed. After an
// EventRewound the server accepts a message again only if its epoch is still the current one,
// and others come back as EventRefused. A commit adds or removes at most 50 accounts; larger
// changes take several commits.
//
// The server knows a device by a different name at each door, with separate key packages, and
// delivers invitations to the door whose package was used: a home should stay with its door.
//
// # Trust
//
// Tokens are issued for the service at the configured address: over https a service with
// another name gets none (Options.ServerDID).
//
// The server orders and stores messages and cannot read them. It could still hand out keys of
// its own in an account's name, since an MLS credential is only text. So every device made by
// this package carries a certificate by its account's key, which for a did:key is the account's
// name itself. A leaf with a wrong certificate is refused everywhere. Without one, a did:key
// account's device is refused in key packages, invitations and external joins (ErrKeyPackage,
// ErrUncertified), unless Options.AllowUnverified is set. Accounts of other kinds of DID cannot
// be checked here: their devices are unverified, remembered on first sight and shown with a
// fingerprint to compare (Member, Devices). An unknown key of a known account is an
// EventKeyChange. In the name of such an account a server could enter a group by an external
// commit; that is followed only with the key that the member had before, and is otherwise an
// EventJoinRefused.
//
// Whether an account belongs to the expected person is for people to check: they compare a
// SafetyNumber, with which Verify marks the account, and Member.Trusted is then set for its
// devices.
//
// The server's list of members removes from the group the accounts that it omits, which the
// server could also cut off by not delivering, and adds none. The client trusts a GroupInfo
// signed by a device that was in the group when this one last was in it; it trusts other
// devices of those accounts after a call of Rejoin, and with Options.AllowUnverified. It cannot
// tell whether the signer has been removed since. A device without earlier knowledge of the
// group only learns its members; applications should display them. An account without a device
// in a group cannot join it on its own, whatever the server sends.
//
// A commit of our own takes effect when the log shows it, not before: of two members who change
// a group at once one wins, and the other follows and repeats its remaining changes. All
// members then agree on EpochAuthenticator, and report it: if they do not there is an
// EventFork. The server does the comparison, which finds its own faults; a server that shows
// people different logs on purpose would not report it, and only people who compare
// EpochAuthenticator themselves detect it.
//
// A server that was restored from a backup has lost records that it had acknowledged. The
// client detects this on the next connection (EventRewound), and each client sends its own
// records again, the same bytes under the same ids, so that the log is restored from its
// members. In the account's own log, which carries invitations, the loss shows when another
// event takes the place of a known one; until then, a shorter log looks like one without new
// events.
//
// # At rest
//
// The home is one SQLite database. MLS state, keys, tokens, texts, history, the names of
// accounts and everything in the outbox are sealed with XChaCha20-Poly1305, bound to their
// table, row and column. Conversation and message ids, counters and ciphertexts are not: the
// server has them too. Key packages are erased when used, and deleted content is overwritten.
// Only one client may have a home open: it holds a lock on a file in it, and another one gets
// ErrInUse.
//
// A home must not be restored from a backup and used: its ratchets would be in a past state,
// and messages would be encrypted twice with one key.
package client

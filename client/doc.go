// Package client is the Go SDK of Waxwing: one device of an account, with its
// keys, its conversations and its history, over one WebSocket, or over plain HTTP
// where that is all a network lets through.
//
// # A first conversation
//
// An account is a key; there is nothing to register. A client lives in a home
// directory, whose contents are sealed with a storage key:
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
// Open needs no network, and nor do StartDM, CreateRoom, Invite and Send: they write
// down what is wanted, and the client does it as soon as it can, across lost
// connections, crashes and restarts. State tells how the connection stands.
//
// # The life of a room
//
// Whoever makes a room owns it, and the owner and admins say who is in it:
//
//	room, err := c.CreateRoom(ctx, bob, cid)
//	err = c.Invite(ctx, room, dee)          // all of dee's devices
//	err = c.Remove(ctx, room, bob)          // all of bob's
//	err = c.Refresh(ctx, room)              // fresh keys for this device
//	err = c.Leave(ctx, room)                // with all devices of this account
//
// Each of these is done when an event says so: EventJoined, EventMembers, EventRemoved,
// or EventProblem if the server does not allow it. A change of the group is a commit.
// Of several that are made at the same moment one takes effect and the others are made
// anew on top of it, after a random while, until nothing is left to do.
//
// Removing somebody takes two things: the server stops delivering, and the group gets
// keys that they do not have. Remove does both at once. Where an account is off the
// server's list and still in the group, because it left or because another client
// removed it there only, the removal is pending (Conversation.Removing): an admin's
// client commits it at once, any other before it says the next thing or after a while.
// Nothing is encrypted in between.
//
// An account that has us in a room need never make its group. Such conversations are asked
// for at growing intervals, a bounded number of them at a time, whatever their number, and
// given up after a day (Conversation.GaveUp); an invitation is taken all the same, and Retry
// asks again. A device whose key package keeps others from being added is left out of their
// commit (EventLeftOut).
//
// A Conversation shows the members of the group, the account's role, and how many
// messages are unread (MarkRead). Search looks through the local history.
//
// # Several devices
//
// An account may have any number of devices, each with a home of its own; all that they
// share is the account's key. A new one is open for invitations at once, and comes by
// itself into every conversation where the account has a device already, by an external
// commit: it reads from there on. OwnDevices lists them, AddDevice brings one in from
// another, and RemoveDevice takes a lost one out of everything.
//
// In the same way a device comes back in whose home was lost, or that cannot follow the
// group any more because commits it needs are gone (EventRejoined).
//
// # What is promised
//
// A message that Send has returned an id for is delivered once, in order behind
// those sent before it into the same conversation, or reported as EventRefused. It
// is delivered when it comes back as an EventMessage with Own set: the log of the
// conversation has it then, in a place that is the same for everyone.
//
// Every message of a conversation reaches the application exactly once, in the
// order of its log. New MLS state, the plaintext and the server's cursor change in
// one local transaction, and the server is told after that; what the application
// reads is an inbox behind it with a cursor of its own (Next and Ack, or Events for
// applications that keep the cursor beside their own data). Seq grows by one from
// message to message; where one is missing the client asks for it again and skips
// nothing. What cannot be decrypted is reported and does not hold up the rest.
//
// # Networks without WebSockets
//
// Where a WebSocket cannot be had the client does without, by itself: it reads
// server-sent events and posts what it has to say. That is so when the handshake is
// answered with anything but a WebSocket, is cut, or is not answered, and when two
// sockets in a row end before the session begins. All that is promised above stays
// true, since the same code takes in the same frames, and on every connection, of
// either kind, goes on from where the home stands. The session is resumed across the
// change, and what had no answer is sent again under the same id.
//
// Meanwhile a WebSocket is tried again every now and then (Options.SocketProbe), and
// taken when it comes through. State.Transport tells which of the two is in use.
//
// # XRPC
//
// A server has another door, of the AT Protocol. WithXRPC lets a client use that one:
//
//	c, err := client.Open(ctx, options, client.WithXRPC())
//
// Who uses which door makes no difference to those who talk: conversations are the same,
// and all that is promised above is true of both. It is a call for each message, by
// HTTP, with a token that the account signs for it; a WebSocket tells what is new, and
// whatever it does not bring in its turn is read from the log.
//
// Some things the protocol does not have. LeaveTo is ErrNotOverXRPC: the server names
// the heir of an owner who leaves. Epoch authenticators are not reported, so there is no
// EventFork.
// Who is removed while away cannot read what was said before that any more.
// After an EventRewound the server takes a message again only if its epoch is still the
// current one, and others come back as EventRefused. A commit adds or removes at
// most 50 accounts at a time, and more take more commits.
//
// The server knows a device by another name at each door, with key packages for each, and
// brings invitations to the door whose package was used: a home should stay with its door.
//
// # Trust
//
// Tokens are made out to the service at the address that was given: over https one that
// names itself otherwise gets none (Options.ServerDID).
//
// The server orders and stores messages and cannot read them. It could still hand
// out keys of its own in somebody's name, since an MLS credential is only text. So
// every device made by this package carries a certificate by its account's key,
// which for a did:key is the account's name itself. A leaf with a wrong certificate
// is refused everywhere. Without one, a did:key account's device is refused in
// key packages, invitations and external joins (ErrKeyPackage, ErrUncertified),
// unless Options.AllowUnverified. Accounts of other kinds of DID cannot be checked
// here: their devices are unverified, remembered on first sight and shown with a
// fingerprint to compare (Member, Devices). A key that was not seen before, of an
// account that was, is an EventKeyChange. In the name of such an account a server could
// enter a group by an external commit; that is followed only with the key that the
// member had before, and else is an EventJoinRefused.
//
// Whether an account is the person that somebody thinks is for people to find out: they
// compare a SafetyNumber, by which Verify marks the account, and Member.Trusted says so
// wherever a device of it is shown.
//
// What the server says of the members takes out of the group whoever it leaves out,
// which it could do anyway by not delivering, and brings in nobody. What it offers to
// enter a group by is believed if a device has signed it that was in the group when this
// one last was; other devices of those accounts are believed when Rejoin was called for,
// and with Options.AllowUnverified. Who was removed since then cannot be told from who
// was not. A device that knows nobody yet sees whom it is among, and should show it. An account that is in no group
// cannot come in by itself, whatever the server hands it.
//
// A commit of our own takes effect when the log shows it, not before: of two
// members who change a group at once one wins, the other follows and does again
// what is still to be done. All members then agree on EpochAuthenticator, and report it:
// if they do not there is an EventFork. It is the server that compares, which finds its
// own faults; one that shows people different logs on purpose would not say so, and
// only people who compare EpochAuthenticator themselves see it.
//
// A server that was restored from a backup has forgotten what it had acknowledged. That
// shows on the next connection (EventRewound), and each client sends again what was its
// own, the same bytes under the same ids, so that the log gets back what its members have.
// The account's own log, by which invitations come, is told to have been set back by
// what then stands where something else stood; until something does, a shorter log
// looks like one with nothing new.
//
// # At rest
//
// The home is one SQLite database. MLS state, keys, tokens, texts, history, the
// names of accounts and everything in the outbox are sealed with XChaCha20-Poly1305,
// bound to the table, row and column they stand in. Conversation and message ids,
// counters and ciphertexts are not: the server has them too. Key packages are erased
// when used, and deleted content is overwritten. One client may have a home open: it
// holds a lock on a file in it, and another one gets ErrInUse.
//
// A home must not be copied back from a backup and used: its ratchets would be
// those of the past, and messages would be encrypted twice with one key.
package client

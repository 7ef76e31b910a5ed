// Package client is the Go SDK of Waxwing: end-to-end encrypted conversations (MLS, RFC 9420)
// for one device of an account.
//
// # Use
//
// An account is a key; there is no registration. A client keeps its keys, conversations and
// history in a home directory, sealed with a storage key:
//
//	account, err := client.AccountFromSeed(seed, "ann")
//	if err != nil {
//		return err
//	}
//	c, err := client.Open(ctx, client.Options{
//		Dir: "/home/ann/.waxwing", StorageKey: key, Server: "https://chat.example", Account: account,
//	})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	conversation, err := c.StartDM(ctx, bob)
//	if err != nil {
//		return err
//	}
//	if _, err := c.Send(ctx, conversation, []byte("hello")); err != nil {
//		return err
//	}
//	for {
//		e, err := c.Next(ctx)
//		if err != nil {
//			return err
//		}
//		if e.Type == client.EventMessage {
//			fmt.Println(e.From.Account, string(e.Text))
//		}
//		if err := c.Ack(ctx, e.ID); err != nil {
//			return err
//		}
//	}
//
// A bot answers with Reply, which sends and acknowledges in one step: killed at any point, it
// answers each message once.
//
//	if e.Type == client.EventMessage && e.From.Account != c.DID() {
//		_, err = c.Reply(ctx, e, []byte("you said: "+string(e.Text)))
//	} else {
//		err = c.Ack(ctx, e.ID)
//	}
//
// A program that has its own records of what to send passes an ID from there to Send
// (WithMessageID): it may call Send again with the same ID, and the message is sent once.
//
// Open, StartDM, CreateRoom, Invite and Send need no network: they record the request in the
// home, and the client carries it out as soon as possible, across lost connections, crashes and
// restarts. Events report the results. State returns the state of the connection, and why it is
// not up: a Reason for programs and a sentence for people.
//
// # Rooms
//
// The account that creates a room owns it. The owner and the admins manage its members (Invite,
// Remove), and the owner appoints the admins (SetAdmin, Conversation.Roles, EventRoles). The
// server assigns the roles; the client of an owner tells the members of a change, encrypted,
// and they ask the server. Refresh gives this device fresh keys and Leave leaves with all devices of the
// account. An event reports the completion: EventJoined, EventMembers, EventRemoved, or
// EventProblem if the server refuses.
//
// Each change of the group is a commit. Of concurrent commits one takes effect; the clients of
// the others repeat their changes on top of it, after a random delay.
//
// Removing an account takes two steps: the server stops delivering to it, and the group gets
// keys that it does not have. Remove does both at once. If an account is off the server's list
// and still in the group, because it left or another client removed it from the list only, its
// removal is pending (Conversation.Removing): an admin's client commits it at once, any other
// before it sends its next message or after a delay. No message is encrypted in between.
//
// A room may have a title (SetTitle, Conversation.Title, EventTitle). It is an encrypted message,
// which members accept from the owner and the admins; a device that adds others sends it again.
//
// An EventMembers names the member that made the commit, and distinguishes accounts that were
// removed from those that left, and both from further devices. History has it between the
// messages. Leave tells the other members so, encrypted, before the account leaves.
//
// An account may add this one to a room and never create its group. The client requests the
// groups of such conversations at growing intervals, a bounded number at a time, and gives up
// after a day (Conversation.GaveUp). An invitation is accepted even then, and Retry requests
// again.
//
// # Several devices
//
// An account may have any number of devices, each with a home of its own; they share the key of
// the account. A new device joins by an external commit every conversation with a group that
// contains a device of the account, and reads from there on. It can also be invited at once.
// OwnDevices lists the devices, AddDevice adds one from another, and RemoveDevice removes a
// lost one from all groups.
//
// A device rejoins in the same way after the loss of its home, or when it lacks commits to
// follow the group (EventRejoined).
//
// # Guarantees
//
// A message for which Send has returned an ID is delivered once, after those sent before it in
// the same conversation, or reported as EventRefused. It is delivered when it returns as an
// EventMessage with Own set: the server's log then has it at a position that is the same for
// all members.
//
// Every message of a conversation reaches the application exactly once, in the order of the
// log. MLS state, plaintext and the position in the log change in one local transaction and are
// acknowledged to the server after that. The application reads events with a position of its
// own (Next and Ack, or Events for applications that store it with their own data). A missing
// message is requested again and none is skipped. One that cannot be decrypted is reported and
// does not block later ones.
//
// # Names
//
// An account may give itself a name (Contacts.SetName). The client sends it, encrypted, to its
// conversations: at once, and again when accounts or devices have joined, by itself in
// conversations of at most 16 accounts and else before its next message. It is a claim: nothing
// proves that it is true or different from others. People may give an account an alias
// (Contacts.SetAlias), which is shown in place of its name and is known to their own devices only:
// these share it in a conversation of their own, which is not listed. EventName reports a change.
// Names of others are free of control characters and characters without a width, and cut to 64
// characters; Contact.Resembles tells that a name looks like that of another account.
//
// # Transports
//
// The client uses one WebSocket. If none can be opened, or two in a row end before the session
// begins, it falls back to server-sent events and HTTP calls with the same guarantees, and
// tries a WebSocket again from time to time (Options.SocketProbe). State.Transport is the
// transport in use.
//
// WithXRPC selects the server's AT Protocol interface instead, with an HTTP call for each
// message and a WebSocket that announces new ones. Clients of both interfaces share
// conversations. It lacks some features: LeaveTo is ErrNotOverXRPC, since the server chooses
// the successor of an owner; there is no EventFork, since epoch authenticators are not
// reported; a device that is removed while offline cannot read the messages that it has missed;
// after an EventRewound the server accepts only messages of the current epoch again; and one
// commit adds or removes at most 50 accounts. The server has separate key packages for a device
// at each interface and delivers an invitation to the one whose package was used, so a home
// should not change its interface.
//
// # Trust
//
// The server orders and stores messages and cannot read them. It could still present keys of
// its own in the name of an account, since an MLS credential is only text. Therefore each
// device of this package carries a certificate by the key of its account, which for a did:key
// is the account's name itself. A leaf with an invalid certificate is always rejected. One
// without a certificate is rejected for accounts with a did:key in key packages, invitations
// and external commits (ErrKeyPackage, ErrUncertified), unless Options.AllowUnverified is set.
// Devices of accounts with another kind of DID are unverified: they are remembered when they
// are first seen, and have a fingerprint to compare (Member, Devices). An unknown key of a
// known account is an EventKeyChange. An external commit of such an account is accepted only
// with the previous key of the device, and is an EventJoinRefused otherwise.
//
// People verify that an account belongs to the expected person: they compare a SafetyNumber and
// call Verify, which sets Member.Trusted for its devices.
//
// Accounts that are missing in the server's list of members are removed from the group; the
// list adds none. A GroupInfo is accepted if it is signed by a device that was in the group
// when this one last was; after a call of Rejoin, or with Options.AllowUnverified, by other
// devices of these accounts too. A device without earlier knowledge of a group only learns its
// members; applications should display them. An account without a device in a group cannot join
// it without an invitation.
//
// All members that agree on a group have the same EpochAuthenticator and report it to the
// server; a difference is an EventFork. A malicious server could hide it, so people may compare
// the authenticators themselves.
//
// A server that was restored from a backup has lost messages: the client detects this
// (EventRewound), and each client sends its own messages again, so that the log is restored.
// When it subscribes it compares the end of the log with what it has received: from its own
// last message on if that is among the last 16, and otherwise the last message. It does not
// detect that messages of others were replaced by as many others before a message that is
// unchanged: it keeps the former ones in the history, and lacks the new ones.
//
// Tokens are made for the server at the configured address: over https a server with another
// DID gets none, nor does any that has another DID than this home has met at the address before
// (Options.ServerDID).
//
// # Storage
//
// The home is one SQLite database. MLS state, keys, tokens, texts, history, the names of
// accounts and the outbox are sealed with XChaCha20-Poly1305, bound to their table, row and
// column. IDs of conversations, the server's IDs of messages, counters and ciphertexts are not
// sealed: the server has them too. Key packages are erased when used, and deleted content is
// overwritten. Only one client can have a home open (ErrInUse).
//
// A home must not be restored from a backup and used: its ratchets would return to a past
// state, and messages would be encrypted twice with one key.
//
// # Tests
//
// Package clienttest starts a server in the process, for tests of programs that use this package.
package client

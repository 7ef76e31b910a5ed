package core

import (
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Sizes, counts and ages. Every list of this package has its bound here.
const (
	envCharactersMax     = 262144
	bodyBytesMax         = envCharactersMax
	membersMax           = 1024           // including the owner
	accountsListed       = 4 * membersMax // in one list of a request
	listMembersInline    = 20
	listMembersMax       = 3072 // named in one page of a list: with the longest names, in JSON, less than 16 MiB
	welcomeBytesMax      = 4 << 20
	groupInfoBytesMax    = 4 << 20
	commitBytesMax       = 2 << 20 // of 1000 members with post-quantum keys
	recipientsMax        = 4096
	epochWindow          = 5  // how far behind the current epoch a message may be
	requestNameBytes     = 64 // added for each name in a list
	welcomeLifetime      = 90 * 24 * time.Hour
	suiteBytesMax        = 128
	tagBytesMax          = 64 // of a confirmation tag: the longest hash
	sweepInterval        = time.Hour
	additionsUnderWayMax = 64      // records that one registration waits for at a time
	memberBytes          = 1 << 10 // counted for an account that enters a conversation, and
	memberNames          = 10      // how often its name is counted: see enteringBytes
)

// Messages, reactions and pages of history, for the AT Protocol door.
const (
	historyCountMax  = 100      // messages in one page
	historyFreeBytes = 64 << 10 // of bodies in a page for which Room is not called
	historyGapsMax   = 1000     // missing seqs listed in one answer
	reactionBytesMax = 16
	reactionsMax     = 32      // of one account to one message
	reactionBytes    = 1 << 10 // counted for a reaction
	placesMax        = 50      // messages asked for in one call
)

// MessageBytesDefault bounds a message sent as bytes if Options do not: as base64 it passes
// through proxies that cut answers at 7 MiB or more.
const MessageBytesDefault = 5 << 20

// Changes of groups, and the Welcomes that wait for an account in a conversation.
const (
	changeAccountsMax  = 50 // in one commit
	welcomesWaitingMax = 256
	welcomeRefsMax     = 200                                    // named in one request
	deviceNameBytesMax = ds.AccountBytesMax + 1 + ds.IDBytesMax // a DID, '#' and an id
)

// RuleMembersMax is the maximum number of initial members that the AT Protocol's clients
// allow, and the largest maximum that the rules of a conversation can set.
const RuleMembersMax = 1000

// Conversations that are created with their group, and their views for members.
const (
	ruleMembersMin        = 2
	rejoinDaysMax         = 36500
	titleBytesMax         = 128
	descriptionBytesMax   = 512
	blobBytesMax          = 5 << 20 // a Welcome or a GroupInfo
	convosParticipantsMax = 20_000  // in one list, before it ends early
)

// GroupInfoAnswerBytes is the memory for the answer with the largest GroupInfo.
const GroupInfoAnswerBytes = 2 * blobBytesMax

// ConversationsMax is the maximum number of conversations on a page of a list.
const ConversationsMax = 1000

// Streams without a list of conversations.
const (
	streamConversationsMin = 64 // a stream without a list may always follow so many
	streamShare            = 16 // conversations of a stream that count as one subscription: they begin together
	// candidatesPerPlace is the number of conversations considered for each of the most
	// recently active that are wanted: the last joined one, and the others among the first
	// joined, since strangers cannot displace those. Those in between are ignored.
	candidatesPerPlace = 4
)

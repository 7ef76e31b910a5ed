package core

import (
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// Sizes, counts and ages. Every queue, batch and page of this package has its
// bound here.
const (
	envCharactersMax     = 262144 // gateway v1, 14
	bodyBytesMax         = envCharactersMax
	membersMax           = 1024           // including the owner
	accountsListed       = 4 * membersMax // in one list of a request
	listMembersInline    = 20             // gateway v1, 9
	listMembersMax       = 3072           // named in one page of a list: with the longest names, in JSON, less than 16 MiB
	welcomeBytesMax      = 4 << 20
	groupInfoBytesMax    = 4 << 20
	commitBytesMax       = 2 << 20 // of 1000 members with post-quantum keys
	recipientsMax        = 4096
	epochWindow          = 5 // how far behind the current epoch a message may be
	pageRecords          = 256
	pageBytes            = 1 << 20
	batchRequestsMax     = 256
	batchBytesMax        = 8 << 20
	queueRequestsMax     = 8192
	queueBytesMax        = 64 << 20  // of a flusher: all that unanswered requests keep alive
	requestBytes         = 1 << 10   // added for each request
	requestNameBytes     = 64        // added for each name in a list
	everyoneBytes        = 256 << 10 // added in a batch for a request that loads all members
	welcomeLifetime      = 90 * 24 * time.Hour
	requestTimeout       = 10 * time.Second // a request is answered by then, whatever the store does
	batchTimeout         = 5 * time.Second  // of that, for its batch
	readingsMax          = 256              // beginnings of follows in one query
	positionsMax         = 256              // rows of streams in one transaction
	cursorsListMax       = 1200             // in session.ready: with the longest names, in JSON, less than 1 MiB
	cursorInterval       = time.Second
	cursorShards         = 64
	cursorShardMax       = 1 << 10  // cursors that are not written yet: at most 100 MiB of names in all
	cursorJobsMax        = 8192     // devices with callers that wait for the write of their cursors
	sharedBytesMax       = 32 << 20 // of the requests that wait for one kind of shared batch
	sharedJobBytes       = 512      // added for each request besides its names
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

// Bounds of pages and answers while they are sent.
const (
	turnsBytes   = 96 << 20 // of all readers together, beyond pageFree for each
	turnPatience = time.Second
	turnTimeout  = 10 * time.Second      // of an answer that waits for its turn
	pageWork     = 10 * time.Millisecond // for which a reader may keep others from reading and encoding
	noPatience   = time.Hour             // turns end by themselves: none is cut short
	// pageFree bounds the bodies of a page that needs no turn; the one that exceeds it may
	// have as much again.
	pageFree        = 16 << 10
	pageFreeRecords = 64
	// turnFactor is the number of copies of a page in memory: its records, and its encodings.
	turnFactor = 4
	// GroupInfoAnswerBytes is the memory for the answer with the largest GroupInfo.
	GroupInfoAnswerBytes = 2 * blobBytesMax
)

// ConversationsMax is the maximum number of conversations on a page of a list.
const ConversationsMax = 1000

// Streams, and their stored positions.
const (
	// StreamConversationsMax bounds the conversations that one stream follows.
	StreamConversationsMax = 4096
	streamConversationsMin = 64      // a stream without a list may always follow so many
	streamShare            = 16      // conversations of a stream that count as one subscription: they begin together
	beginTogether          = 256     // conversations of a stream that begins without waiting for its turn
	followsMax             = 1 << 16 // logs that the connections of one account read at a time, on one node
	// candidatesPerPlace is the number of conversations considered for each of the most
	// recently active that are wanted: the last joined one, and the others among the first
	// joined, since strangers cannot displace those. Those in between are ignored.
	candidatesPerPlace = 4

	streamLifetime       = 7 * 24 * time.Hour // how long a stream can be resumed after its last use
	streamRenewal        = 10 * time.Minute   // how often the use of an open stream is noted
	streamInterval       = time.Second        // the minimum between two rows of a stream
	streamBytesPerSecond = 4 << 10            // of its rows, if long ones follow each other
	streamSaveTimeout    = 5 * time.Second
	streamPatienceMax    = 10 * time.Second // between attempts, while rows cannot be written
	streamMovesMax       = 64               // in a row that builds upon another than the first
	streamRowsKept       = 192              // the last of each stream, and of every streamCheckEvery-th
	streamCheckEvery     = 64               // the last streamChecksKept
	streamChecksKept     = 16
	streamsStoredMax     = 2048     // of one account
	streamsBytesMax      = 32 << 20 // of one account, the bound of the size of their rows
	uncheckedAccountsMax = 4096     // with streams that are counted until their bounds are checked
	sweepStreamsMax      = 256      // in one transaction
)

// The timing and the memory of a flusher.
const (
	listenRequestsMin = 16 // the smallest batch after which listen yields
	listenYields      = 8
	holdDelay         = 5 * time.Millisecond // times the number of tries
	holdTries         = 5                    // before a request waits for its locks alone
	holdAloneDelay    = 250 * time.Millisecond
	holdAloneTurn     = 100 * time.Millisecond // before the queue is served again; the last one may take longer
	// The bounds of what a flusher remembers, and how many batches in a row must have found a
	// conversation as this node left it before the next is decided without the lock.
	knownBytesMax          = 64 << 20
	knownConversationBytes = 1 << 10 // counted for a conversation besides its names, and
	knownAccountBytes      = 128     // an account, with its share of the map, and
	knownStayBytes         = 64      // each of its stays
	knownStays             = 64      // of one account
	knownTrust             = 3
)

// The bounds of the tail cache. Bytes count bodies, their encoded frames and a fixed
// cost for each record.
const (
	tailRecords     = 512       // per log
	tailBytes       = 1 << 20   // per log
	tailTotalBytes  = 128 << 20 // of all logs
	tailRecordBytes = 768
	tailShards      = 64
)

// How long a follower waits before it queries an unavailable store again.
const (
	followRetryMin = 50 * time.Millisecond
	followRetryMax = 2 * time.Second
)

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
	queueBytesMax        = 64 << 20  // of a flusher, all that requests keep alive which are not answered
	requestBytes         = 1 << 10   // what a request counts as besides
	requestNameBytes     = 64        // what a name in a list counts as besides
	everyoneBytes        = 256 << 10 // what counts in a batch for a request that has all members loaded
	welcomeLifetime      = 90 * 24 * time.Hour
	requestTimeout       = 10 * time.Second // a request is answered by then, whatever the store does
	batchTimeout         = 5 * time.Second  // of that, for the batch that it comes into
	readingsMax          = 256              // beginnings of follows in one query
	positionsMax         = 256              // rows of streams in one transaction
	cursorsListMax       = 1200             // in session.ready: with the longest names, in JSON, less than 1 MiB
	cursorInterval       = time.Second
	cursorShards         = 64
	cursorShardMax       = 1 << 10  // cursors that are not written yet: at most 100 MiB of names in all
	cursorJobsMax        = 8192     // devices whose cursors somebody waits to see written
	sharedBytesMax       = 32 << 20 // of what waits for one kind of shared batch
	sharedJobBytes       = 512      // what a request counts as besides its names
	suiteBytesMax        = 128
	tagBytesMax          = 64 // of a confirmation tag: the longest hash
	sweepInterval        = time.Hour
	additionsUnderWayMax = 64      // records that one registration waits for at a time
	memberBytes          = 1 << 10 // what an account that enters a conversation counts as, and
	memberNames          = 10      // how often its name does: see enteringBytes
)

// Messages, reactions and pages of history, which the AT Protocol door brought.
const (
	historyCountMax  = 100      // messages in one page
	historyFreeBytes = 64 << 10 // of bodies in a page that needs no room of its own
	historyGapsMax   = 1000     // seqs that are gone, named in one answer
	reactionBytesMax = 16
	reactionsMax     = 32      // of one account to one message
	reactionBytes    = 1 << 10 // what a reaction counts as
	placesMax        = 50      // messages asked for in one call
)

// MessageBytesDefault bounds a message that came as bytes where Options do not say
// otherwise: as base64 one fits through whatever cuts answers at 7 MiB or more.
const MessageBytesDefault = 5 << 20

// Changes of groups, and the Welcomes that an account may wait for in a conversation.
const (
	changeAccountsMax  = 50 // in one commit
	welcomesWaitingMax = 256
	welcomeRefsMax     = 200                                    // named in one request
	deviceNameBytesMax = ds.AccountBytesMax + 1 + ds.IDBytesMax // a DID, '#' and an id
)

// RuleMembersMax is how many accounts the AT Protocol's clients let a conversation begin
// with, and the most that its rules can say.
const RuleMembersMax = 1000

// Conversations that come with their group, and what members see of them.
const (
	ruleMembersMin        = 2
	rejoinDaysMax         = 36500
	titleBytesMax         = 128
	descriptionBytesMax   = 512
	blobBytesMax          = 5 << 20 // a Welcome or a GroupInfo
	convosParticipantsMax = 20_000  // in one list, before it ends early
)

// What pages and answers may hold while their readers take them in.
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
	// turnFactor is how often a page is in memory: its records, and as it is encoded.
	turnFactor = 4
	// GroupInfoAnswerBytes is what the largest GroupInfo takes while it is answered.
	GroupInfoAnswerBytes = 2 * blobBytesMax
)

// ConversationsMax is how many conversations a page of a list has.
const ConversationsMax = 1000

// Streams, and what is stored of where they stand.
const (
	// StreamConversationsMax bounds what one stream follows.
	StreamConversationsMax = 4096
	streamConversationsMin = 64      // so many a stream without a list may always follow
	streamShare            = 16      // conversations of a stream that count as one subscription: they are begun together
	beginTogether          = 256     // conversations of a stream that begins without waiting for its turn
	followsMax             = 1 << 16 // logs that the connections of one account read at a time, on one node
	// So many conversations are looked at for each of the most recently active that are
	// wanted: the one that was joined last and, because strangers cannot get those out, the
	// others among those that were joined first. Those between are passed over.
	candidatesPerPlace = 4

	streamLifetime       = 7 * 24 * time.Hour // how long a stream can be resumed after its last use
	streamRenewal        = 10 * time.Minute   // how often the use of an open stream is noted
	streamInterval       = time.Second        // the least between two rows of a stream
	streamBytesPerSecond = 4 << 10            // of its rows, where long ones come one after the other
	streamSaveTimeout    = 5 * time.Second
	streamPatienceMax    = 10 * time.Second // between tries, while rows cannot be written
	streamMovesMax       = 64               // in a row that builds upon another than the first
	streamRowsKept       = 192              // the last of each stream, and of every streamCheckEvery-th
	streamCheckEvery     = 64               // the last streamChecksKept
	streamChecksKept     = 16
	streamsStoredMax     = 2048     // of one account
	streamsBytesMax      = 32 << 20 // of one account, as much as their rows may come to
	uncheckedAccountsMax = 4096     // whose streams are counted until their bounds are checked
	sweepStreamsMax      = 256      // in one transaction
)

// How a flusher goes about its batches.
const (
	listenRequestsMin = 16 // a batch of so many is worth listening after
	listenYields      = 8
	holdDelay         = 5 * time.Millisecond // times the number of tries
	holdTries         = 5                    // before a request waits for its locks alone
	holdAloneDelay    = 250 * time.Millisecond
	holdAloneTurn     = 100 * time.Millisecond // before the queue is served again; the last one may take longer
	// What a flusher remembers, and how many batches in a row must have found a
	// conversation as this node left it before the next is decided without the lock.
	knownBytesMax          = 64 << 20
	knownConversationBytes = 1 << 10 // what a conversation counts as besides its names, and
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

// How long a follower waits before it asks a store again that did not answer.
const (
	followRetryMin = 50 * time.Millisecond
	followRetryMax = 2 * time.Second
)

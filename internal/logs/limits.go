package logs

import "time"

// Sizes, counts and ages. Every queue, batch and page of this package has its bound here.
const (
	pageRecords      = 256
	pageBytes        = 1 << 20
	batchRequestsMax = 256
	batchBytesMax    = 8 << 20
	queueRequestsMax = 8192
	queueBytesMax    = 64 << 20         // of a flusher: all that unanswered requests keep alive
	requestBytes     = 1 << 10          // added for each request
	everyoneBytes    = 256 << 10        // added in a batch for a request that loads all members
	requestTimeout   = 10 * time.Second // a request is answered by then, whatever the store does
	batchTimeout     = 5 * time.Second  // of that, for its batch
	readingsMax      = 256              // beginnings of follows in one query
	positionsMax     = 256              // rows of streams in one transaction
	cursorsListMax   = 1200             // in session.ready: with the longest names, in JSON, less than 1 MiB
	cursorInterval   = time.Second
	cursorShards     = 64
	cursorShardMax   = 1 << 10  // cursors that are not written yet: at most 100 MiB of names in all
	flushesMax       = 1024     // devices whose cursors are written in one transaction
	sharedBytesMax   = 32 << 20 // of the requests that wait for one kind of shared batch
	sharedJobBytes   = 512      // added for each request besides its names
)

// Bounds of pages and answers while they are sent.
const (
	turnsBytes   = 96 << 20 // of all readers together, beyond PageFree for each
	turnPatience = time.Second
	turnTimeout  = 10 * time.Second      // of an answer that waits for its turn
	pageWork     = 10 * time.Millisecond // for which a reader may keep others from reading and encoding
	noPatience   = time.Hour             // turns end by themselves: none is cut short
	// PageFree bounds the bodies of a page that needs no turn; the one that exceeds it may
	// have as much again.
	PageFree        = 16 << 10
	pageFreeRecords = 64
	// TurnFactor is the number of copies of a page in memory: its records, and its encodings.
	TurnFactor = 4
)

// Streams, and their stored positions.
const (
	// StreamConversationsMax bounds the conversations that one stream follows.
	StreamConversationsMax = 4096
	// QueryFree bounds the conversations of a query that needs no turn.
	QueryFree  = 256
	followsMax = 1 << 16 // logs that the connections of one account read at a time, on one node

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
	countedAccountsMax   = 4096     // with streams that are counted until their bounds are checked
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

package identity

import (
	"container/list"
	"errors"
	"time"
)

// Bounds of the documents in memory, in entries and in total retained bytes. Documents of
// accounts that were here before have their own, which strangers cannot fill.
const (
	documentsMax      = 2_500
	documentsBytesMax = 8 << 20
	provenMax         = 7_500
	provenBytesMax    = 24 << 20
)

// documents holds the known documents of DIDs. Its methods need the lock of the resolver.
type documents struct {
	entries           map[string]*list.Element // of *cached
	strangers, proven shelf
}

// shelf is a bounded list of entries, the latest used in front.
type shelf struct {
	recent               *list.List // of *cached
	bytes                int
	entriesMax, bytesMax int
}

// cached holds the last good document of a DID, or the reason why there is none.
type cached struct {
	did       string
	document  *Document
	fetched   time.Time // fetch time of document
	err       *ResolveError
	expires   time.Time // no fetch before that time
	failures  int       // consecutive fetches without an answer of the host
	refreshed time.Time // last fetch because of a bad signature
	isProven  bool      // the document of an account that was here before
	saved     saved
}

// saved describes the stored copy of a DID's document.
type saved struct {
	hash     [32]byte  // of the text; zero for none
	at       time.Time // when that was fetched
	document *Document // the document that was compared last
}

func newDocuments() documents {
	return documents{
		entries:   map[string]*list.Element{},
		strangers: shelf{list.New(), 0, documentsMax, documentsBytesMax},
		proven:    shelf{list.New(), 0, provenMax, provenBytesMax},
	}
}

// known is the knowledge about a DID at one moment.
type known struct {
	document *Document
	err      error
	isFresh  bool // document or err can be used without a fetch
	isStale  bool // document is older than documentLife
	isProven bool
}

func (k known) found() found { return found{document: k.document, isStale: k.isStale} }

func (d *documents) get(did string) *cached {
	if element := d.entries[did]; element != nil {
		return element.Value.(*cached)
	}
	return nil
}

// known returns the current knowledge about a DID.
func (d *documents) known(did string, now time.Time) known {
	entry := d.get(did)
	if entry == nil {
		return known{}
	}
	d.shelfOf(entry).recent.MoveToFront(d.entries[did])
	k := known{isFresh: now.Before(entry.expires), isProven: entry.isProven}
	if age := now.Sub(entry.fetched); entry.document != nil && age < documentStaleMax {
		k.document, k.isStale = entry.document, age >= documentLife
		return k
	}
	if entry.err == nil { // the document is too old for any use
		k.isFresh = false
		return k
	}
	failure := *entry.err
	failure.RetryAfter = max(0, entry.expires.Sub(now))
	k.err = &failure
	return k
}

// remember stores the outcome of a fetch, and returns its error with the time to wait. A host
// that could not be reached leaves the old document; every other answer replaces it.
func (d *documents) remember(did string, document *Document, err error, now time.Time) error {
	entry := &cached{did: did, document: document, fetched: now, expires: now.Add(documentLife)}
	old := d.get(did)
	if old != nil {
		entry.refreshed, entry.isProven, entry.saved = old.refreshed, old.isProven, old.saved
	}
	var failure *ResolveError
	if errors.As(err, &failure) {
		if errors.Is(failure, errBusy) || errors.Is(failure, errClosed) || errors.Is(failure, errHostLookups) {
			return err // the answer says nothing about this DID
		}
		entry.err, entry.expires = failure, now.Add(documentAbsentLife)
		if failure.Kind == ResolveFailed {
			life := documentFailedLife
			if old != nil {
				entry.document, entry.fetched, entry.failures = old.document, old.fetched, old.failures
				life = min(life<<min(old.failures, 8), documentFailedLifeMax)
			}
			entry.failures++
			failure.RetryAfter = life
			entry.expires = now.Add(life)
		}
		if failure.Kind == ResolveFailed && old != nil && old.document != nil && old.expires.After(entry.expires) {
			entry.expires = old.expires // the failure was that of a forced refresh
		}
	}
	d.put(entry)
	return err
}

// prove moves a document to those of accounts that were here before.
func (d *documents) prove(did string) {
	entry := d.get(did)
	if entry == nil || entry.isProven {
		return
	}
	moved := *entry
	moved.isProven = true
	d.put(&moved)
}

// put stores an entry in place of the previous one for its DID.
func (d *documents) put(entry *cached) {
	if old := d.entries[entry.did]; old != nil {
		d.forget(old)
	}
	s := d.shelfOf(entry)
	d.entries[entry.did] = s.recent.PushFront(entry)
	s.bytes += entry.bytes()
	for s.recent.Len() > s.entriesMax || s.bytes > s.bytesMax {
		d.forget(s.recent.Back())
	}
}

func (d *documents) forget(element *list.Element) {
	entry := element.Value.(*cached)
	s := d.shelfOf(entry)
	s.recent.Remove(element)
	s.bytes -= entry.bytes()
	delete(d.entries, entry.did)
}

func (d *documents) shelfOf(entry *cached) *shelf {
	if entry.isProven {
		return &d.proven
	}
	return &d.strangers
}

// bytes returns about how much memory an entry takes.
func (c *cached) bytes() int {
	n := 512 + len(c.did)
	if c.document != nil {
		n += c.document.bytes()
	}
	return n
}

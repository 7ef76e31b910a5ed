package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/netguard"
	"waxwing.im/waxwing/internal/store"
)

// PLCDirectory is the default directory of did:plc documents.
const PLCDirectory = "https://plc.directory"

// Bounds of the resolver.
const (
	documentLife          = 5 * time.Minute
	documentStaleMax      = 24 * time.Hour   // lifetime of a good document while its host cannot be reached
	documentAbsentLife    = 30 * time.Second // of an absent or invalid document
	documentFailedLife    = 5 * time.Second  // until an unreachable host is asked again; doubled by each failure
	documentFailedLifeMax = time.Minute
	refreshEvery          = 30 * time.Second // per DID, for a signature that does not verify
	refreshWait           = time.Second      // for the refresh of a document that is too old, before it is used nevertheless
	firstByteTimeout      = 3 * time.Second  // until a host begins to answer
	resolveTimeout        = 8 * time.Second  // of a lookup: waiting for a place, and the answer
)

// ResolverOptions configures a Resolver.
type ResolverOptions struct {
	Guard *netguard.Guard
	// Directory is the address of the directory of did:plc; "" means PLCDirectory.
	Directory string
	Now       func() time.Time // nil: the clock of Store, or the system's
	// Store keeps the documents of accounts that were here before, so that a process that
	// starts while their directory is away can verify them; nil keeps none.
	Store *store.DB
	// Limit counts lookups under limits.HostLookups, so that strangers who name a host do not
	// make us flood it; nil does not limit.
	Limit func(name, key string) error
}

// ResolveKind is the reason why a DID did not resolve.
type ResolveKind string

// The kinds.
const (
	ResolveInvalid     ResolveKind = "invalid"     // not a DID, or a document that is about another one
	ResolveUnsupported ResolveKind = "unsupported" // a method other than plc and web
	ResolveNotFound    ResolveKind = "not_found"   // its host reports that there is none
	ResolveFailed      ResolveKind = "failed"      // its host could not be reached; temporary
)

// ResolveError reports that a DID does not resolve. It does not repeat the DID.
type ResolveError struct {
	Kind   ResolveKind
	reason error
	// RetryAfter is the time until the host is asked again, for ResolveFailed.
	RetryAfter time.Duration
}

func (e *ResolveError) Error() string { return fmt.Sprintf("DID document %s: %v", e.Kind, e.reason) }

func (e *ResolveError) Unwrap() error { return e.reason }

// Resolver fetches DID documents and caches them for a while, absent ones too. Concurrent
// callers for one document share one fetch. A document that is older than documentLife is used
// only while its host cannot be reached: it is replaced, or dropped, as soon as the host
// answers. It is safe for concurrent use.
type Resolver struct {
	o      ResolverOptions
	places places

	ctx  context.Context // of fetches, which outlive their first caller
	stop context.CancelFunc
	// saving holds a token while the store is written: one document at a time, as it is then.
	saving chan struct{}

	mu        sync.Mutex // guards what follows
	isClosed  bool
	running   sync.WaitGroup
	saves     map[string]bool // DIDs whose documents are written or wait for that
	documents documents
	flights   map[string]*flight
}

// flight is a running fetch.
type flight struct {
	done     chan struct{} // closed when the fields below are set, and cached
	document *Document
	err      error
}

// asker describes the purpose of a lookup.
type asker struct {
	address string // which causes the lookup; "" is not counted
	isKnown bool   // the account of the DID was here before
	// count counts a lookup that needs a fetch; its error refuses it, and isKnown reports that
	// the DID turned out to be known. nil counts nothing.
	count func(context.Context) (isKnown bool, err error)
}

// NewResolver returns a Resolver. Close ends its fetches.
func NewResolver(o ResolverOptions) (*Resolver, error) {
	if o.Guard == nil {
		return nil, errors.New("identity: a resolver needs a guard")
	}
	switch {
	case o.Now != nil:
	case o.Store != nil:
		o.Now = o.Store.Now
	default:
		o.Now = time.Now
	}
	if o.Directory == "" {
		o.Directory = PLCDirectory
	}
	o.Directory = strings.TrimSuffix(o.Directory, "/")
	if u, err := o.Guard.CheckURL(o.Directory); err != nil || u.RawQuery != "" || u.ForceQuery {
		return nil, errors.New("identity: the directory of did:plc is not an https URL of a public host")
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Resolver{o: o, ctx: ctx, stop: stop, saving: make(chan struct{}, 1), documents: newDocuments(), flights: map[string]*flight{}, saves: map[string]bool{}}, nil
}

// Close ends running fetches and waits for them. Later ones fail.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.isClosed = true
	r.mu.Unlock()
	r.stop()
	r.running.Wait()
}

// Document returns the document of a did:plc or did:web, or a *ResolveError. An error of ctx is
// returned unchanged.
func (r *Resolver) Document(ctx context.Context, did string) (*Document, error) {
	found, err := r.document(ctx, did, asker{})
	return found.document, err
}

// ServiceEndpoint returns the address of a service of a DID, such as "#atproto_pds": a URL of a
// host, with or without a port and without a path, that may be called. ok is false if the
// document names none.
func (r *Resolver) ServiceEndpoint(ctx context.Context, did, fragment string) (endpoint string, ok bool, err error) {
	return r.serviceEndpoint(ctx, did, fragment, asker{})
}

// serviceEndpoint does the work of ServiceEndpoint for an asker.
func (r *Resolver) serviceEndpoint(ctx context.Context, did, fragment string, who asker) (endpoint string, ok bool, err error) {
	d, err := r.document(ctx, did, who)
	if err != nil {
		return "", false, err
	}
	text, ok := d.document.service(fragment)
	if !ok {
		return "", false, nil
	}
	text = strings.TrimSuffix(text, "/")
	u, err := r.o.Guard.CheckURL(text)
	if err != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery {
		return "", false, nil
	}
	return text, true, nil
}

// found is the result of a lookup.
type found struct {
	document *Document
	isNew    bool // fetched for this call
	isStale  bool // older than documentLife: its host could not be reached
}

// locate returns the address of a DID's document, or a *ResolveError.
func (r *Resolver) locate(did string) (location, error) {
	where, err := locate(did, r.o.Directory, r.o.Guard.AllowsLoopbackHTTP())
	switch {
	case errors.Is(err, errDIDUnsupported):
		return location{}, &ResolveError{Kind: ResolveUnsupported, reason: err}
	case err != nil:
		return location{}, &ResolveError{Kind: ResolveInvalid, reason: err}
	}
	return where, nil
}

// document does the work of Document for an asker. A document that is too old is refreshed; the
// call waits for that, but no longer than refreshWait, and not while the host is known to be
// away.
func (r *Resolver) document(ctx context.Context, did string, who asker) (found, error) {
	where, err := r.locate(did)
	if err != nil {
		return found{}, err
	}
	known, f := r.known(did)
	if known.isFresh {
		return known.found(), known.err
	}
	if known.document == nil && f == nil && who.count != nil {
		isKnown, err := who.count(ctx)
		if err != nil {
			return found{}, err
		}
		who.isKnown = who.isKnown || isKnown
	}
	if known.document == nil && f == nil {
		r.load(ctx, did)
	}
	known, f = r.fly(did, where, visit{where.host, who.address, who.isKnown}, false)
	if known.isFresh { // of a fetch that ended meanwhile
		return known.found(), known.err
	}
	if known.document == nil {
		return f.wait(ctx)
	}
	hurried, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	newer, err := f.wait(hurried)
	var unresolved *ResolveError
	switch {
	case err == nil, ctx.Err() != nil:
		return newer, err
	case errors.As(err, &unresolved) && unresolved.Kind != ResolveFailed:
		return found{}, err
	}
	return known.found(), nil
}

// wait waits for the end of a flight.
func (f *flight) wait(ctx context.Context) (found, error) {
	select {
	case <-f.done:
		return found{document: f.document, isNew: f.err == nil}, f.err
	case <-ctx.Done():
		return found{}, ctx.Err()
	}
}

// refresh fetches the document of a DID again because a signature did not verify with seen, at
// most once in refreshEvery. It returns nil if there is nothing newer.
func (r *Resolver) refresh(ctx context.Context, did string, seen *Document, who asker) (*Document, error) {
	where, err := r.locate(did)
	if err != nil {
		return nil, err
	}
	newer, isDue := r.isRefreshDue(did, seen)
	if newer != nil || !isDue {
		return newer, nil
	}
	if who.count != nil {
		isKnown, err := who.count(ctx)
		if err != nil {
			return nil, err
		}
		who.isKnown = who.isKnown || isKnown
	}
	_, f := r.fly(did, where, visit{where.host, who.address, who.isKnown}, true)
	got, err := f.wait(ctx)
	return got.document, err
}

// isRefreshDue reports whether a document should be fetched again for a bad signature, and
// records that it is. newer is one that was fetched after seen.
func (r *Resolver) isRefreshDue(did string, seen *Document) (newer *Document, isDue bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := r.documents.get(did)
	now := r.o.Now()
	switch {
	case entry == nil: // displaced meanwhile; rare
		return nil, false
	case entry.document != seen && entry.document != nil:
		return entry.document, false
	case now.Sub(entry.refreshed) < refreshEvery:
		return nil, false
	}
	entry.refreshed = now
	return nil, true
}

// known returns the cached knowledge about a DID, and the running fetch for it.
func (r *Resolver) known(did string) (known, *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.documents.known(did, r.o.Now()), r.flights[did]
}

// fly fetches a document for all callers that want it now. Unless isForced, a result that was
// cached in the meantime is used: the cache is checked under the lock under which fetches begin
// and end, so that no caller misses both.
func (r *Resolver) fly(did string, where location, v visit, isForced bool) (known, *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.documents.known(did, r.o.Now())
	if known.isFresh && !isForced {
		return known, nil
	}
	if f := r.flights[did]; f != nil {
		return known, f
	}
	f := &flight{done: make(chan struct{})}
	if r.isClosed {
		f.err = &ResolveError{Kind: ResolveFailed, reason: errClosed}
		close(f.done)
		return known, f
	}
	did = strings.Clone(did) // the caller's string may be part of a longer one
	v.isKnown = v.isKnown || known.isProven
	r.flights[did] = f
	r.running.Go(func() {
		d, err := r.fetch(did, where, v)
		r.mu.Lock()
		f.document, f.err = d, r.documents.remember(did, d, err, r.o.Now())
		delete(r.flights, did)
		close(f.done)
		r.mu.Unlock()
		r.save(did)
	})
	return known, f
}

// fetch fetches and parses a document. Its errors are all *ResolveError.
func (r *Resolver) fetch(did string, where location, v visit) (*Document, error) {
	ctx, cancel := context.WithTimeout(r.ctx, resolveTimeout)
	defer cancel()
	response, err := r.get(ctx, where.url, "application/did+ld+json, application/json", documentBytesMax, v)
	if err != nil {
		return nil, err
	}
	switch {
	case response.Status == 200:
	case response.Status == 404 || response.Status == 410:
		return nil, &ResolveError{Kind: ResolveNotFound, reason: fmt.Errorf("status %d", response.Status)}
	default:
		return nil, failed(fmt.Errorf("status %d", response.Status))
	}
	d, err := parseDocument(did, response.Body)
	if err != nil {
		return nil, &ResolveError{Kind: ResolveInvalid, reason: err}
	}
	return d, nil
}

// failed returns the error for a host that could not be reached.
func failed(reason error) *ResolveError {
	return &ResolveError{Kind: ResolveFailed, reason: reason, RetryAfter: documentFailedLife}
}

// get calls a host when there is a place for it. Its errors are all *ResolveError.
func (r *Resolver) get(ctx context.Context, url, accept string, bytesMax int64, v visit) (*netguard.Response, error) {
	leave, err := r.places.enter(ctx, v)
	if err != nil {
		return nil, failed(err)
	}
	defer leave()
	// Accounts that were here before are few at a host, and each is fetched rarely.
	if v.host != "" && !v.isKnown && r.o.Limit != nil {
		if err := r.o.Limit(limits.HostLookups, v.host); err != nil {
			return nil, failed(errHostLookups)
		}
	}
	response, err := r.o.Guard.Get(ctx, url, accept, netguard.Limits{Timeout: resolveTimeout, FirstByte: firstByteTimeout, BodyBytes: bytesMax})
	if err != nil {
		var refused *netguard.Refused
		if errors.As(err, &refused) {
			return nil, &ResolveError{Kind: ResolveInvalid, reason: refused}
		}
		return nil, failed(errors.New("no answer")) // err contains the host
	}
	return response, nil
}

// errHostLookups is the reason for a fetch from a host that has been asked too often.
var errHostLookups = errors.New("too many lookups at one host")

package identity

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"waxwing.im/waxwing/internal/netguard"
)

// PLCDirectory is where documents of did:plc are, unless told otherwise.
const PLCDirectory = "https://plc.directory"

// Bounds of the resolver.
const (
	documentsMax       = 10_000
	documentsBytesMax  = 32 << 20
	documentLife       = 5 * time.Minute
	documentAbsentLife = 30 * time.Second // one that is not there, or not good
	documentFailedLife = 5 * time.Second  // one that could not be fetched
	refreshEvery       = 30 * time.Second // per DID, for a signature that does not verify
	resolveTimeout     = 10 * time.Second
	resolvesMax        = 32 // at once
)

// ResolverOptions configure a Resolver.
type ResolverOptions struct {
	Guard *netguard.Guard
	// Directory is the address of the directory of did:plc; "" means PLCDirectory.
	Directory string
	Now       func() time.Time // nil: the system clock
	// Limit counts lookups under LimitHostLookups; nil does not limit.
	Limit func(name, key string) error
}

// LimitHostLookups is the limit of documents fetched from one host of did:web: that
// strangers name a host must not make us flood it.
const LimitHostLookups = "did_host_lookups"

// ResolveKind says why a DID did not resolve.
type ResolveKind string

// The kinds.
const (
	ResolveInvalid     ResolveKind = "invalid"     // no DID, or a document that is not about it
	ResolveUnsupported ResolveKind = "unsupported" // a method other than plc and web
	ResolveNotFound    ResolveKind = "not_found"   // its host says that there is none
	ResolveFailed      ResolveKind = "failed"      // its host could not be asked; may pass
)

// ResolveError is the answer about a DID that does not resolve. It does not repeat the DID.
type ResolveError struct {
	Kind   ResolveKind
	reason error
}

func (e *ResolveError) Error() string { return fmt.Sprintf("DID document %s: %v", e.Kind, e.reason) }

func (e *ResolveError) Unwrap() error { return e.reason }

// Resolver fetches DID documents and remembers them for a while, absent ones too.
// Callers who want one document at once share one fetch. It is safe for concurrent use.
type Resolver struct {
	o       ResolverOptions
	flights singleflight.Group
	slots   chan struct{} // one for each fetch under way

	ctx  context.Context // of fetches, which outlive those who asked first
	stop context.CancelFunc

	mu       sync.Mutex // guards what follows
	isClosed bool
	running  sync.WaitGroup
	entries  map[string]*list.Element // of *cached, the latest used in front
	recent   *list.List
	bytes    int
}

// cached is what is known of a DID: a document or an error. It is guarded by the
// resolver's mu.
type cached struct {
	did       string
	document  *Document
	err       error
	expires   time.Time
	refreshed time.Time // when it was last fetched for a bad signature
}

// NewResolver makes a Resolver. Close ends its fetches.
func NewResolver(o ResolverOptions) (*Resolver, error) {
	if o.Guard == nil {
		return nil, errors.New("identity: a resolver needs a guard")
	}
	if o.Now == nil {
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
	return &Resolver{o: o, slots: make(chan struct{}, resolvesMax), ctx: ctx, stop: stop, entries: map[string]*list.Element{}, recent: list.New()}, nil
}

// Close ends running fetches and waits for them. Later ones fail.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.isClosed = true
	r.mu.Unlock()
	r.stop()
	r.running.Wait()
}

// Document is the document of a did:plc or did:web, or a *ResolveError. An error of
// ctx is returned as it is.
func (r *Resolver) Document(ctx context.Context, did string) (*Document, error) {
	d, _, err := r.document(ctx, did, nil)
	return d, err
}

// ServiceEndpoint is where a service of a DID is, such as "#atproto_pds": a URL of a
// host, with a port or without and nothing after it, that may be called. Not ok means
// that the document names none.
func (r *Resolver) ServiceEndpoint(ctx context.Context, did, fragment string) (endpoint string, ok bool, err error) {
	d, err := r.Document(ctx, did)
	if err != nil {
		return "", false, err
	}
	text, ok := d.service(fragment)
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

// document is Document that asks beforeFetch first if the document is not at hand,
// and says whether it was fetched for this call.
func (r *Resolver) document(ctx context.Context, did string, beforeFetch func() error) (d *Document, isNew bool, err error) {
	where, err := locate(did, r.o.Directory, r.o.Guard.AllowsLoopbackHTTP())
	switch {
	case errors.Is(err, errDIDUnsupported):
		return nil, false, &ResolveError{ResolveUnsupported, err}
	case err != nil:
		return nil, false, &ResolveError{ResolveInvalid, err}
	}
	if known := r.known(did); known != nil {
		return known.document, false, known.err
	}
	if beforeFetch != nil {
		if err := beforeFetch(); err != nil {
			return nil, false, err
		}
	}
	d, err = r.shared(ctx, did, where, false)
	return d, true, err
}

// refresh fetches the document of a DID again because a signature did not verify with
// seen, at most once in refreshEvery. It returns nil when there is nothing newer.
func (r *Resolver) refresh(ctx context.Context, did string, seen *Document, beforeFetch func() error) (*Document, error) {
	r.mu.Lock()
	element := r.entries[did]
	var entry *cached
	if element != nil {
		entry = element.Value.(*cached)
	}
	now := r.o.Now()
	switch {
	case entry == nil: // pushed out meanwhile; rare enough
		r.mu.Unlock()
		return nil, nil
	case entry.document != seen && entry.document != nil:
		newer := entry.document
		r.mu.Unlock()
		return newer, nil
	case now.Sub(entry.refreshed) < refreshEvery:
		r.mu.Unlock()
		return nil, nil
	}
	entry.refreshed = now
	r.mu.Unlock()
	if beforeFetch != nil {
		if err := beforeFetch(); err != nil {
			return nil, err
		}
	}
	where, err := locate(did, r.o.Directory, r.o.Guard.AllowsLoopbackHTTP())
	if err != nil {
		return nil, &ResolveError{ResolveInvalid, err}
	}
	return r.shared(ctx, did, where, true)
}

// known is a copy of what is remembered and still good.
func (r *Resolver) known(did string) *cached {
	r.mu.Lock()
	defer r.mu.Unlock()
	element := r.entries[did]
	if element == nil {
		return nil
	}
	entry := element.Value.(*cached)
	if !r.o.Now().Before(entry.expires) {
		return nil
	}
	r.recent.MoveToFront(element)
	found := *entry
	return &found
}

// shared fetches a document together with all who want it now.
func (r *Resolver) shared(ctx context.Context, did string, where location, isRefresh bool) (*Document, error) {
	r.mu.Lock()
	if r.isClosed {
		r.mu.Unlock()
		return nil, &ResolveError{ResolveFailed, errClosed}
	}
	r.running.Add(1) // before Close waits, for isClosed is set first
	r.mu.Unlock()
	flight := r.flights.DoChan(did, func() (any, error) {
		d, err := r.fetch(did, where)
		r.remember(did, d, err, isRefresh)
		return d, err
	})
	done := make(chan struct{})
	var result singleflight.Result
	go func() {
		defer r.running.Done()
		result = <-flight
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if result.Err != nil {
		return nil, result.Err
	}
	return result.Val.(*Document), nil
}

// fetch asks for a document. Its errors are all *ResolveError.
func (r *Resolver) fetch(did string, where location) (*Document, error) {
	ctx, cancel := context.WithTimeout(r.ctx, resolveTimeout)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, &ResolveError{ResolveFailed, errors.New("too many lookups at once")}
	}
	if where.host != "" && r.o.Limit != nil {
		if err := r.o.Limit(LimitHostLookups, where.host); err != nil {
			return nil, &ResolveError{ResolveFailed, errors.New("too many lookups at one host")}
		}
	}
	response, err := r.o.Guard.Get(ctx, where.url, "application/did+ld+json, application/json", netguard.Limits{Timeout: resolveTimeout, BodyBytes: documentBytesMax})
	if err != nil {
		var refused *netguard.Refused
		if errors.As(err, &refused) {
			return nil, &ResolveError{ResolveInvalid, refused}
		}
		return nil, &ResolveError{ResolveFailed, errors.New("no answer")} // err names the host
	}
	switch {
	case response.Status == 200:
	case response.Status == 404 || response.Status == 410:
		return nil, &ResolveError{ResolveNotFound, fmt.Errorf("status %d", response.Status)}
	default:
		return nil, &ResolveError{ResolveFailed, fmt.Errorf("status %d", response.Status)}
	}
	d, err := parseDocument(did, response.Body)
	if err != nil {
		return nil, &ResolveError{ResolveInvalid, err}
	}
	return d, nil
}

// remember keeps the outcome of a fetch. A refresh that fails for a reason that may
// pass leaves what there was.
func (r *Resolver) remember(did string, d *Document, err error, isRefresh bool) {
	life := documentLife
	var failure *ResolveError
	if errors.As(err, &failure) {
		life = documentAbsentLife
		if failure.Kind == ResolveFailed {
			if isRefresh {
				return
			}
			life = documentFailedLife
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	entry := &cached{did: did, document: d, err: err, expires: r.o.Now().Add(life)}
	if old := r.entries[did]; old != nil {
		entry.refreshed = old.Value.(*cached).refreshed
		r.forget(old)
	}
	r.entries[did] = r.recent.PushFront(entry)
	r.bytes += entry.bytes()
	for r.recent.Len() > documentsMax || r.bytes > documentsBytesMax {
		r.forget(r.recent.Back())
	}
}

// forget drops an entry; the caller holds mu.
func (r *Resolver) forget(element *list.Element) {
	entry := r.recent.Remove(element).(*cached)
	delete(r.entries, entry.did)
	r.bytes -= entry.bytes()
}

func (c *cached) bytes() int {
	n := 256 + len(c.did)
	if c.document != nil {
		n += c.document.bytes()
	}
	return n
}

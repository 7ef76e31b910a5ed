package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"waxwing.im/waxwing/internal/netguard"
)

// DeliveryService is where an account's messages are delivered.
type DeliveryService struct {
	Endpoint string   // an https URL of a public host
	Suites   []string // that the account says it supports; nil for unsaid
}

// DeliveryServices finds the delivery services of accounts: the one that a DID document
// names itself (#atproto_mls), else the one in the account's record
// blue.catbird.mls.profile at its PDS. It remembers answers. It is safe for concurrent use.
type DeliveryServices struct {
	resolver *Resolver
	flights  singleflight.Group

	mu      sync.Mutex // guards entries
	entries map[string]foundService
}

// foundService is an answer about a DID, until it expires.
type foundService struct {
	service DeliveryService
	err     error
	expires time.Time
}

const (
	servicesMax     = 10_000 // remembered; any of them makes room
	serviceLife     = time.Hour
	serviceSuites   = 32
	profileRecord   = "blue.catbird.mls.profile"
	profileBodyMax  = 64 << 10
	profileLinksMax = 2048 // bytes of an endpoint
)

// NewDeliveryServices asks the resolver, and the hosts that it names by the same guard.
func NewDeliveryServices(r *Resolver) *DeliveryServices {
	return &DeliveryServices{resolver: r, entries: map[string]foundService{}}
}

// Find is the delivery service of a DID, or a *ResolveError: of the kind failed where
// asking again may help, of any other where there is none.
func (d *DeliveryServices) Find(ctx context.Context, did string) (DeliveryService, error) {
	d.mu.Lock()
	known, ok := d.entries[did]
	d.mu.Unlock()
	if ok && d.resolver.o.Now().Before(known.expires) {
		return known.service, known.err
	}
	// Nobody's going away spoils it for those who ask with him.
	found, err, _ := d.flights.Do(did, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*resolveTimeout)
		defer cancel()
		service, err := d.find(ctx, did)
		d.remember(did, service, err)
		return service, err
	})
	return found.(DeliveryService), err
}

func (d *DeliveryServices) remember(did string, service DeliveryService, err error) {
	life := serviceLife
	var failure *ResolveError
	if errors.As(err, &failure) {
		if life = documentAbsentLife; failure.Kind == ResolveFailed {
			life = documentFailedLife
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for other := range d.entries {
		if len(d.entries) < servicesMax {
			break
		}
		delete(d.entries, other)
	}
	d.entries[did] = foundService{service, err, d.resolver.o.Now().Add(life)}
}

func (d *DeliveryServices) find(ctx context.Context, did string) (DeliveryService, error) {
	endpoint, ok, err := d.resolver.ServiceEndpoint(ctx, did, "#atproto_mls")
	if err != nil || ok {
		return DeliveryService{Endpoint: endpoint}, err
	}
	pds, ok, err := d.resolver.ServiceEndpoint(ctx, did, "#atproto_pds")
	if err != nil {
		return DeliveryService{}, err
	}
	if !ok {
		return DeliveryService{}, &ResolveError{ResolveNotFound, errors.New("it names no PDS")}
	}
	return d.profile(ctx, pds, did)
}

// profile reads the delivery service out of an account's own record.
func (d *DeliveryServices) profile(ctx context.Context, pds, did string) (DeliveryService, error) {
	o := d.resolver.o
	select {
	case d.resolver.slots <- struct{}{}:
		defer func() { <-d.resolver.slots }()
	case <-ctx.Done():
		return DeliveryService{}, &ResolveError{ResolveFailed, errors.New("too many lookups at once")}
	}
	if host, err := url.Parse(pds); err == nil && o.Limit != nil {
		if err := o.Limit(LimitHostLookups, strings.ToLower(host.Host)); err != nil {
			return DeliveryService{}, &ResolveError{ResolveFailed, errors.New("too many lookups at one host")}
		}
	}
	query := url.Values{"repo": {did}, "collection": {profileRecord}, "rkey": {"self"}}
	response, err := o.Guard.Get(ctx, pds+"/xrpc/com.atproto.repo.getRecord?"+query.Encode(), "application/json",
		netguard.Limits{Timeout: resolveTimeout, BodyBytes: profileBodyMax})
	switch {
	case err != nil:
		return DeliveryService{}, &ResolveError{ResolveFailed, errors.New("no answer")} // err names the host
	case response.Status == 400 || response.Status == 404: // a PDS says RecordNotFound with either
		return DeliveryService{}, &ResolveError{ResolveNotFound, fmt.Errorf("status %d", response.Status)}
	case response.Status != 200:
		return DeliveryService{}, &ResolveError{ResolveFailed, fmt.Errorf("status %d", response.Status)}
	}
	var record struct {
		Value struct {
			DeliveryService string   `json:"deliveryService"`
			Suites          []string `json:"supportedCipherSuites"`
		} `json:"value"`
	}
	if err := json.Unmarshal(response.Body, &record); err != nil {
		return DeliveryService{}, &ResolveError{ResolveFailed, errors.New("no record of the right form")}
	}
	service := DeliveryService{Endpoint: strings.TrimSuffix(record.Value.DeliveryService, "/"), Suites: record.Value.Suites}
	if len(service.Endpoint) > profileLinksMax || len(service.Suites) > serviceSuites {
		return DeliveryService{}, &ResolveError{ResolveInvalid, errors.New("too long a record")}
	}
	if _, err := o.Guard.CheckURL(service.Endpoint); err != nil {
		return DeliveryService{}, &ResolveError{ResolveInvalid, errors.New("its endpoint is no https URL of a public host")}
	}
	return service, nil
}

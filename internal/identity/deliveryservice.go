package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"waxwing.im/waxwing/internal/ds"
)

// DeliveryService is the service that receives an account's messages.
type DeliveryService struct {
	Endpoint string   // an https URL of a public host
	Suites   []string // that the account claims to support; nil if unstated
}

// DeliveryServices finds the delivery services of accounts: the one that a DID document names
// itself (#atproto_mls), else the one in the account's record blue.catbird.mls.profile at its
// PDS. It caches answers. It is safe for concurrent use.
type DeliveryServices struct {
	resolver *Resolver
	flights  singleflight.Group
	entries  memory[foundService]
}

// foundService is a cached answer for a DID.
type foundService struct {
	service DeliveryService
	err     error
	expires time.Time
}

// pdsService is the fragment that names an account's PDS in its DID document.
const pdsService = "#atproto_pds"

const (
	servicesBytes   = 8 << 20 // of the cache
	serviceLife     = time.Hour
	serviceSuites   = 32
	profileRecord   = "blue.catbird.mls.profile"
	profileBodyMax  = 64 << 10
	profileLinksMax = 2048 // bytes of an endpoint
)

// NewDeliveryServices returns a finder that uses the resolver and, for the hosts that documents
// name, its guard.
func NewDeliveryServices(r *Resolver) *DeliveryServices {
	return &DeliveryServices{resolver: r, entries: memory[foundService]{bytesMax: servicesBytes, size: foundService.bytes}}
}

// bytes returns about how much memory an answer takes.
func (f foundService) bytes() int {
	n := 128 + len(f.service.Endpoint)
	for _, suite := range f.service.Suites {
		n += 16 + len(suite)
	}
	return n
}

// Find returns the delivery service of a DID, or a *ResolveError: of kind ResolveFailed if a
// retry may help, of any other kind if there is none. Few lookups caused by one account run at
// a time.
func (d *DeliveryServices) Find(ctx context.Context, by ds.AccountID, did string) (DeliveryService, error) {
	if known, ok := d.known(did); ok {
		return known.service, known.err
	}
	// The end of one caller's request does not end the lookup for the others that wait for it.
	found, err, _ := d.flights.Do(did, func() (any, error) {
		if known, ok := d.known(did); ok { // of a flight that ended meanwhile
			return known.service, known.err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*resolveTimeout)
		defer cancel()
		service, err := d.find(ctx, by, did)
		d.remember(did, service, err)
		return service, err
	})
	return found.(DeliveryService), err
}

func (d *DeliveryServices) known(did string) (foundService, bool) {
	known, ok := d.entries.get(did)
	return known, ok && d.resolver.o.Now().Before(known.expires)
}

func (d *DeliveryServices) remember(did string, service DeliveryService, err error) {
	life := serviceLife
	var failure *ResolveError
	if errors.As(err, &failure) {
		if life = documentAbsentLife; failure.Kind == ResolveFailed {
			life = documentFailedLife
		}
	}
	d.entries.put(strings.Clone(did), foundService{service, err, d.resolver.o.Now().Add(life)})
}

func (d *DeliveryServices) find(ctx context.Context, by ds.AccountID, did string) (DeliveryService, error) {
	endpoint, ok, err := d.resolver.serviceEndpoint(ctx, did, MLSService, asker{address: string(by)})
	if err != nil || ok {
		return DeliveryService{Endpoint: endpoint}, err
	}
	pds, ok, err := d.resolver.serviceEndpoint(ctx, did, pdsService, asker{address: string(by)})
	if err != nil {
		return DeliveryService{}, err
	}
	if !ok {
		return DeliveryService{}, &ResolveError{Kind: ResolveNotFound, reason: errors.New("it names no PDS")}
	}
	return d.profile(ctx, by, pds, did)
}

// profile reads the delivery service from an account's own record.
func (d *DeliveryServices) profile(ctx context.Context, by ds.AccountID, pds, did string) (DeliveryService, error) {
	o := d.resolver.o
	host, err := url.Parse(pds)
	if err != nil {
		return DeliveryService{}, invalidRecord("its PDS has no URL")
	}
	query := url.Values{"repo": {did}, "collection": {profileRecord}, "rkey": {"self"}}
	response, err := d.resolver.get(ctx, pds+"/xrpc/com.atproto.repo.getRecord?"+query.Encode(), "application/json", profileBodyMax,
		visit{host: strings.ToLower(host.Hostname()), address: string(by)})
	switch {
	case err != nil:
		return DeliveryService{}, err
	case response.Status == 400 || response.Status == 404: // a PDS says RecordNotFound with either
		return DeliveryService{}, &ResolveError{Kind: ResolveNotFound, reason: fmt.Errorf("status %d", response.Status)}
	case response.Status != 200:
		return DeliveryService{}, failed(fmt.Errorf("status %d", response.Status))
	}
	var record struct {
		Value struct {
			DeliveryService string   `json:"deliveryService"`
			Suites          []string `json:"supportedCipherSuites"`
		} `json:"value"`
	}
	if err := json.Unmarshal(response.Body, &record); err != nil {
		return DeliveryService{}, failed(errors.New("no record of the right form"))
	}
	service := DeliveryService{Endpoint: strings.TrimSuffix(record.Value.DeliveryService, "/"), Suites: record.Value.Suites}
	if len(service.Endpoint) > profileLinksMax || len(service.Suites) > serviceSuites {
		return DeliveryService{}, invalidRecord("too long a record")
	}
	if _, err := o.Guard.CheckURL(service.Endpoint); err != nil {
		return DeliveryService{}, invalidRecord("its endpoint is no https URL of a public host")
	}
	return service, nil
}

func invalidRecord(why string) *ResolveError {
	return &ResolveError{Kind: ResolveInvalid, reason: errors.New(why)}
}

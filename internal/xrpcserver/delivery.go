package xrpcserver

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/identity"
)

// deliveries holds the methods about the delivery services of conversations, messages and
// accounts.
type deliveries struct {
	core     *core.Service
	did, url func() string              // of this service
	services *identity.DeliveryServices // nil for none
}

func (d deliveries) register(s *Server) {
	procedure(s, xrpc.RequestFailover, d.requestFailover)
	query(s, xrpc.GetDeliveryStatus, d.getDeliveryStatus)
	query(s, xrpc.ResolveDeliveryService, d.resolveDeliveryService)
}

// requestFailover answers that this service orders the conversation already. Its epoch
// is the group's: nothing but a commit moves that.
func (d deliveries) requestFailover(ctx context.Context, who ds.Caller, in *xrpc.RequestFailoverInput) (*xrpc.RequestFailoverOutput, error) {
	head, err := d.core.Head(ctx, who, ds.ConversationID(in.ConvoID))
	if err != nil {
		return nil, err
	}
	if head.Home != "" {
		return nil, &Error{http.StatusConflict, "SequencerHealthy", "the conversation has another home"}
	}
	return &xrpc.RequestFailoverOutput{NewSequencerDID: d.did(), ConvoID: in.ConvoID, Epoch: head.Epoch, SequencerTerm: head.Term}, nil
}

// getDeliveryStatus reports the delivery of messages to other services, of which there are
// none yet. Messages that do not exist have no status.
func (d deliveries) getDeliveryStatus(ctx context.Context, who ds.Caller, in *xrpc.GetDeliveryStatusParams) (*xrpc.GetDeliveryStatusOutput, error) {
	var ids []ds.MessageID
	for _, id := range in.IDs() {
		ids = append(ids, ds.MessageID(id))
	}
	places, err := d.core.MessagePositions(ctx, who, ds.ConversationID(in.ConvoID), ids)
	if err != nil {
		return nil, err
	}
	out := &xrpc.GetDeliveryStatusOutput{}
	for _, r := range places {
		out.Statuses = append(out.Statuses, xrpc.DeliveryStatus{MessageID: string(r.MessageID), Status: "local_only"})
	}
	return out, nil
}

// resolveDeliveryService finds the delivery service of an account or, by its own DID,
// that of a service.
func (d deliveries) resolveDeliveryService(ctx context.Context, who ds.Caller, in *xrpc.ResolveDeliveryServiceParams) (*xrpc.ResolveDeliveryServiceOutput, error) {
	did, _, _ := strings.Cut(in.DID, "#")
	if !isDID(did) { // the key of the cache
		return nil, badInput("did", "must be a DID")
	}
	if did == d.did() {
		return &xrpc.ResolveDeliveryServiceOutput{DID: did, Endpoint: d.url()}, nil
	}
	if d.services == nil {
		return nil, errEndpoint
	}
	service, err := d.services.Find(ctx, who.Account, did)
	var failure *identity.ResolveError
	switch {
	case err == nil:
		return &xrpc.ResolveDeliveryServiceOutput{DID: did, Endpoint: service.Endpoint, SupportedCipherSuites: service.Suites}, nil
	case errors.As(err, &failure) && failure.Kind != identity.ResolveFailed:
		return nil, errEndpoint
	}
	return nil, &Error{http.StatusBadGateway, "ResolutionFailed", "the account's hosts could not be asked"}
}

var errEndpoint = &Error{http.StatusNotFound, "EndpointNotFound", "the account names no delivery service"}

package xrpc

// RequestFailoverInput is the body of requestFailover.
type RequestFailoverInput struct {
	ConvoID string `json:"convoId"`
}

// RequestFailoverOutput is the answer of requestFailover.
type RequestFailoverOutput struct {
	NewSequencerDID string `json:"newSequencerDid"`
	ConvoID         string `json:"convoId"`
	Epoch           int64  `json:"epoch"`
	SequencerTerm   int64  `json:"sequencerTerm"` // B needs it
}

// DeliveryStatusIDsMax is the number of messages that a getDeliveryStatus may ask for; the rest
// is ignored.
const DeliveryStatusIDsMax = 50

// GetDeliveryStatusParams is the query of getDeliveryStatus.
type GetDeliveryStatusParams struct {
	ConvoID    string `json:"convoId"`
	MessageIDs string `json:"messageIds"` // comma list
}

// IDs returns the messages asked for.
func (in *GetDeliveryStatusParams) IDs() []string {
	return CommaList(in.MessageIDs, DeliveryStatusIDsMax)
}

// GetDeliveryStatusOutput is the answer of getDeliveryStatus.
type GetDeliveryStatusOutput struct {
	Statuses List[DeliveryStatus] `json:"statuses"`
}

// DeliveryStatus lists the other delivery services that have a message.
type DeliveryStatus struct {
	MessageID     string       `json:"messageId"`
	Status        string       `json:"status"` // local_only, pending, partial, delivered_to_all
	AckedBy       List[string] `json:"ackedBy"`
	TotalRemoteDS int64        `json:"totalRemoteDs"`
}

// ResolveDeliveryServiceParams is the query of resolveDeliveryService.
type ResolveDeliveryServiceParams struct {
	DID string `json:"did"`
}

// ResolveDeliveryServiceOutput is the answer of resolveDeliveryService.
type ResolveDeliveryServiceOutput struct {
	DID                   string   `json:"did"`
	Endpoint              string   `json:"endpoint"` // an https URL
	SupportedCipherSuites []string `json:"supportedCipherSuites,omitempty"`
}

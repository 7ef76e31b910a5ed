package xrpc

// PublishKeyPackagesInput is the body of publishKeyPackages.
type PublishKeyPackagesInput struct {
	Action      string         `json:"action"`                // publish, publishBatch, sync, stats, requestReplenish
	KeyPackages []KeyPackageIn `json:"keyPackages,omitempty"` // at most 100
	LocalHashes *[]string      `json:"localHashes,omitempty"` // hex, at most 200; an empty list differs from an absent one
	DeviceID    string         `json:"deviceId,omitempty"`
	TargetDIDs  []string       `json:"targetDids,omitempty"` // B only, at most 100
	Reason      string         `json:"reason,omitempty"`     // B only
	ConvoID     string         `json:"convoId,omitempty"`    // B only
}

// Generation returns the generation shown by the shape of the key packages and by parameters
// that only B sends.
func (in *PublishKeyPackagesInput) Generation() Generation {
	onlyB := len(in.TargetDIDs) > 0 || in.Reason != "" || in.ConvoID != ""
	if onlyB {
		return GenerationB
	}
	return generationOfPackages(in.KeyPackages)
}

// PublishKeyPackagesOutput answers every action with the counts, and one result.
type PublishKeyPackagesOutput struct {
	Stats           KeyPackageCounts `json:"stats"`
	PublishResult   *PublishResult   `json:"publishResult,omitempty"`
	SyncResult      *SyncResult      `json:"syncResult,omitempty"`
	ReplenishResult *ReplenishResult `json:"replenishResult,omitempty"`
}

// KeyPackageCounts counts the caller's key packages.
type KeyPackageCounts struct {
	Published int64 `json:"published"`
	Available int64 `json:"available"`
	Expired   int64 `json:"expired"`
}

// PublishResult counts the outcomes of a list of packages. A package that was already published
// counts as neither.
type PublishResult struct {
	Succeeded int64        `json:"succeeded"`
	Failed    int64        `json:"failed"`
	Errors    []BatchError `json:"errors,omitempty"`
}

// BatchError describes the fault of the package at Index, from 0.
type BatchError struct {
	Index int64  `json:"index"`
	Error string `json:"error"`
}

// SyncResult counts a device's packages after the deletion of those that the device no longer
// has.
type SyncResult struct {
	ServerHashes       List[string] `json:"serverHashes"`
	OrphanedCount      int64        `json:"orphanedCount"`
	OrphanedHashes     []string     `json:"orphanedHashes,omitempty"`
	DeletedCount       int64        `json:"deletedCount"`
	RemainingAvailable *int64       `json:"remainingAvailable,omitempty"`
	DeviceID           string       `json:"deviceId"`
}

// ReplenishResult lists the accounts that were asked to publish more.
type ReplenishResult struct {
	Requested      bool  `json:"requested"`
	TargetCount    int64 `json:"targetCount"`
	DeviceCount    int64 `json:"deviceCount"`
	DeliveredCount int64 `json:"deliveredCount"`
}

// GetKeyPackagesParams is the query of getKeyPackages.
type GetKeyPackagesParams struct {
	DIDs        []string `json:"dids"` // 1 to 100
	CipherSuite string   `json:"cipherSuite,omitempty"`
}

// GetKeyPackagesOutput holds one package for each device of each account.
type GetKeyPackagesOutput struct {
	KeyPackages List[KeyPackageOut] `json:"keyPackages"`
	Missing     []string            `json:"missing,omitempty"` // accounts with none
}

// KeyPackageOut is a key package to add a device with. Its hash is the hex of the RFC 9420
// KeyPackageRef.
type KeyPackageOut struct {
	DID            string `json:"did"`
	KeyPackage     Blob   `json:"keyPackage"`
	KeyPackageHash string `json:"keyPackageHash,omitempty"`
	CipherSuite    string `json:"cipherSuite"`
}

// GetKeyPackageStatusParams is the query of getKeyPackageStatus.
type GetKeyPackageStatusParams struct {
	DID         string   `json:"did,omitempty"` // the caller's own, or refused
	CipherSuite string   `json:"cipherSuite,omitempty"`
	Include     string   `json:"include,omitempty"` // comma list of stats, status, history; absent: stats
	Limit       *Natural `json:"limit,omitempty"`
	Cursor      string   `json:"cursor,omitempty"`
}

// GetKeyPackageStatusOutput holds the requested parts.
type GetKeyPackageStatusOutput struct {
	Stats   *KeyPackageStats    `json:"stats,omitempty"`
	Status  []KeyPackageStatus  `json:"status,omitempty"`
	History []KeyPackageHistory `json:"history,omitempty"`
	Cursor  string              `json:"cursor,omitempty"`
}

// KeyPackageStats has the names of the lexicon and those of the reference server: Available
// equals TotalAvailable and Consumed equals TotalConsumed.
type KeyPackageStats struct {
	TotalAvailable int64               `json:"totalAvailable"`
	TotalConsumed  int64               `json:"totalConsumed"`
	ByDevice       []DeviceKeyPackages `json:"byDevice,omitempty"`
	Available      int64               `json:"available"`
	Total          int64               `json:"total"`
	Consumed       int64               `json:"consumed"`
	Expired        int64               `json:"expired"`
	Threshold      int64               `json:"threshold"`
	NeedsReplenish bool                `json:"needsReplenish"`
}

// DeviceKeyPackages counts the claimable packages of a device.
type DeviceKeyPackages struct {
	DeviceID  string `json:"deviceId"`
	Available int64  `json:"available"`
}

// KeyPackageStatus is one of the caller's packages.
type KeyPackageStatus struct {
	ID          string `json:"id"`
	DeviceID    string `json:"deviceId"`
	CipherSuite string `json:"cipherSuite"`
	CreatedAt   Time   `json:"createdAt"`
	ExpiresAt   Time   `json:"expiresAt,omitzero"`
	Consumed    bool   `json:"consumed"`
}

// KeyPackageHistory is an event in the life of a package.
type KeyPackageHistory struct {
	ID            string `json:"id"`
	Action        string `json:"action"` // published, consumed, expired, deleted
	CreatedAt     Time   `json:"createdAt"`
	ConsumedByDID string `json:"consumedByDid,omitempty"`
}

package xrpcserver

import (
	"context"
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"strings"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/lexicons"
)

// The bounds in the lexicons of key packages.
const (
	publishedPackagesMax = 100
	localHashesMax       = 200
	didsMax              = 100
	replenishReasonMax   = 120
)

// keyPackages publishes, hands out and counts key packages.
type keyPackages struct{ directory *directory.Service }

func (k keyPackages) register(s *Server) {
	procedure(s, xrpc.PublishKeyPackages, k.publishKeyPackages)
	query(s, xrpc.GetKeyPackages, k.getKeyPackages)
	query(s, xrpc.GetKeyPackageStatus, k.getKeyPackageStatus)
}

// uploads decodes the key packages of a request.
func uploads(packages []xrpc.KeyPackageIn) []directory.Upload {
	list := make([]directory.Upload, len(packages))
	for i, p := range packages {
		suite, isKnown := xrpc.SuiteNumber(p.CipherSuite)
		list[i] = directory.Upload{Body: p.KeyPackage.Data, Problem: p.Problem,
			Metadata: &directory.PackageMetadata{Suite: suite, ExpiresMS: p.Expires.UnixMilli(), LastResort: p.LastResort}}
		if !isKnown && p.Problem == "" && len(p.KeyPackage.Data) > 0 {
			list[i].Problem = "cipherSuite is not known here"
		}
	}
	return list
}

// packageOutput encodes a claimed package: its published form, in the shape for the caller's
// generation.
func packageOutput(g xrpc.Generation, p ds.KeyPackage) xrpc.KeyPackageOut {
	return xrpc.KeyPackageOut{DID: string(p.Device.Account), KeyPackage: g.Blob(directory.PublishedForm(p)), KeyPackageHash: p.Ref, CipherSuite: xrpc.SuiteName(p.Suite)}
}

func (k keyPackages) publishKeyPackages(ctx context.Context, who ds.Caller, in *xrpc.PublishKeyPackagesInput) (*xrpc.PublishKeyPackagesOutput, error) {
	if len(in.DeviceID) > 3*ds.IDBytesMax {
		return nil, invalid("deviceId is too long")
	}
	out := &xrpc.PublishKeyPackagesOutput{}
	var err error
	switch in.Action {
	case "publish", "publishBatch":
		out.PublishResult, err = k.publishBatch(ctx, who, in)
	case "sync":
		out.SyncResult, err = k.syncKeyPackages(ctx, who, in)
	case "requestReplenish":
		out.ReplenishResult, err = k.requestReplenish(ctx, who, in)
	case "stats":
	default:
		err = &Error{http.StatusBadRequest, "InvalidAction", "action is none of this method's"}
	}
	if err != nil {
		return nil, err
	}
	counts, err := k.directory.KeyPackageCounts(ctx, who, in.DeviceID)
	out.Stats = xrpc.KeyPackageCounts{Published: counts.Published, Available: counts.Available, Expired: counts.Expired}
	return out, err
}

func (k keyPackages) publishBatch(ctx context.Context, who ds.Caller, in *xrpc.PublishKeyPackagesInput) (*xrpc.PublishResult, error) {
	switch {
	case len(in.KeyPackages) == 0:
		return nil, &Error{http.StatusBadRequest, "MissingKeyPackages", "keyPackages is required"}
	case len(in.KeyPackages) > publishedPackagesMax:
		return nil, &Error{http.StatusBadRequest, "BatchTooLarge", "at most 100 keyPackages"}
	}
	done, err := k.directory.PublishKeyPackages(ctx, who, directory.Publication{Packages: uploads(in.KeyPackages), Device: in.DeviceID, Generation: int(xrpc.GenerationOf(in))})
	if err != nil {
		return nil, err
	}
	out := &xrpc.PublishResult{Succeeded: done.Added, Failed: int64(len(done.Problems))}
	for _, p := range done.Problems {
		out.Errors = append(out.Errors, xrpc.BatchError{Index: int64(p.Index), Error: p.Text})
	}
	return out, nil
}

func (k keyPackages) syncKeyPackages(ctx context.Context, who ds.Caller, in *xrpc.PublishKeyPackagesInput) (*xrpc.SyncResult, error) {
	switch {
	case in.DeviceID == "":
		return nil, &Error{http.StatusBadRequest, "MissingDeviceId", "deviceId is required"}
	case in.LocalHashes == nil:
		return nil, &Error{http.StatusBadRequest, "MissingLocalHashes", "localHashes is required"}
	case len(*in.LocalHashes) > localHashesMax:
		return nil, &Error{http.StatusBadRequest, "BatchTooLarge", "at most 200 localHashes"}
	}
	local := make([]string, len(*in.LocalHashes))
	for i, hash := range *in.LocalHashes {
		local[i] = strings.ToLower(hash)
	}
	left, err := k.directory.SyncKeyPackages(ctx, who, in.DeviceID, local)
	if err != nil {
		return nil, err
	}
	deleted := int64(len(left.Orphaned))
	return &xrpc.SyncResult{ServerHashes: left.Refs, OrphanedCount: deleted, OrphanedHashes: left.Orphaned, DeletedCount: deleted,
		RemainingAvailable: &left.Available, DeviceID: string(left.Device)}, nil
}

func (k keyPackages) requestReplenish(ctx context.Context, who ds.Caller, in *xrpc.PublishKeyPackagesInput) (*xrpc.ReplenishResult, error) {
	if len(in.TargetDIDs) > didsMax || len(in.Reason) > replenishReasonMax || len(in.ConvoID) > 2*ds.IDBytesMax {
		return nil, invalid("targetDids, reason or convoId is too long")
	}
	asked, err := k.directory.RequestReplenish(ctx, who, accounts(in.TargetDIDs), ds.ConversationID(in.ConvoID))
	if err != nil {
		return nil, err
	}
	return &xrpc.ReplenishResult{Requested: true, TargetCount: asked.Targets, DeviceCount: asked.Devices, DeliveredCount: asked.Told}, nil
}

func accounts(dids []string) []ds.AccountID {
	list := make([]ds.AccountID, len(dids))
	for i, did := range dids {
		list[i] = ds.AccountID(did)
	}
	return list
}

// suiteOf returns the number of a cipher suite in a query; 0 for none.
func suiteOf(name string) (int64, error) {
	number, isKnown := xrpc.SuiteNumber(name)
	if name != "" && !isKnown {
		return 0, invalid("cipherSuite is not known here")
	}
	return number, nil
}

func (k keyPackages) getKeyPackages(ctx context.Context, who ds.Caller, in *xrpc.GetKeyPackagesParams) (*xrpc.GetKeyPackagesOutput, error) {
	switch {
	case len(in.DIDs) == 0:
		return nil, invalid("dids is required")
	case len(in.DIDs) > didsMax:
		return nil, &Error{http.StatusBadRequest, "TooManyDids", "at most 100 dids"}
	}
	for _, did := range in.DIDs {
		if !isDID(did) {
			return nil, &Error{http.StatusBadRequest, "InvalidDid", "dids must be DIDs"}
		}
	}
	suite, err := suiteOf(in.CipherSuite)
	if err != nil {
		return nil, err
	}
	g, err := generationOf(ctx, k.directory, who, in)
	if err != nil {
		return nil, err
	}
	list, err := k.directory.ClaimKeyPackages(ctx, who, directory.Claim{Owners: accounts(in.DIDs), PerDevice: true, OnlyMLS: true, Suite: suite, CountPairs: true})
	if err != nil {
		return nil, err
	}
	found := map[ds.AccountID][]ds.KeyPackage{}
	for _, p := range list {
		found[p.Device.Account] = append(found[p.Device.Account], p)
	}
	out := &xrpc.GetKeyPackagesOutput{}
	answered := map[string]bool{}
	for _, did := range in.DIDs {
		if answered[did] {
			continue
		}
		answered[did] = true
		packages := found[ds.AccountID(did)]
		for _, p := range packages {
			out.KeyPackages = append(out.KeyPackages, packageOutput(g, p))
		}
		if len(packages) == 0 {
			out.Missing = append(out.Missing, did)
		}
	}
	return out, nil
}

// isDID reports whether a strict client can read text as a DID.
func isDID[S ~string](text S) bool {
	return len(text) <= ds.AccountBytesMax && lexicons.IsDID(string(text))
}

func (k keyPackages) getKeyPackageStatus(ctx context.Context, who ds.Caller, in *xrpc.GetKeyPackageStatusParams) (*xrpc.GetKeyPackageStatusOutput, error) {
	if in.DID != "" && in.DID != string(who.Account) {
		return nil, &Error{http.StatusForbidden, "Unauthorized", "only the owner sees what became of key packages"}
	}
	suite, err := suiteOf(in.CipherSuite)
	if err != nil {
		return nil, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	beforeMS, after, err := parsePackageCursor(in.Cursor)
	if err != nil {
		return nil, err
	}
	wants := map[string]bool{}
	for _, part := range xrpc.CommaList(in.Include, 8) {
		wants[part] = true
	}
	if len(wants) == 0 {
		wants["stats"] = true
	}
	out := &xrpc.GetKeyPackageStatusOutput{}
	if wants["stats"] {
		if out.Stats, err = k.packageStats(ctx, who, suite); err != nil {
			return nil, err
		}
	}
	if !wants["status"] && !wants["history"] {
		return out, nil
	}
	list, err := k.directory.PublishedPackages(ctx, who, suite, beforeMS, after, limit)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if wants["status"] {
			out.Status = append(out.Status, packageStatus(p))
		}
		if wants["history"] {
			out.History = append(out.History, packageHistory(p)...)
		}
	}
	if len(list) == limit {
		last := list[len(list)-1]
		out.Cursor = packageCursor(last.PublishedMS, last.ID)
	}
	return out, nil
}

func (k keyPackages) packageStats(ctx context.Context, who ds.Caller, suite int64) (*xrpc.KeyPackageStats, error) {
	pool, err := k.directory.KeyPackageStatus(ctx, who, suite)
	if err != nil {
		return nil, err
	}
	stats := &xrpc.KeyPackageStats{TotalAvailable: pool.Available, TotalConsumed: pool.Claimed, Available: pool.Available, Total: pool.Published,
		Consumed: pool.Claimed, Expired: pool.Expired, Threshold: pool.Wanted, NeedsReplenish: pool.Available < pool.Wanted}
	for _, d := range pool.Devices {
		stats.ByDevice = append(stats.ByDevice, xrpc.DeviceKeyPackages{DeviceID: string(d.ID), Available: d.Available})
	}
	return stats, nil
}

func packageStatus(p directory.PublishedPackage) xrpc.KeyPackageStatus {
	status := xrpc.KeyPackageStatus{ID: p.ID, DeviceID: string(p.Device), CipherSuite: xrpc.SuiteName(p.Suite), CreatedAt: xrpc.TimeMS(p.PublishedMS), Consumed: p.ClaimedMS != 0}
	if p.ExpiresMS != 0 {
		status.ExpiresAt = xrpc.TimeMS(p.ExpiresMS)
	}
	return status
}

// packageHistory returns the events of a package, the newest first.
func packageHistory(p directory.PublishedPackage) []xrpc.KeyPackageHistory {
	published := xrpc.KeyPackageHistory{ID: p.ID, Action: "published", CreatedAt: xrpc.TimeMS(p.PublishedMS)}
	switch {
	case p.ClaimedMS != 0:
		return []xrpc.KeyPackageHistory{{ID: p.ID, Action: "consumed", CreatedAt: xrpc.TimeMS(p.ClaimedMS), ConsumedByDID: string(p.ClaimedBy)}, published}
	case p.IsExpired:
		return []xrpc.KeyPackageHistory{{ID: p.ID, Action: "expired", CreatedAt: xrpc.TimeMS(p.ExpiresMS)}, published}
	}
	return []xrpc.KeyPackageHistory{published}
}

// packageCursor returns the cursor behind a package in the list of its owner's.
func packageCursor(publishedMS int64, id string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(publishedMS, 10) + " " + id))
}

func parsePackageCursor(cursor string) (beforeMS int64, after string, err error) {
	if cursor == "" {
		return math.MaxInt64, "", nil
	}
	raw, decodeErr := base64.RawURLEncoding.DecodeString(cursor)
	ms, after, ok := strings.Cut(string(raw), " ")
	beforeMS, parseErr := strconv.ParseInt(ms, 10, 64)
	if decodeErr != nil || parseErr != nil || !ok || !ds.IsValidID(after) {
		return 0, "", invalid("cursor is none of ours")
	}
	return beforeMS, after, nil
}

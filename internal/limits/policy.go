package limits

import (
	"fmt"
	"strings"
	"time"
)

// Rates holds the rates of the policies, by name.
type Rates map[string]Rate

// The names of the limits that exist in this version; policies says what they count by.
const (
	Sends             = "sends"
	DMCreates         = "dm_creates"
	RoomCreates       = "room_creates" // at all doors
	Invites           = "invites"
	Removes           = "removes"
	KeyPackageFetches = "keypackage_fetches" // counts packages
	KeyPackageTargets = "keypackage_target_fetches"
	KeyPackagePairs   = "keypackage_pair_fetches" // XRPC only
	KeyPackageUploads = "keypackage_uploads"      // counts packages, XRPC only
	Replenishes       = "keypackage_replenishes"  // requests to publish more
	KeyPackagePublish = "keypackage_publishes"
	SessionStarts     = "session_starts"
	Resumes           = "resumes"
	Subscribes        = "subscribes"
	Streams           = "stream_conversations" // counts the conversations of streams that begin
	Reports           = "client_reports"
	RecordReads       = "record_reads"
	Lists             = "conversation_lists" // pages of the list of conversations
	GroupInfoRequests = "group_info_requests"
	Readditions       = "readditions"
	// Senders are not stored, so the bytes that an account adds are counted, not those that
	// it has stored.
	StoredBytes = "stored_bytes" // bytes of messages, Welcomes, key packages and memberships

	// Counted for each call of an XRPC method.
	Calls             = "xrpc_calls"
	CallSends         = "xrpc_sends"
	CallReads         = "xrpc_reads"
	CallCreates       = "xrpc_creates"
	CallPublishes     = "xrpc_publishes"
	CallRegistrations = "xrpc_registrations"
	CallBursts        = "xrpc_bursts" // all methods together

	AddressStarts  = "address_session_starts" // good or not
	AddressResumes = "address_resumes"        // good or not
	FirstContacts  = "address_first_contacts" // accounts unknown so far

	// Counted by identity: XRPC calls and the lookups that their tokens cause.
	AddressCalls     = "address_xrpc_calls"   // with a token good or not
	AddressBadTokens = "address_bad_tokens"   // tokens that were refused; signed ones per address and issuer
	AddressSessions  = "address_bad_sessions" // unknown session tokens
	AddressLookups   = "address_did_lookups"  // DID documents fetched for a token
	HostLookups      = "did_host_lookups"     // documents fetched
	IssuerTokens     = "issuer_tokens"        // tokens that were used up
)

// per says what a policy counts by.
type per int

// What policies count by. The first group is of the caller's own; in the second one others
// count too.
const (
	perAccount      per = iota + 1
	perConversation     // and account
	perDevice           // and account
	perSession
	perMethod // and account

	perTarget // the account that something is wanted of
	perPair   // the caller's account and the target's
	perAddress
	perHost
)

// isOwn reports whether only the caller uses up such a limit.
func (p per) isOwn() bool { return p >= perAccount && p <= perMethod }

// policy is a published limit.
type policy struct {
	per  per
	rate Rate // the default
}

// policies holds all limits, by name.
var policies = map[string]policy{
	Sends:             {perConversation, Rate{120, time.Minute}},
	DMCreates:         {perAccount, Rate{30, time.Minute}},
	RoomCreates:       {perAccount, Rate{1000, time.Hour}},
	Invites:           {perConversation, Rate{60, time.Minute}},
	Removes:           {perConversation, Rate{60, time.Minute}},
	KeyPackageFetches: {perAccount, Rate{60, time.Minute}},
	KeyPackageTargets: {perTarget, Rate{600, time.Minute}},
	KeyPackagePairs:   {perPair, Rate{60, time.Hour}},
	KeyPackageUploads: {perAccount, Rate{200, time.Hour}},
	Replenishes:       {perTarget, Rate{1, 10 * time.Minute}},
	KeyPackagePublish: {perDevice, Rate{60, time.Minute}},
	SessionStarts:     {perAccount, Rate{120, time.Minute}},
	Resumes:           {perAccount, Rate{600, time.Minute}},
	Subscribes:        {perSession, Rate{1200, time.Minute}},
	Streams:           {perAccount, Rate{1 << 16, time.Minute}},
	Reports:           {perSession, Rate{60, time.Minute}},
	RecordReads:       {perAccount, Rate{600, time.Minute}},
	Lists:             {perAccount, Rate{240, time.Minute}},
	GroupInfoRequests: {perConversation, Rate{1, 30 * time.Second}},
	Readditions:       {perConversation, Rate{6, time.Hour}},
	StoredBytes:       {perAccount, Rate{1 << 30, 24 * time.Hour}},

	Calls:             {perMethod, Rate{200, time.Minute}},
	CallSends:         {perMethod, Rate{100, time.Minute}},
	CallReads:         {perMethod, Rate{500, time.Minute}},
	CallCreates:       {perMethod, Rate{5, time.Minute}},
	CallPublishes:     {perMethod, Rate{50, time.Minute}},
	CallRegistrations: {perMethod, Rate{10, time.Minute}},
	CallBursts:        {perAccount, Rate{100, time.Second}},

	AddressStarts:  {perAddress, Rate{600, time.Minute}},
	AddressResumes: {perAddress, Rate{1200, time.Minute}},
	FirstContacts:  {perAddress, Rate{300, time.Minute}},

	// A PDS sends the calls of all its users from one address.
	AddressCalls:     {perAddress, Rate{60_000, time.Minute}},
	AddressBadTokens: {perAddress, Rate{120, time.Minute}},
	AddressSessions:  {perAddress, Rate{600, time.Minute}},
	AddressLookups:   {perAddress, Rate{600, time.Minute}},
	HostLookups:      {perHost, Rate{300, time.Minute}},
	IssuerTokens:     {perAccount, Rate{6000, time.Minute}}, // a hundred a second, as CallBursts
}

// Default returns the published rates.
func Default() Rates {
	rates := Rates{}
	for name, p := range policies {
		rates[name] = p.rate
	}
	return rates
}

// Set applies "NAME=COUNT/PERIOD", "NAME=off" or "all=off".
func (r Rates) Set(assignment string) error {
	name, value, ok := strings.Cut(assignment, "=")
	if !ok {
		return fmt.Errorf("limit %q: want NAME=COUNT/PERIOD, NAME=off or all=off", assignment)
	}
	rate, err := ParseRate(value)
	if err != nil {
		return fmt.Errorf("limit %q: %w", assignment, err)
	}
	if name == "all" {
		if value != "off" {
			return fmt.Errorf("limit %q: all can only be off", assignment)
		}
		for n := range r {
			r[n] = Rate{}
		}
		return nil
	}
	if _, ok := r[name]; !ok {
		return fmt.Errorf("limit %q: unknown name", name)
	}
	r[name] = rate
	return nil
}

package limits

import (
	"fmt"
	"strings"
	"time"
)

// Rates holds the rates of docs/configuration.md, by their names on the command line.
type Rates map[string]Rate

// The names of the limits that exist in this version.
const (
	Sends             = "sends"              // per account and conversation
	DMCreates         = "dm_creates"         // per account
	RoomCreates       = "room_creates"       // per account, at all doors
	Invites           = "invites"            // per account and conversation
	Removes           = "removes"            // per account and conversation
	KeyPackageFetches = "keypackage_fetches" // per account, counts packages
	KeyPackageTargets = "keypackage_target_fetches"
	KeyPackagePairs   = "keypackage_pair_fetches" // per account and target, XRPC only
	KeyPackageUploads = "keypackage_uploads"      // per account, counts packages, XRPC only
	Replenishes       = "keypackage_replenishes"  // per target, requests to publish more
	KeyPackagePublish = "keypackage_publishes"    // per device
	SessionStarts     = "session_starts"          // per account
	Resumes           = "resumes"                 // per account
	Subscribes        = "subscribes"              // per session
	Streams           = "stream_conversations"    // per account, counts the conversations of streams that begin
	Reports           = "client_reports"          // per session
	RecordReads       = "record_reads"            // per account
	Lists             = "conversation_lists"      // per account, pages of the list of conversations
	GroupInfoRequests = "group_info_requests"     // per account and conversation
	Readditions       = "readditions"             // per account and conversation
	// Senders are not stored, so the bytes that an account adds are counted, not those that
	// it has stored.
	StoredBytes = "stored_bytes" // per account, bytes of messages, Welcomes, key packages and memberships

	// Counted for each call of an XRPC method, by account.
	Calls             = "xrpc_calls"
	CallSends         = "xrpc_sends"
	CallReads         = "xrpc_reads"
	CallCreates       = "xrpc_creates"
	CallPublishes     = "xrpc_publishes"
	CallRegistrations = "xrpc_registrations"
	CallBursts        = "xrpc_bursts" // all methods together

	AddressStarts  = "address_session_starts" // per address, good or not
	AddressResumes = "address_resumes"        // per address, good or not
	FirstContacts  = "address_first_contacts" // per address, accounts unknown so far

	// Counted by identity: XRPC calls and the lookups that their tokens cause.
	AddressCalls     = "address_xrpc_calls"   // per address, with a token good or not
	AddressBadTokens = "address_bad_tokens"   // per address, tokens that were refused; signed ones per address and issuer
	AddressSessions  = "address_bad_sessions" // per address, unknown session tokens
	AddressLookups   = "address_did_lookups"  // per address, DID documents fetched for a token
	HostLookups      = "did_host_lookups"     // per host of did:web, documents fetched
	IssuerTokens     = "issuer_tokens"        // per account, tokens that were used up
)

// Default returns the published defaults.
func Default() Rates {
	return Rates{
		Sends:             {120, time.Minute},
		DMCreates:         {30, time.Minute},
		RoomCreates:       {1000, time.Hour},
		Invites:           {60, time.Minute},
		Removes:           {60, time.Minute},
		KeyPackageFetches: {60, time.Minute},
		KeyPackageTargets: {600, time.Minute},
		KeyPackagePairs:   {60, time.Hour},
		KeyPackageUploads: {200, time.Hour},
		Replenishes:       {1, 10 * time.Minute},
		KeyPackagePublish: {60, time.Minute},
		SessionStarts:     {120, time.Minute},
		Resumes:           {600, time.Minute},
		Subscribes:        {1200, time.Minute},
		Streams:           {1 << 16, time.Minute},
		Reports:           {60, time.Minute},
		RecordReads:       {600, time.Minute},
		Lists:             {240, time.Minute},
		GroupInfoRequests: {1, 30 * time.Second},
		Readditions:       {6, time.Hour},
		StoredBytes:       {1 << 30, 24 * time.Hour},

		Calls:             {200, time.Minute},
		CallSends:         {100, time.Minute},
		CallReads:         {500, time.Minute},
		CallCreates:       {5, time.Minute},
		CallPublishes:     {50, time.Minute},
		CallRegistrations: {10, time.Minute},
		CallBursts:        {100, time.Second},

		AddressStarts:  {600, time.Minute},
		AddressResumes: {1200, time.Minute},
		FirstContacts:  {300, time.Minute},

		// A PDS sends the calls of all its users from one address.
		AddressCalls:     {60_000, time.Minute},
		AddressBadTokens: {120, time.Minute},
		AddressSessions:  {600, time.Minute},
		AddressLookups:   {600, time.Minute},
		HostLookups:      {300, time.Minute},
		IssuerTokens:     {6000, time.Minute}, // a hundred a second, as CallBursts
	}
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

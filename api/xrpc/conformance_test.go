package xrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/lexicons"
)

// contract says which type goes in and comes out of each endpoint that is built.
var contract = []struct {
	nsid, part string
	value      any
}{
	{RegisterDevice, "input", RegisterDeviceInput{}},
	{RegisterDevice, "output", RegisterDeviceOutput{}},
	{ListDevices, "parameters", ListDevicesParams{}},
	{ListDevices, "output", ListDevicesOutput{}},
	{GetPendingDevices, "parameters", GetPendingDevicesParams{}},
	{GetPendingDevices, "output", GetPendingDevicesOutput{}},
	{PublishKeyPackages, "input", PublishKeyPackagesInput{}},
	{PublishKeyPackages, "output", PublishKeyPackagesOutput{}},
	{GetKeyPackages, "parameters", GetKeyPackagesParams{}},
	{GetKeyPackages, "output", GetKeyPackagesOutput{}},
	{GetKeyPackageStatus, "parameters", GetKeyPackageStatusParams{}},
	{GetKeyPackageStatus, "output", GetKeyPackageStatusOutput{}},
	{CreateConvo, "input", CreateConvoInput{}},
	{CreateConvo, "output", CreateConvoOutput{}},
	{GetConvos, "parameters", GetConvosParams{}},
	{GetConvos, "output", GetConvosOutput{}},
	{GetConvoSettings, "parameters", GetConvoSettingsParams{}},
	{GetConvoSettings, "output", GetConvoSettingsOutput{}},
	{UpdateConvo, "input", UpdateConvoInput{}},
	{UpdateConvo, "output", UpdateConvoOutput{}},
	{LeaveConvo, "input", LeaveConvoInput{}},
	{LeaveConvo, "output", LeaveConvoOutput{}},
	{SendMessage, "input", SendMessageInput{}},
	{SendMessage, "output", SendMessageOutput{}},
	{SendEphemeral, "input", SendEphemeralInput{}},
	{SendEphemeral, "output", SendEphemeralOutput{}},
	{GetMessages, "parameters", GetMessagesParams{}},
	{GetMessages, "output", GetMessagesOutput{}},
	{UpdateCursor, "input", UpdateCursorInput{}},
	{UpdateCursor, "output", UpdateCursorOutput{}},
	{GetGroupState, "parameters", GetGroupStateParams{}},
	{GetGroupState, "output", GetGroupStateOutput{}},
	{CommitGroupChange, "input", CommitGroupChangeInput{}},
	{CommitGroupChange, "output", CommitGroupChangeOutput{}},
	{GetSubscriptionTicket, "input", GetSubscriptionTicketInput{}},
	{GetSubscriptionTicket, "output", GetSubscriptionTicketOutput{}},
	{SubscribeEvents, "parameters", SubscribeEventsParams{}},
	{RequestFailover, "input", RequestFailoverInput{}},
	{RequestFailover, "output", RequestFailoverOutput{}},
	{GetDeliveryStatus, "parameters", GetDeliveryStatusParams{}},
	{GetDeliveryStatus, "output", GetDeliveryStatusOutput{}},
	{ResolveDeliveryService, "parameters", ResolveDeliveryServiceParams{}},
	{ResolveDeliveryService, "output", ResolveDeliveryServiceOutput{}},
	{RedeemInvite, "input", RedeemInviteInput{}},
	{RedeemInvite, "output", RedeemInviteOutput{}},
	{CommitGroupChange, "rateLimitedBody", ErrorBody{}},
	{CommitGroupChange, "groupFrozenBody", ErrorBody{}},
}

// example is one value of the contract as JSON, for one set.
type example struct {
	Set   lexicons.Set    `json:"set"`
	NSID  string          `json:"nsid"`
	Part  string          `json:"part"`
	Value json.RawMessage `json:"value"`
	full  bool
}

var generations = map[lexicons.Set]Generation{lexicons.A: GenerationA, lexicons.B: GenerationB}

// examples makes a full and a minimal value of everything in the contract and of every
// event, for each set that has it.
func examples(t *testing.T) []example {
	t.Helper()
	var all []example
	add := func(nsid, part string, kind reflect.Type) {
		in := 0
		for set, generation := range generations {
			if !hasPart(t, set, nsid, part) {
				continue
			}
			in++
			for _, full := range []bool{true, false} {
				value := reflect.New(kind)
				fill(value.Elem(), "", full, generation)
				if in, is := value.Interface().(*UpdateCursorInput); is {
					in.Cursor = "1" // A may leave it out, B must not
				}
				text, err := json.Marshal(value.Interface())
				if err != nil {
					t.Fatalf("%s %s: %v", nsid, part, err)
				}
				all = append(all, example{set, nsid, part, text, full})
			}
		}
		if in == 0 {
			t.Errorf("no lexicon for %s %s", nsid, part)
		}
	}
	for _, c := range contract {
		if !strings.HasSuffix(c.part, "Body") {
			add(c.nsid, c.part, reflect.TypeOf(c.value))
		}
	}
	for name, kind := range eventKinds {
		add(SubscribeEvents, name, reflect.TypeOf(kind.make()).Elem())
	}
	return all
}

func hasPart(t *testing.T, set lexicons.Set, nsid, part string) bool {
	return !errors.Is(lexicons.Validate(set, nsid, part, []byte("0")), lexicons.ErrUnknown)
}

// fill gives every field a value that fits its name, or with full unset only those that
// must be there.
func fill(v reflect.Value, name string, full bool, g Generation) {
	switch v.Type() {
	case cborBytesType:
		v.SetBytes([]byte{0xfb, 0xff, 1})
		return
	case cborBlobType:
		v.Set(reflect.ValueOf(g.Blob([]byte{0xfb, 0xff, 1})))
		return
	case cborTimeType:
		v.Set(reflect.ValueOf(Time{time.Date(2026, 1, 2, 3, 4, 5, 678_999_999, time.FixedZone("", 3600))}))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), name, full, g)
	case reflect.String:
		v.SetString(textFor(name))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int64:
		v.SetInt(3)
	case reflect.Slice:
		if !full && name != "dids" {
			return // a list may be empty, nil even
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), name, true, g)
		fill(v.Index(1), name, false, g)
	case reflect.Struct:
		for _, field := range fieldsOf(v.Type()) {
			if full || !field.optional {
				fill(v.Field(field.index), field.name, full, g)
			}
		}
	}
}

func textFor(name string) string {
	switch name {
	case "did", "userDid", "creator", "promotedBy", "claimedBy", "requestedBy", "resetBy", "updatedBy", "sequencerDid", "sequencerDs",
		"newSequencerDid", "memberDids", "initialMembers", "targetDid", "targetDids", "missing", "ackedBy", "actor", "consumedByDid", "dids":
		return "did:plc:abc123"
	case "deviceCredentialDid", "credentialDid", "mlsDid", "recipientDeviceDid", "newDeviceCredentialDid":
		return "did:plc:abc123#device"
	case "endpoint":
		return "https://ds.example"
	}
	return "x"
}

// The types encode what the lexicons of both generations accept, full or with nothing
// that may be absent; clients fail on a required field that is missing.
func TestTypesKeepTheLexicons(t *testing.T) {
	for _, e := range examples(t) {
		if err := lexicons.Validate(e.Set, e.NSID, e.Part, e.Value); err != nil {
			t.Errorf("%s %s %s (full %t): %v\n%s", e.Set, e.NSID, e.Part, e.full, err, e.Value)
		}
	}
	retry := int64(3)
	for part, body := range map[string]ErrorBody{
		"rateLimitedBody": {ErrorRateLimited, "slow down", &retry, "convo"},
		"groupFrozenBody": {"GroupFrozen", "wait", &retry, ""},
	} {
		text, _ := json.Marshal(body)
		if err := lexicons.Validate(lexicons.B, CommitGroupChange, part, text); err != nil {
			t.Errorf("%s: %v", part, err)
		}
	}
}

// Nothing in a lexicon is without a field: a full value has every property there is, at
// every depth.
func TestTypesHaveAllOfTheLexicons(t *testing.T) {
	for _, e := range examples(t) {
		if !e.full {
			continue
		}
		var value map[string]any
		if err := json.Unmarshal(e.Value, &value); err != nil {
			t.Fatal(err)
		}
		doc := lexiconOf(t, e.Set, e.NSID)
		part := at(doc, "defs", "main", e.Part)
		if at(part, "schema") != nil {
			part = at(part, "schema")
		}
		if part == nil {
			part = at(doc, "defs", e.Part)
		}
		missingProperties(t, e, e.NSID, part, value, e.Part)
	}
}

func missingProperties(t *testing.T, e example, nsid string, schema, value any, path string) {
	switch at(schema, "type") {
	case "ref":
		home, name, _ := strings.Cut(at(schema, "ref").(string), "#")
		if home == "" {
			home = nsid
		}
		missingProperties(t, e, home, at(lexiconOf(t, e.Set, home), "defs", name), value, path)
	case "array":
		missingProperties(t, e, nsid, at(schema, "items"), value.([]any)[0], path+"/*")
	case "object", "params":
		object, is := value.(map[string]any)
		if !is {
			t.Errorf("%s %s %s is %v", e.Set, e.NSID, path, value)
			return
		}
		properties, _ := at(schema, "properties").(map[string]any)
		for name, property := range properties {
			if _, has := object[name]; !has {
				t.Errorf("%s %s: no field for %s/%s", e.Set, e.NSID, path, name)
				continue
			}
			missingProperties(t, e, nsid, property, object[name], path+"/"+name)
		}
	}
}

func at(tree any, names ...string) any {
	for _, name := range names {
		object, _ := tree.(map[string]any)
		tree = object[name]
	}
	return tree
}

func lexiconOf(t *testing.T, set lexicons.Set, nsid string) any {
	t.Helper()
	text, err := lexicons.File(set, nsid)
	if err != nil {
		t.Fatalf("%s %s: %v", set, nsid, err)
	}
	var doc any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// What is written is read again as it was, inputs by Decode and queries by DecodeQuery.
func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, c := range contract {
		for _, full := range []bool{true, false} {
			want := reflect.New(reflect.TypeOf(c.value))
			fill(want.Elem(), "", full, GenerationA)
			got := reflect.New(want.Type().Elem())
			var err error
			var text []byte
			if c.part == "parameters" {
				text = []byte(EncodeQuery(want.Interface()))
				err = DecodeQuery(string(text), got.Interface())
			} else {
				text, _ = json.Marshal(want.Interface())
				err = Decode(text, got.Interface())
			}
			if err != nil {
				t.Errorf("%s %s: %v in %s", c.nsid, c.part, err, text)
				continue
			}
			again := []byte(nil)
			if c.part == "parameters" {
				again = []byte(EncodeQuery(got.Interface()))
			} else {
				again, _ = json.Marshal(got.Interface())
			}
			if !bytes.Equal(text, again) {
				t.Errorf("%s %s:\nwrote %s\nread  %s", c.nsid, c.part, text, again)
			}
		}
	}
}

// Of every endpoint that is built the required fields are demanded, one by one.
func TestMissingFieldsAreNamed(t *testing.T) {
	for _, c := range contract {
		if c.part != "input" {
			continue
		}
		whole := reflect.New(reflect.TypeOf(c.value))
		fill(whole.Elem(), "", false, GenerationB)
		text, _ := json.Marshal(whole.Interface())
		for _, field := range fieldsOf(whole.Type().Elem()) {
			if field.optional {
				continue
			}
			for _, null := range []bool{false, true} {
				var object map[string]json.RawMessage
				if err := json.Unmarshal(text, &object); err != nil {
					t.Fatal(err)
				}
				delete(object, field.name)
				if null {
					object[field.name] = json.RawMessage("null")
				}
				body, _ := json.Marshal(object)
				var wrong *InputError
				err := Decode(body, reflect.New(whole.Type().Elem()).Interface())
				if !errors.As(err, &wrong) || wrong.Field != field.name {
					t.Errorf("%s without %s: %v", c.nsid, field.name, err)
				}
			}
		}
	}
}

func TestEventTableIsTheLexiconsUnion(t *testing.T) {
	for set, generation := range generations {
		var want []string
		for _, reference := range at(lexiconOf(t, set, SubscribeEvents), "defs", "main", "message", "schema", "refs").([]any) {
			want = append(want, strings.TrimPrefix(reference.(string), "#"))
		}
		var got []string
		for name, kind := range eventKinds {
			if generation.Knows(name) {
				got = append(got, name)
			}
			if kind.make().Type() != name {
				t.Errorf("%s is called %s", name, kind.make().Type())
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the table has %v, the union %v", set, got, want)
		}
	}
}

// Every name of an endpoint here has a lexicon, and those that are left out are left out
// on purpose.
func TestEndpointsAreInTheLexicons(t *testing.T) {
	built := map[string]bool{SubscribeConvoEvents: true}
	for _, c := range contract {
		built[c.nsid] = true
	}
	later := []string{
		"report", "getReports", "blocks", "optIn", "bootstrapResetGroup", "resetGroup", "reportRecoveryFailure", "reissueWelcome",
		"reissueWelcomeRespond", "invalidateKeyPackage", "reconcileKeyPackages", "removeDevice", "putGroupMetadataBlob", "getGroupMetadataBlob",
		"uploadBlob", "getBlob", "deleteBlob", "getBlobUsage", "reportSpam", "checkBlocks", "getBlockStatus",
		"getFederationPeers", "upsertFederationPeer", "deleteFederationPeer", "getFederationMode", "setFederationMode",
	}
	for _, e := range lexicons.Endpoints() {
		name := e.NSID[strings.LastIndexByte(e.NSID, '.')+1:]
		if built[e.NSID] == slices.Contains(later, name) {
			t.Errorf("%s: has types %t, comes later %t", e.NSID, built[e.NSID], slices.Contains(later, name))
		}
		delete(built, e.NSID)
	}
	if len(built) != 0 {
		t.Errorf("without a lexicon: %v", slices.Collect(maps.Keys(built)))
	}
}

// The AT Protocol's own library reads the lexicons, and accepts the examples.
func TestLexiconsInNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("NOT TESTED with @atproto/lexicon: %v", err)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skipf("NOT TESTED with @atproto/lexicon: %v", err)
	}
	const folder = "../../lexicons/node"
	if _, err := os.Stat(folder + "/node_modules/@atproto/lexicon/package.json"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node is here, but @atproto/lexicon is not installed: make lexicon-check")
		}
		t.Skip("NOT TESTED with @atproto/lexicon, which is not installed: make lexicon-check")
	}
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, e := range examples(t) {
		if err := encoder.Encode(e); err != nil {
			t.Fatal(err)
		}
	}
	check := exec.Command(node, folder+"/check.mjs")
	check.Stdin = bytes.NewReader(lines.Bytes())
	if out, err := check.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	// One that is wrong is refused, so the check can fail.
	check = exec.Command(node, folder+"/check.mjs")
	check.Stdin = strings.NewReader(`{"set":"b","nsid":"` + GetMessages + `","part":"output","value":{}}`)
	if out, err := check.CombinedOutput(); err == nil {
		t.Fatalf("an answer without messages was accepted:\n%s", out)
	}
}

package lexicons

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// Every file is a lexicon that uses only words that this package can check.
func TestLexiconsAreWhole(t *testing.T) {
	for set, docs := range catalogs() {
		if len(docs) < 30 {
			t.Errorf("%s has %d lexicons", set, len(docs))
		}
		for nsid, doc := range docs {
			if doc.Lexicon != 1 || doc.ID != nsid {
				t.Errorf("%s %s: version %d, id %s", set, nsid, doc.Lexicon, doc.ID)
			}
			for name, def := range doc.Defs {
				docs.inspect(t, nsid, string(set)+" "+nsid+"#"+name, def)
			}
		}
	}
}

func (c catalog) inspect(t *testing.T, nsid, at string, s *schema) {
	if s == nil {
		t.Errorf("%s: has no schema", at)
		return
	}
	switch s.Type {
	case "query", "procedure", "subscription":
		if s.Description == "" {
			t.Errorf("%s: an endpoint says what it is for", at)
		}
		for name, part := range map[string]*body{"input": s.Input, "output": s.Output, "message": s.Message} {
			if part != nil && part.Schema != nil {
				c.inspect(t, nsid, at+" "+name, part.Schema)
			}
		}
		if s.Parameters != nil {
			c.inspect(t, nsid, at+" parameters", s.Parameters)
		}
		for _, e := range s.Errors {
			if e.Name == "" || strings.ContainsAny(e.Name, " ") {
				t.Errorf("%s: error %q", at, e.Name)
			}
		}
	case "object", "params":
		for _, name := range s.Required {
			if s.Properties[name] == nil {
				t.Errorf("%s: requires %s and does not say what it is", at, name)
			}
		}
		for name, property := range s.Properties {
			c.inspect(t, nsid, at+"/"+name, property)
			if s.Type == "params" && property.Type == "array" && property.Items.Type != "string" {
				t.Errorf("%s/%s: lists of a query are of strings here", at, name)
			}
		}
	case "array":
		c.inspect(t, nsid, at+"/*", s.Items)
	case "ref", "union":
		for _, reference := range append(slices.Clone(s.Refs), s.Ref) {
			if reference == "" {
				continue
			}
			if _, _, err := c.find(nsid, reference); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
	case "string":
		if err := checkFormat(s.Format, ""); err != nil && strings.Contains(err.Error(), "not known") {
			t.Errorf("%s: %v", at, err)
		}
	case "bytes", "integer", "boolean", "unknown":
	default:
		t.Errorf("%s: type %q", at, s.Type)
	}
}

// A lexicon stands in one place: a file that is the same for both generations is in both.
func TestSetsDoNotOverlap(t *testing.T) {
	for _, nsid := range NSIDs(A) {
		_, errOwn := files.ReadFile("a/" + nsid + ".json")
		_, errBoth := files.ReadFile("both/" + nsid + ".json")
		if errOwn == nil && errBoth == nil {
			t.Errorf("%s is in a and in both", nsid)
		}
		a, errA := File(A, nsid)
		b, errB := File(B, nsid)
		if errOwn == nil && errA == nil && errB == nil && string(a) == string(b) {
			t.Errorf("%s is the same in a and b, and belongs into both", nsid)
		}
	}
	for _, nsid := range NSIDs(B) {
		_, errOwn := files.ReadFile("b/" + nsid + ".json")
		_, errBoth := files.ReadFile("both/" + nsid + ".json")
		if errOwn == nil && errBoth == nil {
			t.Errorf("%s is in b and in both", nsid)
		}
	}
}

func TestFile(t *testing.T) {
	for _, c := range []struct {
		set  Set
		nsid string
		has  bool
	}{
		{A, "blue.catbird.mlsChat.getConvos", true},
		{B, "blue.catbird.mlsChat.getConvos", true},
		{A, "blue.catbird.mlsChat.sendEphemeral", true},
		{B, "blue.catbird.mlsChat.sendEphemeral", false},
		{"both", "blue.catbird.mlsChat.getConvos", false},
		{A, "../b/blue.catbird.mlsChat.defs", false},
		{A, "", false},
	} {
		_, err := File(c.set, c.nsid)
		if (err == nil) != c.has || err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s %s: %v", c.set, c.nsid, err)
		}
	}
}

func TestEndpoints(t *testing.T) {
	kinds := map[string]string{}
	for _, e := range Endpoints() {
		kinds[strings.TrimPrefix(e.NSID, "blue.catbird.")] = e.Kind
	}
	for nsid, want := range map[string]string{
		"mlsChat.sendMessage": "procedure", "mlsChat.getMessages": "query", "mlsChat.subscribeEvents": "subscription",
		"mlsChat.resetGroup": "procedure", "mlsChat.report": "procedure", "mls.admin.getFederationPeers": "query",
		"mlsDS.setFederationMode": "procedure", "mls.resolveDeliveryService": "query", "mlsChat.defs": "",
	} {
		if kinds[nsid] != want {
			t.Errorf("%s is %q, want %q", nsid, kinds[nsid], want)
		}
	}
	if names := Errors(B, "blue.catbird.mlsChat.sendMessage"); !slices.Contains(names, "EpochMismatch") {
		t.Errorf("errors of sendMessage: %v", names)
	}
	if names := Errors(A, "blue.catbird.mlsChat.resetGroup"); names != nil {
		t.Errorf("errors of what a does not have: %v", names)
	}
}

func TestValidate(t *testing.T) {
	const chat = "blue.catbird.mlsChat."
	message := `{"id":"m","convoId":"c1","ciphertext":{"$bytes":"AQI="},"epoch":1,"seq":2,"createdAt":"2026-01-02T03:04:05.000Z"}`
	for _, c := range []struct {
		set              Set
		nsid, part, json string
		want             string // part of the error
	}{
		{B, chat + "getMessages", "output", `{"messages":[` + message + `],"more":1}`, ""},
		{B, chat + "getMessages", "output", `{"messages":[]}`, ""},
		{B, chat + "getMessages", "output", `{}`, "/messages: is required"},
		{B, chat + "getMessages", "output", `{"messages":null}`, "/messages: must be an array"},
		{B, chat + "getMessages", "output", `{"messages":[],"lastSeq":null}`, "/lastSeq: must be an integer"},
		{B, chat + "getMessages", "output", `{"messages":[` + strings.Replace(message, `"seq":2`, `"seq":2.5`, 1) + `]}`, "/messages/0/seq: must be a 64-bit integer"},
		{B, chat + "getMessages", "output", `{"messages":[` + strings.Replace(message, `"seq":2`, `"seq":-2`, 1) + `]}`, "/messages/0/seq: -2 is out of range"},
		{B, chat + "getMessages", "output", `{"messages":[` + strings.Replace(message, `"AQI="`, `"AQI=","x":1`, 1) + `]}`, "$bytes only"},
		{B, chat + "getMessages", "output", `{"messages":[` + strings.Replace(message, `"AQI="`, `"-_8"`, 1) + `]}`, "standard base64"},
		{B, chat + "getMessages", "output", `{"messages":[` + strings.Replace(message, `.000Z`, ``, 1) + `]}`, "must be a valid datetime"},
		{B, chat + "getMessages", "parameters", `{"convoId":"c","limit":101}`, "/limit: 101 is out of range"},
		{A, chat + "getKeyPackages", "output", `{"keyPackages":[{"did":"did:plc:a","keyPackage":"AQI=","cipherSuite":"s"}]}`, ""},
		{B, chat + "getKeyPackages", "output", `{"keyPackages":[{"did":"did:plc:a","keyPackage":"AQI=","cipherSuite":"s"}]}`, "/keyPackages/0/keyPackage"},
		{A, chat + "getKeyPackages", "output", `{"keyPackages":[],"missing":["did:plc:a#b"]}`, "/missing/0: must be a valid did"},
		{A, chat + "getSubscriptionTicket", "output", `{"ticket":"t","endpoint":"nowhere","expiresAt":"2026-01-02T03:04:05Z"}`, "must be a valid uri"},
		{A, chat + "subscribeEvents", "typingEvent", `{"cursor":"c","convoId":"c","did":"did:plc:a","isTyping":1}`, "/isTyping: must be a boolean"},
		{B, chat + "subscribeEvents", "message", `{"$type":"` + chat + `subscribeEvents#readEvent"}`, "not in the union"},
		{B, chat + "subscribeEvents", "message", `{"$type":"` + chat + `subscribeEvents#infoEvent","cursor":"","info":"x"}`, ""},
		{B, chat + "getConvoSettings", "output", `{"convoId":"c","policy":[]}`, "/policy: must be an object"},
		{A, chat + "resetGroup", "input", `{}`, "no such lexicon"},
		{B, chat + "listDevices", "input", `{}`, "no such lexicon"},
		{B, chat + "listDevices", "output", `{"devices":[]} 1`, "trailing data"},
		{B, chat + "listDevices", "output", `{"devices"`, "value:"},
	} {
		err := Validate(c.set, c.nsid, c.part, []byte(c.json))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s %s: got %v, want %q", c.set, c.nsid, c.json, err, c.want)
		}
	}
}

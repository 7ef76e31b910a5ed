package xrpc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"
)

// Spec section 0: four dialects of base64, and nothing else beside $bytes.
func TestBytes(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string
		ok   bool
	}{
		{`{"$bytes":"+/8="}`, "\xfb\xff", true},
		{`{"$bytes":"+/8"}`, "\xfb\xff", true},
		{`{"$bytes":"-_8="}`, "\xfb\xff", true},
		{`{"$bytes":"-_8"}`, "\xfb\xff", true},
		{`{"$bytes":""}`, "", true},
		{` { "$bytes" : "AQI=" } `, "\x01\x02", true},
		{`{"$bytes":"+\/8="}`, "\xfb\xff", true},
		{`{"\u0024bytes":"AQI="}`, "\x01\x02", true},
		{`{"$bytes":"+_8="}`, "", false}, // both alphabets
		{`{"$bytes":"-_9="}`, "", false}, // bits that encode nothing
		{`{"$bytes":"AQI=="}`, "", false},
		{`{"$bytes":"AQ="}`, "", false},
		{`{"$bytes":"A"}`, "", false},
		{`{"$bytes":"AQ\nI="}`, "", false},
		{`{"$bytes":"AQI=","more":1}`, "", false},
		{`{"$bytes":"AQI=","$bytes":"AQI="}`, "", false},
		{`{"more":1,"$bytes":"AQI="}`, "", false},
		{`{"bytes":"AQI="}`, "", false},
		{`{"$BYTES":"AQI="}`, "", false},
		{`{"$bytes":null}`, "", false},
		{`{"$bytes":["AQI="]}`, "", false},
		{`{}`, "", false},
		{`[]`, "", false},
		{`"AQI="`, "", false},
		{`1`, "", false},
	} {
		var got Bytes
		err := json.Unmarshal([]byte(c.in), &got)
		if (err == nil) != c.ok || string(got) != c.want {
			t.Errorf("%s: got %q, %v", c.in, got, err)
		}
		var blob Blob
		err = json.Unmarshal([]byte(c.in), &blob)
		if c.in != `"AQI="` && ((err == nil) != c.ok || string(blob.Data) != c.want || c.ok && blob.Shape != ShapeBytes) {
			t.Errorf("blob %s: got %q of shape %d, %v", c.in, blob.Data, blob.Shape, err)
		}
	}
	if out, err := json.Marshal(Bytes{0xfb, 0xff}); err != nil || string(out) != `{"$bytes":"+/8="}` {
		t.Errorf("wrote %s, %v", out, err)
	}
	if out, err := json.Marshal(Bytes(nil)); err != nil || string(out) != `{"$bytes":""}` {
		t.Errorf("wrote %s, %v", out, err)
	}
}

func TestBlobKeepsItsShape(t *testing.T) {
	type holder struct {
		Blob Blob `json:"blob,omitzero"`
	}
	for _, c := range []struct{ in, out string }{
		{`{"blob":"-_8"}`, `{"blob":"+/8="}`},
		{`{"blob":"+\/8="}`, `{"blob":"+/8="}`},
		{`{"blob":""}`, `{"blob":""}`},
		{`{"blob":{"$bytes":"-_8"}}`, `{"blob":{"$bytes":"+/8="}}`},
		{`{"blob":{"$bytes":""}}`, `{"blob":{"$bytes":""}}`},
		{`{"blob":null}`, `{}`},
		{`{}`, `{}`},
		{`{"blob":"*"}`, ``},
		{`{"blob":7}`, ``},
	} {
		var got holder
		err := json.Unmarshal([]byte(c.in), &got)
		out, _ := json.Marshal(got)
		if (err == nil) != (c.out != "") || err == nil && string(out) != c.out {
			t.Errorf("%s became %s, %v", c.in, out, err)
		}
	}
}

func TestGeneration(t *testing.T) {
	for _, c := range []struct {
		in   any
		body string
		want Generation
	}{
		{&RegisterDeviceInput{}, `{"deviceName":"n","keyPackages":[{"keyPackage":"AQI=","cipherSuite":"s","expires":"2026-01-02T03:04:05Z"}],"signaturePublicKey":{"$bytes":""}}`, GenerationA},
		{&RegisterDeviceInput{}, `{"deviceName":"n","keyPackages":[{"keyPackage":{"$bytes":"AQI="},"cipherSuite":"s","expires":"2026-01-02T03:04:05Z"}],"signaturePublicKey":{"$bytes":""}}`, GenerationB},
		{&RegisterDeviceInput{}, `{"deviceName":"n","keyPackages":[],"signaturePublicKey":{"$bytes":"AQI="}}`, GenerationUnknown},
		{&PublishKeyPackagesInput{}, `{"action":"stats"}`, GenerationUnknown},
		{&PublishKeyPackagesInput{}, `{"action":"requestReplenish","targetDids":["did:plc:a"]}`, GenerationB},
		{&PublishKeyPackagesInput{}, `{"action":"publish","keyPackages":[{"keyPackage":"AQI="}]}`, GenerationA},
		{&PublishKeyPackagesInput{}, `{"action":"publish","keyPackages":[{"keyPackage":"AQI="},{"keyPackage":{"$bytes":"AQI="}}]}`, GenerationB},
		{&CommitGroupChangeInput{}, `{"convoId":"c","action":"commit","commit":"AQI="}`, GenerationA},
		{&CommitGroupChangeInput{}, `{"convoId":"c","action":"commit","commit":"AQI=","groupInfo":{"$bytes":"AQI="}}`, GenerationB},
		{&CommitGroupChangeInput{}, `{"convoId":"c","action":"commit","commit":"AQI=","epochAuthenticator":"00"}`, GenerationB},
		{&CommitGroupChangeInput{}, `{"convoId":"c","action":"listPending"}`, GenerationUnknown},
		{&CreateConvoInput{}, `{"groupId":"c","cipherSuite":"s","welcomeMessage":"AQI="}`, GenerationA},
		{&LeaveConvoInput{}, `{"convoId":"c"}`, GenerationUnknown},
	} {
		if err := Decode([]byte(c.body), c.in); err != nil {
			t.Errorf("%s: %v", c.body, err)
		}
		if got := GenerationOf(c.in); got != c.want {
			t.Errorf("%s: generation %d, want %d", c.body, got, c.want)
		}
	}
	if got := GenerationOf(&GetGroupStateParams{DeviceID: "d"}); got != GenerationB {
		t.Errorf("getGroupState with a device: %d", got)
	}
	if got := GenerationOf(&GetGroupStateParams{}); got != GenerationUnknown {
		t.Errorf("getGroupState without: %d", got)
	}
	for g, want := range map[Generation]string{GenerationA: `"AQI="`, GenerationB: `{"$bytes":"AQI="}`, GenerationUnknown: `{"$bytes":"AQI="}`} {
		if out, _ := json.Marshal(g.Blob([]byte{1, 2})); string(out) != want {
			t.Errorf("generation %d reads %s", g, out)
		}
	}
	if !GenerationA.Blob(nil).IsZero() {
		t.Error("nothing is not absent")
	}
	if GenerationUnknown.Or(GenerationA) != GenerationA || GenerationB.Or(GenerationA) != GenerationB {
		t.Error("what the request shows goes before what is known otherwise")
	}
}

func FuzzBytes(f *testing.F) {
	for _, seed := range []string{`{"$bytes":"+/8="}`, `{"$bytes":"-_8"}`, `"AQI"`, `{"$bytes":"+\/8="}`, `{ "$bytes" : "" , "$bytes":""}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var blob Blob
		if json.Unmarshal(in, &blob) != nil {
			return
		}
		out, err := json.Marshal(blob)
		if err != nil {
			t.Fatal(err)
		}
		var again Blob
		if err := json.Unmarshal(out, &again); err != nil || !bytes.Equal(again.Data, blob.Data) {
			t.Fatalf("%s became %s: %v", in, out, err)
		}
		if len(blob.Data) > len(in) {
			t.Fatalf("%d bytes out of %d", len(blob.Data), len(in))
		}
		var strict Bytes
		if blob.Shape == ShapeBytes && (json.Unmarshal(in, &strict) != nil || !bytes.Equal(strict, blob.Data)) {
			t.Fatalf("%s is bytes to one and not to the other", in)
		}
	})
}

// A message of full size is read and written without many copies of it.
func BenchmarkBytes(b *testing.B) {
	in := []byte(`{"convoId":"c","msgId":"m","ciphertext":{"$bytes":"` + base64.StdEncoding.EncodeToString(make([]byte, 8192)) + `"},"epoch":1,"paddedSize":8192}`)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		var message SendMessageInput
		if err := Decode(in, &message); err != nil {
			b.Fatal(err)
		}
	}
}

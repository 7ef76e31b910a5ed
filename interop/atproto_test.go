package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/mls"
)

const getConvos = "blue.catbird.mlsChat.getConvos"

// atprotoWorld is a running server, a directory of did:plc accounts, and the AT
// Protocol's own libraries in a process beside them.
type atprotoWorld struct {
	t         *testing.T
	peer      *peer
	service   *server.Server
	key       *identity.ServiceKey
	directory *httptest.Server
	documents map[string]string // by DID
}

func newAtprotoWorld(t *testing.T) *atprotoWorld {
	w := &atprotoWorld{t: t, peer: startNode(t, "atproto", "@atproto/xrpc-server", "peer.mjs"), documents: map[string]string{}}
	w.directory = httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
		document, ok := w.documents[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(answer, r)
			return
		}
		answer.Header().Set("Content-Type", "application/did+ld+json")
		fmt.Fprint(answer, document)
	}))
	t.Cleanup(w.directory.Close)
	c := server.DefaultConfig(filepath.Join(t.TempDir(), "data"))
	c.ServiceKey = filepath.Join(t.TempDir(), "service.key")
	c.Dev, c.EgressLoopback, c.PLCDirectory = true, true, w.directory.URL
	var err error
	if w.key, err = identity.LoadOrCreateServiceKey(c.ServiceKey); err != nil {
		t.Fatal(err)
	}
	if w.service, err = server.Start(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.service.Close() })
	return w
}

func (w *atprotoWorld) ask(method string, params map[string]any, result any) error {
	params["directory"] = w.directory.URL
	return w.peer.call(w.t, method, params, result)
}

// call calls our server with a token.
func (w *atprotoWorld) call(nsid, token string) (status int, body string) {
	w.t.Helper()
	r, err := http.NewRequest("GET", w.service.URL()+"/xrpc/"+nsid, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// TestDocumentReadByOthers: our DID document, fetched from a running server, names our key
// and our address to the library that other services read it with.
func TestDocumentReadByOthers(t *testing.T) {
	w := newAtprotoWorld(t)
	var got struct{ ID, Key, Endpoint, Type string }
	if err := w.ask("document", map[string]any{"did": w.service.DID()}, &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != w.service.DID() || got.Key != "did:key:"+w.key.PublicKeyMultibase() || got.Type == "" ||
		!strings.HasPrefix(got.Endpoint, "http://localhost:") {
		t.Errorf("they read %+v", got)
	}
}

// TestTokensReadByOthers: what our service key and our accounts' keys sign is good for the
// AT Protocol's own server, for the audience and method that it names and no other.
func TestTokensReadByOthers(t *testing.T) {
	w := newAtprotoWorld(t)
	now := time.Now()
	signers := map[string]identity.Signer{w.service.DID(): w.key}
	for _, alg := range []string{identity.ES256, identity.ES256K} {
		account, err := identity.DeriveAccountKey([]byte("interop seed"), "ann", alg)
		if err != nil {
			t.Fatal(err)
		}
		signers[account.DID()] = account
	}
	const audience = "did:web:other.example"
	for issuer, signer := range signers {
		token, err := identity.SignToken(signer, identity.Claims{Issuer: issuer, Audience: audience, Method: getConvos, IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Iss, Aud, Lxm string }
		if err := w.ask("verify", map[string]any{"token": token, "audience": audience, "method": getConvos}, &got); err != nil {
			t.Errorf("%s: %v", issuer, err)
		} else if got.Iss != issuer || got.Aud != audience || got.Lxm != getConvos {
			t.Errorf("they read %+v", got)
		}
		last := token[:len(token)-4] + "AAAA"
		for name, params := range map[string]map[string]any{
			"another audience":  {"token": token, "audience": "did:web:third.example", "method": getConvos},
			"another method":    {"token": token, "audience": audience, "method": getConvos + "s"},
			"another signature": {"token": last, "audience": audience, "method": getConvos},
		} {
			if err := w.ask("verify", params, nil); err == nil {
				t.Errorf("%s, %s: they take it", issuer, name)
			}
		}
	}
}

// TestTokensOfOthers: what the AT Protocol's own library signs for an account of a
// directory, as its PDS does, is good for us, once, and not when anything in it is
// another.
func TestTokensOfOthers(t *testing.T) {
	w := newAtprotoWorld(t)
	for i, curve := range []string{"p256", "secp256k1"} {
		var account struct {
			Pair      int
			Multibase string
		}
		if err := w.ask("account", map[string]any{"curve": curve}, &account); err != nil {
			t.Fatal(err)
		}
		did := fmt.Sprintf("did:plc:%s", strings.Repeat(string(rune('a'+i)), 24))
		document, err := json.Marshal(map[string]any{"id": did, "verificationMethod": []any{map[string]any{
			"id": did + "#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": account.Multibase}}})
		if err != nil {
			t.Fatal(err)
		}
		w.documents[did] = string(document)
		sign := func(change map[string]any) string {
			t.Helper()
			claims := map[string]any{"pair": account.Pair, "iss": did, "aud": w.service.DID() + "#atproto_mls", "lxm": getConvos}
			for name, value := range change {
				claims[name] = value
			}
			var got struct{ Token string }
			if err := w.ask("token", claims, &got); err != nil {
				t.Fatal(err)
			}
			return got.Token
		}
		good := sign(nil)
		if status, body := w.call(getConvos, good); status != 200 {
			t.Errorf("%s: %d %s", curve, status, body)
		}
		if status, body := w.call(getConvos, good); status != 401 || !strings.Contains(body, "Replay detected") {
			t.Errorf("%s, again: %d %s", curve, status, body)
		}
		if status, body := w.call(getConvos, sign(map[string]any{"aud": w.service.DID()})); status != 200 {
			t.Errorf("%s, an audience without the service: %d %s", curve, status, body)
		}
		refused := map[string]string{
			"another audience":  sign(map[string]any{"aud": "did:web:other.example"}),
			"another service":   sign(map[string]any{"aud": w.service.DID() + "#other"}),
			"another method":    sign(map[string]any{"lxm": getConvos + "s"}),
			"no method":         sign(map[string]any{"lxm": nil}),
			"another's name":    sign(map[string]any{"iss": "did:plc:" + strings.Repeat("z", 24)}),
			"long ago":          sign(map[string]any{"iat": time.Now().Unix() - 600, "exp": time.Now().Unix() - 300}),
			"for too long":      sign(map[string]any{"exp": time.Now().Unix() + 3600}),
			"another signature": strings.Join(append(strings.Split(sign(nil), ".")[:2], strings.Split(sign(nil), ".")[2]), "."),
		}
		for name, token := range refused {
			if status, body := w.call(getConvos, token); status != 401 {
				t.Errorf("%s, %s: %d %s", curve, name, status, body)
			}
		}
	}
}

// TestAnswersReadByOthers holds live answers of a running server against both sets of
// lexicons, with the AT Protocol's own reader of them.
func TestAnswersReadByOthers(t *testing.T) {
	w := newAtprotoWorld(t)
	account, err := identity.DeriveAccountKey([]byte("interop seed"), "ann", identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	count := 0
	for _, call := range liveCalls(t, account.DID()) {
		now := time.Now()
		token, err := identity.SignToken(account, identity.Claims{Issuer: account.DID(), Audience: w.service.DID(), Method: call.nsid,
			IssuedAt: now, ExpiresAt: now.Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		verb, target, body := "GET", w.service.URL()+"/xrpc/"+call.nsid+"?"+call.query, io.Reader(nil)
		if call.body != "" {
			verb, body = "POST", strings.NewReader(call.body)
		}
		r, err := http.NewRequest(verb, target, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != 200 {
			t.Errorf("%s: %d %s %v", call.nsid, answer.StatusCode, text, err)
			continue
		}
		for _, set := range call.sets {
			count++
			if err := encoder.Encode(map[string]any{"set": set, "nsid": call.nsid, "part": "output", "value": json.RawMessage(text)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	checkLexicons(t, &lines, count)
}

// liveCalls is a walk through the methods, one call after the other.
func liveCalls(t *testing.T, did string) []liveCall {
	t.Helper()
	const chat = "blue.catbird.mlsChat."
	both := []string{"a", "b"}
	convo := fmt.Sprintf("%x", time.Now().UnixNano())
	message := strings.Repeat("A", 683) + "="
	id := "01J9ZQ4W8X5V6T7S3R2Q1P0N9M"
	return []liveCall{
		{chat + "registerDevice", "", registration(t, did), both},
		{chat + "listDevices", "", "", both},
		{chat + "getPendingDevices", "", "", both},
		{chat + "publishKeyPackages", "", `{"action":"stats"}`, both},
		{chat + "getKeyPackages", "dids=" + url.QueryEscape(did), "", []string{"b"}},
		{chat + "getKeyPackageStatus", "include=stats,status,history", "", both},
		{chat + "createConvo", "", `{"groupId":"` + convo + `","cipherSuite":"MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519","metadata":{"name":"a name"}}`, both},
		{chat + "getConvos", "", "", both},
		{chat + "getConvoSettings", "convoId=" + convo, "", both},
		{chat + "updateConvo", "", `{"convoId":"` + convo + `","action":"updatePolicy","policy":{"maxMembers":20}}`, both},
		{chat + "sendMessage", "", `{"convoId":"` + convo + `","msgId":"` + id + `","ciphertext":{"$bytes":"` + message + `"},"epoch":0,"paddedSize":512}`, both},
		{chat + "sendEphemeral", "", `{"convoId":"` + convo + `","ciphertext":{"$bytes":"` + message + `"},"epoch":0,"paddedSize":512}`, []string{"a"}},
		{chat + "getMessages", "convoId=" + convo, "", both},
		{chat + "updateCursor", "", `{"convoId":"` + convo + `","cursor":"1"}`, both},
		{chat + "getGroupState", "include=epoch&convoId=" + convo, "", both},
		{chat + "getSubscriptionTicket", "", `{}`, both},
		{chat + "getDeliveryStatus", "convoId=" + convo + "&messageIds=" + id, "", both},
		{chat + "requestFailover", "", `{"convoId":"` + convo + `"}`, both},
		{chat + "leaveConvo", "", `{"convoId":"` + convo + `"}`, both},
	}
}

// registration is a device with a key package, as generation B registers it.
func registration(t *testing.T, did string) string {
	t.Helper()
	key, err := mls.NewSignatureKey(mls.X25519_AES128GCM_SHA256_Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	options := mls.KeyPackageOptions{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)}
	kp, err := mls.NewKeyPackage(mls.X25519_AES128GCM_SHA256_Ed25519, mls.Identity{Credential: []byte(did), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	bytesOf := func(b []byte) any { return map[string]any{"$bytes": b} } // JSON has it as base64
	body, err := json.Marshal(map[string]any{"deviceName": "phone", "signaturePublicKey": bytesOf(key.Public()), "keyPackages": []any{map[string]any{
		"keyPackage": bytesOf(kp.Message()), "cipherSuite": "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", "expires": options.NotAfter.Format(time.RFC3339)}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// liveCall is a call whose answer is held against sets of lexicons.
type liveCall struct {
	nsid, query, body string
	sets              []string
}

func checkLexicons(t *testing.T, lines io.Reader, count int) {
	t.Helper()
	command := nodeCommand(t, filepath.Join("..", "lexicons", "node"), "@atproto/lexicon", "check.mjs")
	command.Stdin = lines
	out, err := command.CombinedOutput()
	if err != nil {
		t.Errorf("of %d answers, some are not what the lexicons say: %v\n%s", count, err, out)
	}
	t.Logf("%s", bytes.TrimSpace(out))
}

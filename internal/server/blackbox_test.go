package server_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/server"
	"waxwing.im/waxwing/mls"
)

const chat = "blue.catbird.mlsChat."

type object = map[string]any

// TestBlackBox makes the checks that clients of the reference server make of it, over HTTP
// against a running server: with the tokens of its own test harness, and with real accounts
// behind a PDS.
func TestBlackBox(t *testing.T) {
	ways := map[string]func(testing.TB, server.Config) *harness{"a shared secret": withSecret, "accounts of a directory": onNetwork}
	databases(t, func(t *testing.T, c server.Config) {
		c.Limit = []string{"all=off"}
		for _, name := range slices.Sorted(maps.Keys(ways)) {
			t.Run(name, func(t *testing.T) {
				c := c
				if c.Database == "" {
					c = server.DefaultConfig(t.TempDir())
					c.Limit = []string{"all=off"}
				}
				log := keepsJournal(&c)
				b := &blackBox{harness: ways[name](t, c)}
				for _, check := range blackBoxChecks {
					t.Run(check.name, func(t *testing.T) {
						b := &blackBox{harness: &harness{t, b.service, b.did, b.sign}, prefix: check.name}
						check.run(b)
					})
				}
				log.tellsNothing(t, b.service.DID())
			})
		}
	})
}

// TestBlackBoxLimits holds what the checks switch off: with the limits as they are, the
// sixth creation of a conversation within a minute has to wait, and is told how long.
func TestBlackBoxLimits(t *testing.T) {
	b := &blackBox{harness: withSecret(t, server.DefaultConfig(t.TempDir()))}
	most := int(limits.Default()[limits.CallCreates].Count)
	for i := range most {
		b.converse("ann", fmt.Sprint(i))
	}
	status, body := b.call(b.name("ann"), chat+"createConvo", object{"groupId": groupID("one more"), "cipherSuite": suiteName})
	if status != 429 || !strings.Contains(string(body), "retryAfterSeconds") {
		t.Errorf("creation %d of a minute: %d %s", most+1, status, body)
	}
}

var blackBoxChecks = []struct {
	name string
	run  func(b *blackBox)
}{
	{"1 2 a device and its packages", (*blackBox).devicePackages},
	{"3 to 8 the happy path", (*blackBox).happyPath},
	{"9 10 three devices of one account", (*blackBox).threeDevices},
	{"11 three members", (*blackBox).threeMembers},
	{"12 one account in two conversations", (*blackBox).twoConversations},
	{"13 a stranger", (*blackBox).stranger},
	{"14 nobody else", (*blackBox).nobodyElse},
	{"15 a large message", (*blackBox).largeMessage},
	{"16 pages", (*blackBox).pages},
	{"17 ten users at once", (*blackBox).tenAtOnce},
	{"18 fifty members", (*blackBox).fiftyMembers},
	{"19 a hundred conversations", (*blackBox).hundredConversations},
	{"20 a hundred registrations at once", (*blackBox).hundredRegistrations},
	{"21 twenty readers", (*blackBox).twentyReaders},
	{"29 32 33 races of commits and messages", (*blackBox).races},
	{"30 31 sends with a reader", (*blackBox).sendsWithReader},
}

// blackBox is a harness with a prefix that keeps the people of one check from those of
// the others.
type blackBox struct {
	*harness
	prefix string
}

func (b *blackBox) name(name string) string { return b.prefix + " " + name }

// ok makes a call that has to succeed.
func (b *blackBox) ok(name, method string, in any) object {
	b.t.Helper()
	out, err := b.done(name, method, in)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// unavailableTries bounds the repeats of a call that a busy server could not take.
const unavailableTries = 10

// done is ok for goroutines that are not the test's.
func (b *blackBox) done(name, method string, in any) (object, error) {
	status, body, err := b.try(b.name(name), chat+method, in)
	for range unavailableTries { // a busy machine: clients try again
		if err != nil || status != http.StatusServiceUnavailable {
			break
		}
		time.Sleep(time.Second) // as Retry-After says
		status, body, err = b.try(b.name(name), chat+method, in)
	}
	if err != nil {
		return nil, err
	}
	if status < 200 || status > 299 {
		return nil, fmt.Errorf("%s: %d %s", method, status, body)
	}
	out := object{}
	if len(body) == 0 {
		return out, nil
	}
	return out, json.Unmarshal(body, &out)
}

// all runs f for 0 to n-1 at once.
func (b *blackBox) all(n int, f func(i int) error) {
	b.t.Helper()
	var running sync.WaitGroup
	failed := make([]error, n)
	for i := range n {
		running.Go(func() { failed[i] = f(i) })
	}
	running.Wait()
	if err := errors.Join(failed...); err != nil {
		b.t.Fatal(err)
	}
}

const suiteName = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"

func groupID(seed string) string { return fmt.Sprintf("%x", []byte(seed+rand.Text())) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func bytesOf(b []byte) object { return object{"$bytes": base64.StdEncoding.EncodeToString(b)} }

// uuid is a random one, as clients make them.
func uuid() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// packages are key packages of a person, as generation A publishes them, and the key that
// signs them.
func (b *blackBox) packages(name string, n int) (list []object, signatureKey []byte) {
	b.t.Helper()
	list, signatureKey, err := makePackages(b.did(b.name(name)), n)
	if err != nil {
		b.t.Fatal(err)
	}
	return list, signatureKey
}

func makePackages(did string, n int) (list []object, signatureKey []byte, err error) {
	key, err := mls.NewSignatureKey(mls.X25519_AES128GCM_SHA256_Ed25519)
	if err != nil {
		return nil, nil, err
	}
	for range n {
		now := time.Now()
		kp, err := mls.NewKeyPackage(mls.X25519_AES128GCM_SHA256_Ed25519, mls.Identity{Credential: []byte(did), Key: key},
			mls.KeyPackageOptions{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(30 * 24 * time.Hour)})
		if err != nil {
			return nil, nil, err
		}
		list = append(list, object{"keyPackage": base64.StdEncoding.EncodeToString(kp.Message()), "cipherSuite": suiteName,
			"expires": now.Add(30 * 24 * time.Hour).UTC().Format(time.RFC3339)})
	}
	return list, key.Public(), nil
}

// register makes a device of a person.
func (b *blackBox) register(name string) object {
	b.t.Helper()
	list, key := b.packages(name, 1)
	return b.ok(name, "registerDevice", object{"deviceName": "a phone", "deviceUuid": uuid(), "keyPackages": list, "signaturePublicKey": bytesOf(key)})
}

// converse makes a conversation of the first with the others.
func (b *blackBox) converse(creator string, others ...string) string {
	b.t.Helper()
	id, err := b.tryConverse(creator, others...)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *blackBox) tryConverse(creator string, others ...string) (string, error) {
	id := groupID(creator)
	members := []string{}
	for _, other := range others {
		members = append(members, b.did(b.name(other)))
	}
	in := object{"groupId": id, "cipherSuite": suiteName, "idempotencyKey": uuid()}
	if len(members) > 0 {
		in["initialMembers"], in["welcomeMessage"] = members, base64.StdEncoding.EncodeToString(randomBytes(256))
	}
	out, err := b.done(creator, "createConvo", in)
	if err == nil && out["groupId"] != id {
		err = fmt.Errorf("createConvo answers groupId %v", out["groupId"])
	}
	return id, err
}

// send sends a message of so many bytes at epoch 0.
func (b *blackBox) send(name, convo string, size int) error {
	_, err := b.done(name, "sendMessage", object{"convoId": convo, "msgId": uuid(), "ciphertext": bytesOf(randomBytes(size)), "epoch": 0, "paddedSize": size})
	return err
}

// messages returns the answer of getMessages with these parameters besides the conversation.
func (b *blackBox) messages(name, convo, more string) []any {
	b.t.Helper()
	list, err := b.tryMessages(name, convo, more)
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func (b *blackBox) tryMessages(name, convo, more string) ([]any, error) {
	out, err := b.done(name, "getMessages", "convoId="+convo+more)
	if err != nil {
		return nil, err
	}
	list, ok := out["messages"].([]any)
	if !ok {
		return nil, fmt.Errorf("getMessages has no list of messages: %v", out)
	}
	return list, nil
}

func seqOf(message any) int64 {
	seq, _ := message.(object)["seq"].(float64)
	return int64(seq)
}

// page reads everything in pages and returns the seqs.
func (b *blackBox) page(name, convo string, limit int) ([]int64, error) {
	var seqs []int64
	for since := int64(0); ; {
		list, err := b.tryMessages(name, convo, fmt.Sprintf("&limit=%d&sinceSeq=%d", limit, since))
		if err != nil || len(list) == 0 {
			return seqs, err
		}
		for _, m := range list {
			if seq := seqOf(m); seq <= since {
				return nil, fmt.Errorf("seq %d after %d", seq, since)
			} else {
				since = seq
			}
			seqs = append(seqs, since)
		}
	}
}

func (b *blackBox) devicePackages() {
	out := b.register("ann")
	if id, _ := out["deviceId"].(string); id == "" || out["mlsDid"] != b.did(b.name("ann"))+"#"+id {
		b.t.Errorf("registerDevice: %v", out)
	}
	list, _ := b.packages("ann", 5)
	b.ok("ann", "publishKeyPackages", object{"action": "publishBatch", "keyPackages": list, "deviceId": out["deviceId"]})
	got := b.ok("bob", "getKeyPackages", "dids="+url.QueryEscape(b.did(b.name("ann"))))
	if n := len(got["keyPackages"].([]any)); n != 1 {
		b.t.Errorf("getKeyPackages: %v", got)
	}
}

func (b *blackBox) happyPath() {
	b.register("ann")
	b.register("bob")
	convo := b.converse("ann", "bob")
	for range 3 {
		if err := b.send("ann", convo, 512); err != nil {
			b.t.Fatal(err)
		}
	}
	list := b.messages("bob", convo, "")
	if len(list) < 3 || seqOf(list[len(list)-1]) != 3 {
		b.t.Fatalf("bob reads %v", list)
	}
	if err := b.send("bob", convo, 512); err != nil {
		b.t.Fatal(err)
	}
	if list := b.messages("ann", convo, "&sinceSeq=3"); len(list) != 1 {
		b.t.Errorf("ann reads %v", list)
	}
	for _, name := range []string{"ann", "bob"} {
		if !slices.Contains(b.conversations(name), convo) {
			b.t.Errorf("%s does not see the conversation", name)
		}
	}
	b.ok("ann", "updateCursor", object{"convoId": convo, "cursor": "01J9ZQ4W8X5V6T7S3R2Q1P0N9M"})
}

// conversations lists the group ids of what getConvos answers without a limit.
func (b *blackBox) conversations(name string) []string {
	b.t.Helper()
	var ids []string
	for _, c := range b.ok(name, "getConvos", "")["conversations"].([]any) {
		ids = append(ids, c.(object)["groupId"].(string))
	}
	return ids
}

func (b *blackBox) threeDevices() {
	seen := map[any]bool{}
	for range 3 {
		out := b.register("ann")
		seen[out["deviceId"]] = true
		if did, _, _ := strings.Cut(out["mlsDid"].(string), "#"); did != b.did(b.name("ann")) || seen[out["mlsDid"]] {
			b.t.Errorf("mlsDid %v", out["mlsDid"])
		}
		seen[out["mlsDid"]] = true
	}
	if len(seen) != 6 {
		b.t.Errorf("devices: %v", seen)
	}
}

func (b *blackBox) threeMembers() {
	names := []string{"ann", "bob", "cid"}
	convo := b.converse("ann", "bob", "cid")
	for _, name := range names {
		if err := b.send(name, convo, 512); err != nil {
			b.t.Fatal(err)
		}
	}
	for _, name := range names {
		if list := b.messages(name, convo, ""); len(list) != 3 {
			b.t.Errorf("%s reads %d messages", name, len(list))
		}
	}
}

func (b *blackBox) twoConversations() {
	first, second := b.converse("ann", "bob"), b.converse("ann", "cid")
	if err := errors.Join(b.send("ann", first, 512), b.send("ann", first, 512), b.send("ann", second, 1024)); err != nil {
		b.t.Fatal(err)
	}
	if got := b.conversations("ann"); !slices.Contains(got, first) || !slices.Contains(got, second) || len(got) != 2 {
		b.t.Errorf("conversations: %v", got)
	}
	for convo, n := range map[string]int{first: 2, second: 1} {
		for _, m := range b.messages("ann", convo, "") {
			if m.(object)["convoId"] != convo {
				b.t.Errorf("a message of %v in %s", m.(object)["convoId"], convo)
			}
			n--
		}
		if n != 0 {
			b.t.Errorf("%d messages are missing", n)
		}
	}
}

func (b *blackBox) stranger() {
	convo := b.converse("ann", "bob")
	for _, call := range []struct {
		method string
		in     any
	}{
		{"sendMessage", object{"convoId": convo, "msgId": uuid(), "ciphertext": bytesOf(randomBytes(512)), "epoch": 0, "paddedSize": 512}},
		{"getMessages", "convoId=" + convo},
		{"getGroupState", "convoId=" + convo},
		{"getConvoSettings", "convoId=" + convo},
		{"updateCursor", object{"convoId": convo, "cursor": "1"}},
		{"getSubscriptionTicket", object{"convoIds": []string{convo}}},
		{"leaveConvo", object{"convoId": convo}},
		{"sendEphemeral", object{"convoId": convo, "ciphertext": bytesOf(randomBytes(512)), "epoch": 0, "paddedSize": 512}},
		{"getDeliveryStatus", "convoId=" + convo + "&messageIds=" + uuid()},
		{"requestFailover", object{"convoId": convo}},
	} {
		status, body := b.call(b.name("eve"), chat+call.method, call.in)
		if status != 403 && status != 404 {
			b.t.Errorf("%s by a stranger: %d %s", call.method, status, body)
		}
		if strings.Contains(string(body), b.did(b.name("ann"))) {
			b.t.Errorf("%s tells a stranger who is there", call.method)
		}
	}
	if len(b.messages("ann", convo, "")) != 0 {
		b.t.Error("a stranger's message was stored")
	}
}

func (b *blackBox) nobodyElse() {
	if list := b.messages("ann", b.converse("ann"), ""); len(list) != 0 {
		b.t.Errorf("messages: %v", list)
	}
}

func (b *blackBox) largeMessage() {
	convo, body := b.converse("ann", "bob"), randomBytes(81920)
	b.ok("ann", "sendMessage", object{"convoId": convo, "msgId": uuid(), "ciphertext": bytesOf(body), "epoch": 0, "paddedSize": len(body)})
	list := b.messages("bob", convo, "")
	if len(list) != 1 || list[0].(object)["ciphertext"].(object)["$bytes"] != base64.StdEncoding.EncodeToString(body) {
		b.t.Error("bob does not read what ann sent")
	}
}

func (b *blackBox) pages() {
	convo := b.converse("ann", "bob")
	for range 10 {
		if err := b.send("ann", convo, 512); err != nil {
			b.t.Fatal(err)
		}
	}
	if seqs, err := b.page("bob", convo, 3); err != nil || len(seqs) != 10 {
		b.t.Errorf("pages: %v, %v", seqs, err)
	}
}

func (b *blackBox) tenAtOnce() {
	names := make([]string, 10)
	for i := range names {
		names[i] = fmt.Sprint("user ", i)
	}
	convo := b.converse(names[0], names[1:]...)
	b.all(10*50, func(i int) error { return b.send(names[i%10], convo, 512) })
	total := 0
	for _, name := range names {
		total += len(b.messages(name, convo, ""))
	}
	if total < 500 {
		b.t.Errorf("ten users read %d messages", total)
	}
	b.isWhole(names[3], convo, 500)
}

// isWhole reads a conversation and finds seq 1 to n.
func (b *blackBox) isWhole(name, convo string, n int) {
	b.t.Helper()
	seqs, err := b.page(name, convo, 100)
	if err != nil || len(seqs) != n || n > 0 && (seqs[0] != 1 || seqs[n-1] != int64(n)) {
		b.t.Errorf("%d messages, want %d: %v", len(seqs), n, err)
	}
}

func (b *blackBox) fiftyMembers() {
	names := make([]string, 50)
	for i := range names {
		names[i] = fmt.Sprint("member ", i)
	}
	convo := b.converse(names[0], names[1:]...)
	b.all(10, func(i int) error { return b.send(names[5*i], convo, 512) })
	for _, name := range names {
		if n := len(b.messages(name, convo, "")); n < 10 {
			b.t.Errorf("%s reads %d messages", name, n)
		}
	}
}

func (b *blackBox) hundredConversations() {
	convos := make([]string, 100)
	for i := range convos {
		convos[i] = b.converse("ann", "bob")
	}
	b.all(len(convos), func(i int) error { return b.send("ann", convos[i], 512) })
	got := b.conversations("ann")
	for _, convo := range convos {
		if !slices.Contains(got, convo) {
			b.t.Fatalf("getConvos lists %d of 100", len(got))
		}
	}
}

func (b *blackBox) hundredRegistrations() {
	b.all(100, func(i int) error {
		name := fmt.Sprint("new ", i)
		list, key, err := makePackages(b.did(b.name(name)), 3)
		if err != nil {
			return err
		}
		out, err := b.done(name, "registerDevice", object{"deviceName": "a phone", "deviceUUID": uuid(), "keyPackages": list[:1], "signaturePublicKey": bytesOf(key)})
		if err != nil {
			return err
		}
		_, err = b.done(name, "publishKeyPackages", object{"action": "publishBatch", "keyPackages": list[1:], "deviceId": out["deviceId"]})
		return err
	})
}

func (b *blackBox) twentyReaders() {
	convo := b.converse("ann", "bob")
	b.all(200, func(int) error { return b.send("ann", convo, 512) })
	b.all(20, func(int) error {
		seqs, err := b.page("bob", convo, 100)
		if err == nil && len(seqs) != 200 {
			err = fmt.Errorf("a reader sees %d messages", len(seqs))
		}
		return err
	})
}

func (b *blackBox) sendsWithReader() {
	convo := b.converse("ann", "bob")
	stop := make(chan struct{})
	reading := make(chan error, 1)
	go func() {
		last := int64(0)
		for {
			seqs, err := b.page("bob", convo, 7)
			for i, seq := range seqs {
				if seq != int64(i)+1 {
					err = fmt.Errorf("seq %d at place %d", seq, i+1)
				}
			}
			if n := int64(len(seqs)); err == nil && n < last {
				err = fmt.Errorf("%d messages after %d", n, last)
			} else {
				last = n
			}
			select {
			case <-stop:
				reading <- err
				return
			default:
			}
			if err != nil {
				reading <- err
				return
			}
		}
	}()
	b.all(50, func(i int) error { return b.send([]string{"ann", "bob"}[i%2], convo, 512) })
	close(stop)
	if err := <-reading; err != nil {
		b.t.Error(err)
	}
	b.isWhole("ann", convo, 50)
}

package xrpcserver

import (
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/lexicons"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/keypackage"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// fetch asks for key packages of people and returns their hashes.
func (w *world) fetch(name string, owners ...string) (hashes []string) {
	w.t.Helper()
	for _, p := range w.fetched(name, "", owners...).KeyPackages {
		hashes = append(hashes, p.KeyPackageHash)
	}
	return hashes
}

func (w *world) fetched(name, suite string, owners ...string) (out xrpc.GetKeyPackagesOutput) {
	w.t.Helper()
	in := params()
	for _, owner := range owners {
		in.Add("dids", w.did(owner))
	}
	if suite != "" {
		in.Set("cipherSuite", suite)
	}
	w.callAs(lexicons.B, name, xrpc.GetKeyPackages, in).into(&out)
	return out
}

// publish publishes packages and returns what became of them.
func (w *world) publish(name string, more object, packages ...*mls.KeyPackage) xrpc.PublishKeyPackagesOutput {
	w.t.Helper()
	in := object{"action": "publishBatch"}
	items := []object{}
	for _, k := range packages {
		items = append(items, w.item(k))
	}
	in["keyPackages"] = items
	for k, v := range more {
		in[k] = v
	}
	var out xrpc.PublishKeyPackagesOutput
	w.call(name, xrpc.PublishKeyPackages, in).into(&out)
	return out
}

func (w *world) stats(name string) xrpc.KeyPackageCounts {
	w.t.Helper()
	var out xrpc.PublishKeyPackagesOutput
	w.call(name, xrpc.PublishKeyPackages, object{"action": "stats"}).into(&out)
	return out.Stats
}

func (p *phone) packs(n int) (list []*mls.KeyPackage) {
	for range n {
		list = append(list, p.pack())
	}
	return list
}

func TestPublishKeyPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann")
		id := ann.register(1, nil)
		out := w.publish("ann", object{"deviceId": id}, ann.packs(3)...) // black-box check 2
		same(t, "succeeded", out.PublishResult.Succeeded, 3)
		same(t, "available", out.Stats.Available, 4)
		k := ann.pack()
		out = w.publish("ann", nil, k, k) // A names no device; the key says which it is
		same(t, "succeeded", out.PublishResult.Succeeded, 1)
		same(t, "failed", out.PublishResult.Failed, 0)
		out = w.publish("ann", object{"action": "publish"}, k)
		same(t, "a duplicate", out.PublishResult.Succeeded+out.PublishResult.Failed, 0)
		same(t, "available", out.Stats.Available, 5)
		same(t, "published", out.Stats.Published, 5)
		same(t, "of one device", w.devices("ann")[0].KeyPackageCount, 5)
		same(t, "one for each device", len(w.fetch("bob", "ann")), 1)

		w.later.Add(time.Hour.Milliseconds())
		same(t, "expired", w.stats("ann").Expired, 4)
		same(t, "available", w.stats("ann").Available, 0)
		same(t, "handed out", len(w.fetch("bob", "ann")), 0)
	})
}

func TestPublishProblems(t *testing.T) {
	w := newWorld(t)
	ann, good := w.phone("ann"), w.phone("ann").pack()
	spoil := func(at int) []byte {
		b := bytes.Clone(bare(good))
		b[(len(b)+at)%len(b)] ^= 1
		return b
	}
	with := func(key string, value any) object {
		in := w.item(ann.pack())
		in[key] = value
		return in
	}
	for name, row := range map[string]struct {
		item any
		want string // part of the problem; "" for none
	}{
		"bare, $bytes":        {w.itemOf(blob(bare(ann.pack()))), ""},
		"bare, text":          {w.itemOf(text(bare(ann.pack()))), ""},
		"MLSMessage, $bytes":  {w.itemOf(blob(ann.pack().Message())), ""},
		"MLSMessage, text":    {w.itemOf(text(ann.pack().Message())), ""},
		"url-safe, unpadded":  {w.itemOf(base64.RawURLEncoding.EncodeToString(bare(ann.pack()))), ""},
		"exactly 90 days":     {with("expires", w.now().Add(90*24*time.Hour)), ""},
		"last resort":         {with("lastResort", true), ""},
		"empty":               {w.itemOf(blob(nil)), "empty"},
		"empty text":          {w.itemOf(""), "empty"},
		"no base64":           {w.itemOf("!!"), "keyPackage"},
		"a number":            {w.itemOf(7), "keyPackage"},
		"too large":           {w.itemOf(blob(make([]byte, 64<<10+1))), "too large"},
		"zeros":               {w.itemOf(blob(make([]byte, 300))), "key package"},
		"signature":           {w.itemOf(blob(spoil(-1))), "signature"},
		"cut":                 {w.itemOf(blob(bare(good)[:200])), "key package"},
		"longer":              {w.itemOf(blob(append(bytes.Clone(bare(good)), 0))), "key package"},
		"somebody else's":     {w.item(w.phone("bob").pack()), "another account"},
		"of a device":         {w.item(ann.packOf(w.did("ann")+"#phone", false, time.Hour)), "another account"},
		"no longer good":      {w.item(ann.packOf(w.did("ann"), false, -time.Hour)), "lifetime"},
		"expired":             {with("expires", w.now()), "expired"},
		"for too long":        {with("expires", w.now().Add(92*24*time.Hour)), "90 days"},
		"no time":             {with("expires", "soon"), "expires"},
		"unknown suite":       {with("cipherSuite", "MLS_NONE"), "cipherSuite"},
		"another suite":       {with("cipherSuite", "MLS_128_DHKEMP256_AES128GCM_SHA256_P256"), "cipher suite"},
		"no object":           {"x", "object"},
		"without what counts": {object{}, "required"},
	} {
		before := w.stats("ann").Published
		var out xrpc.PublishKeyPackagesOutput
		w.call("ann", xrpc.PublishKeyPackages, object{"action": "publishBatch", "keyPackages": []any{w.item(ann.pack()), row.item}}).into(&out)
		r := out.PublishResult
		if row.want == "" {
			if r.Succeeded != 2 || r.Failed != 0 || len(r.Errors) != 0 {
				t.Errorf("%s: %+v", name, r)
			}
			w.fetch("bob", "ann") // makes room
			w.fetch("bob", "ann")
			continue
		}
		if r.Succeeded != 0 || r.Failed != 1 || len(r.Errors) != 1 || r.Errors[0].Index != 1 || !strings.Contains(r.Errors[0].Error, row.want) {
			t.Errorf("%s: %+v", name, r)
		}
		if out.Stats.Published != before {
			t.Errorf("%s: something was stored", name)
		}
	}
}

func TestPublishRefuses(t *testing.T) {
	w := newWorld(t)
	ann, bob := w.phone("ann"), w.phone("bob")
	ann.register(1, nil)
	foreign := bob.register(1, nil)
	items := []object{}
	for range 101 {
		items = append(items, w.item(ann.pack()))
	}
	long := make([]string, 201)
	for name, row := range map[string]struct {
		in   object
		want string
	}{
		"no action":          {object{}, "400 InvalidRequest"},
		"unknown action":     {object{"action": "burn"}, "400 InvalidAction"},
		"nothing to publish": {object{"action": "publish"}, "400 MissingKeyPackages"},
		"an empty batch":     {object{"action": "publishBatch", "keyPackages": []any{}}, "400 MissingKeyPackages"},
		"too many":           {object{"action": "publishBatch", "keyPackages": items}, "400 BatchTooLarge"},
		"foreign device":     {object{"action": "publish", "keyPackages": items[:1], "deviceId": foreign}, "400 InvalidRequest"},
		"unknown device":     {object{"action": "publish", "keyPackages": items[:1], "deviceId": "x"}, "400 InvalidRequest"},
		"long device":        {object{"action": "stats", "deviceId": strings.Repeat("x", 400)}, "400 InvalidRequest"},
		"sync of nobody":     {object{"action": "sync", "localHashes": []string{}}, "400 MissingDeviceId"},
		"sync without":       {object{"action": "sync", "deviceId": foreign}, "400 MissingLocalHashes"},
		"sync of foreign":    {object{"action": "sync", "deviceId": foreign, "localHashes": []string{}}, "400 InvalidRequest"},
		"sync of too many":   {object{"action": "sync", "deviceId": foreign, "localHashes": long}, "400 BatchTooLarge"},
		"replenish too many": {object{"action": "requestReplenish", "targetDids": long}, "400 InvalidRequest"},
		"a long reason":      {object{"action": "requestReplenish", "reason": strings.Repeat("x", 121)}, "400 InvalidRequest"},
	} {
		w.call("ann", xrpc.PublishKeyPackages, row.in).refused(row.want)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	same(t, "bob's packages", w.stats("bob").Available, 1)
	same(t, "ann's packages", w.stats("ann").Available, 1)
	w.call("", xrpc.PublishKeyPackages, object{"action": "stats"}).refused("401 AuthenticationRequired")
}

func TestPublishQuotas(t *testing.T) {
	t.Run("unclaimed", func(t *testing.T) {
		onBoth(t, func(t *testing.T, w *world) {
			ann := w.phone("ann")
			full := ann.packs(100)
			same(t, "succeeded", w.publish("ann", nil, full...).PublishResult.Succeeded, 100)
			more := w.item(ann.pack())
			w.call("ann", xrpc.PublishKeyPackages, object{"action": "publish", "keyPackages": []object{more}}).refused("429 LimitExceeded")
			same(t, "available", w.stats("ann").Available, 100)
			same(t, "what is there is welcome", w.publish("ann", nil, full...).PublishResult.Succeeded, 0)
			w.fetch("bob", "ann")
			w.call("ann", xrpc.PublishKeyPackages, object{"action": "publish", "keyPackages": []object{more}}).fields()
			same(t, "available", w.stats("ann").Available, 100)
		})
	})
	t.Run("uploads", func(t *testing.T) {
		w := newWorld(t, func(s *setup) {
			s.limits[limits.KeyPackageUploads] = limits.Default()[limits.KeyPackageUploads]
		})
		ann := w.phone("ann")
		full := ann.packs(100)
		w.publish("ann", nil, full...)
		w.publish("ann", nil, full...)
		a := w.call("ann", xrpc.PublishKeyPackages, object{"action": "publish", "keyPackages": []object{w.item(full[0])}})
		a.refused("429 RateLimited")
		same(t, "Retry-After", a.header.Get("Retry-After"), "18")
		w.later.Add(18_000)
		w.publish("ann", nil, full[0])
	})
}

func TestSyncKeyPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann, other := w.phone("ann"), w.phone("ann")
		id := ann.register(1, object{"deviceUUID": "u"})
		other.register(2, nil)
		kept, claimed := ann.pack(), ann.pack()
		w.publish("ann", nil, kept, claimed, ann.pack())
		sync := func(device string, local ...string) *xrpc.SyncResult {
			var out xrpc.PublishKeyPackagesOutput
			w.call("ann", xrpc.PublishKeyPackages, object{"action": "sync", "deviceId": device, "localHashes": append([]string{}, local...)}).into(&out)
			return out.SyncResult
		}
		hash := fmt.Sprintf("%X", kept.Ref()) // capitals are the same
		r := sync(id, hash, strings.Repeat("0", 64), "junk")
		if strings.Join(r.ServerHashes, "") != strings.ToLower(hash) || r.OrphanedCount != 3 || r.DeletedCount != 3 || len(r.OrphanedHashes) != 3 ||
			*r.RemainingAvailable != 1 || r.DeviceID != id {
			t.Errorf("got %+v", r)
		}
		same(t, "the other device's", w.stats("ann").Available, 3)
		r = sync("u", hash) // by its own id
		same(t, "deleted again", r.DeletedCount, 0)
		r = sync(w.did("ann") + "#" + id)
		if len(r.ServerHashes) != 0 || r.DeletedCount != 1 || *r.RemainingAvailable != 0 {
			t.Errorf("without any: %+v", r)
		}
		same(t, "the other device's", w.stats("ann").Available, 2)
	})
}

func TestGetKeyPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		phone, laptop := w.phone("ann"), w.phone("ann")
		first, second, last := phone.pack(), phone.pack(), phone.packOf(w.did("ann"), true, time.Hour)
		in := phone.registration(0, nil)
		in["keyPackages"] = []object{w.item(first), w.itemOf(text(second.Message())), w.item(last)}
		w.call("ann", xrpc.RegisterDevice, in).fields()
		laptop.register(1, nil)
		ref := func(k *mls.KeyPackage) string { return hex.EncodeToString(k.Ref()) }

		out := w.fetched("bob", "", "ann", "carl", "ann")
		same(t, "one for each device", len(out.KeyPackages), 2)
		same(t, "missing", fmt.Sprint(out.Missing), fmt.Sprint([]string{w.did("carl")}))
		i := slices.IndexFunc(out.KeyPackages, func(p xrpc.KeyPackageOut) bool { return p.KeyPackageHash == ref(first) })
		if i < 0 || !bytes.Equal(out.KeyPackages[i].KeyPackage.Data, bare(first)) || out.KeyPackages[i].CipherSuite != suiteName || out.KeyPackages[i].DID != w.did("ann") {
			t.Fatalf("the oldest comes first, as it was published: %+v", out)
		}
		out = w.fetched("bob", "", "ann")
		if len(out.KeyPackages) != 1 || !bytes.Equal(out.KeyPackages[0].KeyPackage.Data, second.Message()) {
			t.Errorf("then the next, as it was published: %+v", out)
		}
		for range 2 {
			same(t, "then the last resort", fmt.Sprint(w.fetch("bob", "ann")), fmt.Sprint([]string{ref(last)}))
		}
		same(t, "of another suite", fmt.Sprint(w.fetched("bob", "MLS_128_DHKEMP256_AES128GCM_SHA256_P256", "ann").Missing), fmt.Sprint([]string{w.did("ann")}))
		same(t, "of that suite", len(w.fetched("bob", suiteName, "ann").KeyPackages), 1)
		same(t, "one's own", len(w.fetch("ann", "ann")), 1)

		r := w.request("bob", xrpc.GetKeyPackages, params("dids", w.did("ann")))
		r.Header.Set("X-Force-Refresh", "true")
		r.Header.Set("Cache-Control", "no-cache")
		a := w.do(r, xrpc.GetKeyPackages, lexicons.B)
		same(t, "forced", a.status, 200)
		same(t, "caches", a.header.Get("Cache-Control"), "no-store")
	})
}

func TestGetKeyPackagesRefuses(t *testing.T) {
	w := newWorld(t)
	many := url.Values{}
	for i := range 101 {
		many.Add("dids", fmt.Sprintf("did:web:x%d.example", i))
	}
	for _, row := range []struct {
		in   url.Values
		want string
	}{
		{params(), "400 InvalidRequest"},
		{many, "400 TooManyDids"},
		{params("dids", "ann"), "400 InvalidDid"},
		{params("dids", "did:web:"), "400 InvalidDid"},
		{params("dids", "did:WEB:x"), "400 InvalidDid"},
		{params("dids", "did:web:x:"), "400 InvalidDid"},
		{params("dids", "did:web:x#device"), "400 InvalidDid"},
		{params("dids", w.did("ann"), "cipherSuite", "MLS_NONE"), "400 InvalidRequest"},
	} {
		w.call("bob", xrpc.GetKeyPackages, row.in).refused(row.want)
	}
	many.Del("dids")
	for i := range 100 {
		many.Add("dids", fmt.Sprintf("did:web:x%d.example", i))
	}
	var out xrpc.GetKeyPackagesOutput
	w.call("bob", xrpc.GetKeyPackages, many).into(&out)
	same(t, "missing", len(out.Missing), 100)
}

func TestGetKeyPackagesIsLimited(t *testing.T) {
	for name, rates := range map[string]map[string]limits.Rate{
		"caller": {limits.KeyPackageFetches: {Count: 3, Period: time.Minute}},
		"target": {limits.KeyPackageTargets: {Count: 3, Period: time.Minute}},
		"pair":   {limits.KeyPackagePairs: {Count: 3, Period: time.Minute}},
	} {
		w := newWorld(t, func(s *setup) {
			for limit, rate := range rates {
				s.limits[limit] = rate
			}
		})
		ann := w.phone("ann")
		ann.register(5, nil)
		for range 3 {
			w.fetch("eve", "ann")
		}
		w.call("eve", xrpc.GetKeyPackages, params("dids", w.did("carl"), "dids", w.did("ann"))).refused("429 RateLimited")
		same(t, name+": left", w.stats("ann").Available, 2)
		isOther := w.call("eve", xrpc.GetKeyPackages, params("dids", w.did("carl"))).status == 200
		same(t, name+": eve and carl", isOther, name != "caller")
		isBob := w.callAs(lexicons.B, "bob", xrpc.GetKeyPackages, params("dids", w.did("ann"))).status == 200
		same(t, name+": bob and ann", isBob, name != "target")
	}
}

// Invariant I5: twenty who ask at once are never given the same package.
func TestClaimedAtMostOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann")
		ann.register(60, nil)
		w.phone("ann").register(60, nil)
		var mu sync.Mutex
		times := map[string]int{}
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				for range 3 {
					hashes := w.fetch(fmt.Sprintf("caller-%d", i), "ann")
					mu.Lock()
					for _, hash := range hashes {
						times[hash]++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		same(t, "packages handed out", len(times), 120)
		for hash, n := range times {
			if n != 1 {
				t.Errorf("%s was handed out %d times", hash, n)
			}
		}
	})
}

// The packages of gateway devices and those of XRPC devices are one pool.
func TestOnePool(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		desk := ds.Caller{Account: ds.AccountID(w.did("ann")), Device: "desk"}
		ours := w.phone("ann").pack()
		_, err := w.directory.PublishKeyPackages(ctx, desk, directory.Publication{Packages: []directory.Upload{{Body: []byte("opaque"), IsOpaque: true}, {Body: ours.Message()}}})
		must(t, err)
		xrpcs := w.phone("ann")
		k := xrpcs.pack()
		w.publish("ann", nil, k)
		out := w.fetched("bob", "", "ann")
		same(t, "one of each", len(out.KeyPackages), 2)
		w.publish("ann", nil, xrpcs.pack())
		list, err := w.directory.ClaimKeyPackages(ctx, ds.Caller{Account: "bob", Device: "b"}, directory.Claim{Owners: []ds.AccountID{desk.Account}, PerDevice: true})
		must(t, err)
		same(t, "claimed by the gateway's", len(list), 2) // the opaque one too
		for _, p := range list {
			if p.Ref == "" {
				continue
			}
			if _, err := keypackage.Validate(p.Body, w.now()); err != nil {
				t.Errorf("the gateway's readers want an MLSMessage: %v", err)
			}
		}
	})
}

// Packages of X-Wing are published and handed out like others.
func TestXWing(t *testing.T) {
	w := newWorld(t)
	ed25519, err := suite.Lookup(suite.X25519ChaCha20Poly1305)
	must(t, err)
	private, err := ed25519.GenerateSignatureKey()
	must(t, err)
	public, err := ed25519.SignaturePublicKey(private)
	must(t, err)
	hpkeKey := func() []byte {
		k, err := hpke.MLKEM768X25519().GenerateKey()
		must(t, err)
		return k.PublicKey().Bytes()
	}
	k := &wire.KeyPackage{Version: wire.MLS10, CipherSuite: keypackage.XWing, InitKey: hpkeKey(), Leaf: wire.LeafNode{EncryptionKey: hpkeKey(), SignatureKey: public,
		Credential:   wire.Credential{Type: wire.BasicCredential, Identity: []byte(w.did("ann"))},
		Capabilities: wire.Capabilities{Versions: []uint16{1}, CipherSuites: []uint16{keypackage.XWing}, Credentials: []uint16{1}},
		Source:       wire.KeyPackageLeaf, NotBefore: uint64(w.now().Add(-time.Hour).Unix()), NotAfter: uint64(w.now().Add(time.Hour).Unix())}}
	must(t, leaf.Sign(ed25519, private, &k.Leaf, nil, 0))
	k.Signature, err = ed25519.SignWithLabel(private, "KeyPackageTBS", k.SignedContent())
	must(t, err)
	item := w.itemOf(blob(wire.Marshal(k)))
	item["cipherSuite"] = "MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519"
	var out xrpc.PublishKeyPackagesOutput
	w.call("ann", xrpc.PublishKeyPackages, object{"action": "publish", "keyPackages": []object{item}}).into(&out)
	same(t, fmt.Sprint(out.PublishResult.Errors), out.PublishResult.Succeeded, 1)
	got := w.fetched("bob", "MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519", "ann")
	if len(got.KeyPackages) != 1 || !bytes.Equal(got.KeyPackages[0].KeyPackage.Data, wire.Marshal(k)) || got.KeyPackages[0].CipherSuite != item["cipherSuite"] {
		t.Errorf("got %+v", got)
	}
}

func TestKeyPackageStatus(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		ann := w.phone("ann")
		id := ann.register(3, nil)
		w.later.Add(1000)
		w.publish("ann", nil, ann.pack())
		w.later.Add(1000)
		claimed := w.fetch("bob", "ann")[0]
		status := func(pairs ...string) (out xrpc.GetKeyPackageStatusOutput) {
			w.call("ann", xrpc.GetKeyPackageStatus, params(pairs...)).into(&out)
			return out
		}
		s := status().Stats
		if s.TotalAvailable != 3 || s.Available != 3 || s.TotalConsumed != 1 || s.Consumed != 1 || s.Total != 4 || s.Expired != 0 || s.Threshold != 5 || !s.NeedsReplenish ||
			len(s.ByDevice) != 1 || s.ByDevice[0] != (xrpc.DeviceKeyPackages{DeviceID: id, Available: 3}) {
			t.Errorf("stats %+v", s)
		}
		same(t, "its own did", status("did", w.did("ann")).Stats.Total, 4)
		same(t, "of another suite", status("cipherSuite", "MLS_128_DHKEMP256_AES128GCM_SHA256_P256").Stats.Total, 0)
		var all []xrpc.KeyPackageStatus
		var history []xrpc.KeyPackageHistory
		cursor := ""
		for page := 0; page == 0 || cursor != ""; page++ {
			in := []string{"include", "status, history", "limit", "3"}
			if cursor != "" {
				in = append(in, "cursor", cursor)
			}
			out := status(in...)
			if out.Stats != nil || page > 1 {
				t.Fatalf("page %d: %+v", page, out)
			}
			all, history, cursor = append(all, out.Status...), append(history, out.History...), out.Cursor
		}
		same(t, "packages", len(all), 4)
		ids := map[string]bool{}
		for _, p := range all {
			ids[p.ID] = true
			same(t, "consumed "+p.ID, p.Consumed, p.ID == claimed)
			same(t, "device", p.DeviceID, id)
		}
		same(t, "different packages", len(ids), 4)
		same(t, "history", len(history), 5)
		i := slices.IndexFunc(history, func(h xrpc.KeyPackageHistory) bool { return h.Action == "consumed" })
		if i < 0 || history[i].ID != claimed || history[i].ConsumedByDID != w.did("bob") {
			t.Errorf("history %+v", history)
		}
		w.later.Add(time.Hour.Milliseconds())
		expired := 0
		for _, h := range status("include", "history").History {
			if h.Action == "expired" {
				expired++
			}
		}
		same(t, "expired", expired, 3)
		w.call("bob", xrpc.GetKeyPackageStatus, params("did", w.did("ann"))).refused("403 Unauthorized")
		for _, bad := range []url.Values{params("limit", "0"), params("limit", "101"), params("cursor", "!"), params("cursor", "eA", "include", "status"), params("cipherSuite", "x")} {
			w.call("ann", xrpc.GetKeyPackageStatus, bad).refused("400 InvalidRequest")
		}
	})
}

func TestRequestReplenish(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.conversation("c1", "ann", "bob", "carl")
		w.conversation("c2", "eve", "dan")
		w.phone("bob").register(3, nil)
		w.phone("carl").register(12, nil)
		w.phone("dan").register(1, nil)
		ask := func(more object) xrpc.ReplenishResult {
			in := object{"action": "requestReplenish"}
			for k, v := range more {
				in[k] = v
			}
			var out xrpc.PublishKeyPackagesOutput
			w.call("ann", xrpc.PublishKeyPackages, in).into(&out)
			return *out.ReplenishResult
		}
		everybody := []string{w.did("bob"), w.did("carl"), w.did("dan"), w.did("bob")}
		same(t, "who ann knows", ask(object{"targetDids": everybody, "reason": "empty"}), xrpc.ReplenishResult{Requested: true, TargetCount: 2, DeviceCount: 2, DeliveredCount: 1})
		same(t, "again", ask(object{"targetDids": everybody}), xrpc.ReplenishResult{Requested: true, TargetCount: 2, DeviceCount: 2})
		same(t, "of a conversation", ask(object{"convoId": "c1"}), xrpc.ReplenishResult{Requested: true, TargetCount: 2, DeviceCount: 2})
		same(t, "of a foreign conversation", ask(object{"convoId": "c2"}), xrpc.ReplenishResult{Requested: true})
		same(t, "of itself", ask(nil), xrpc.ReplenishResult{Requested: true, TargetCount: 1})
		low := 0
		for _, r := range w.records(ds.AccountLog(ds.AccountID(w.did("bob")))) {
			if r.Kind == ds.KeyPackagesLow {
				low++
			}
		}
		same(t, "bob was told", low, 1)
	}, func(s *setup) { s.limits[limits.Replenishes] = limits.Default()[limits.Replenishes] })
}

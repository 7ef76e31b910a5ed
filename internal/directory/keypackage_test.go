package directory

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testmetric"
	"waxwing.im/waxwing/mls"
	"waxwing.im/waxwing/mls/leaf"
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// published makes an MLS KeyPackage of account as it is published.
func published(t *testing.T, account string, o mls.KeyPackageOptions) string {
	t.Helper()
	key, err := mls.NewSignatureKey(mls.X25519_AES128GCM_SHA256_Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if o.NotAfter.IsZero() {
		o.NotBefore, o.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	}
	p, err := mls.NewKeyPackage(mls.X25519_AES128GCM_SHA256_Ed25519, mls.Identity{Credential: []byte(account), Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(p.Message())
}

func TestPublishKeyPackages(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	good := published(t, "ann", mls.KeyPackageOptions{})
	raw, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := append([]byte{}, raw...)
	spoilt[len(spoilt)-1] ^= 1
	rows := []struct {
		name     string
		packages []string
		want     int64
		index    int // of the refused one, or -1
	}{
		{"one", []string{good}, 1, -1},
		{"the same again", []string{good}, 1, -1},
		{"opaque ones", []string{"hello", "hello", "not/base64="}, 4, -1},
		{"bad signature behind a good one", []string{published(t, "ann", mls.KeyPackageOptions{}), base64.StdEncoding.EncodeToString(spoilt)}, 4, 1},
		{"trailing byte", []string{base64.StdEncoding.EncodeToString(append(append([]byte{}, raw...), 0))}, 4, 0},
		{"expired", []string{published(t, "ann", mls.KeyPackageOptions{NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})}, 4, 0},
		{"somebody else's", []string{published(t, "bob", mls.KeyPackageOptions{})}, 4, 0},
		{"too large", []string{strings.Repeat("x", keyPackageBytesMax+1)}, 4, 0},
		{"none", nil, 4, -1},
		{"last resort does not count", []string{published(t, "ann", mls.KeyPackageOptions{LastResort: true})}, 4, -1},
		{"a line break makes it opaque", []string{good[:40] + "\n" + good[40:]}, 5, -1},
	}
	for _, row := range rows {
		n, err := w.publish(who("ann"), row.packages...)
		if row.index < 0 {
			if err != nil || n != row.want {
				t.Errorf("%s: %d, %v", row.name, n, err)
			}
			continue
		}
		r, ok := err.(*ds.Refusal)
		if !ok || r.Code != ds.InvalidRequest || !r.HasIndex || r.Index != row.index {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if n, err := w.rotate(who("ann"), "fresh"); err != nil || n != 1 {
		t.Errorf("rotate: %d, %v", n, err)
	}
}

// A package with a key to which nothing can be sealed would stop whoever adds its owner:
// neither door takes it.
func TestUnusableKeysAreNotPublished(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx := context.Background()
		for name, key := range map[string][]byte{"zero": make([]byte, 32), "zero with bit 255": append(make([]byte, 31), 0x80), "one": append([]byte{1}, make([]byte, 31)...)} {
			for place, spoil := range map[string]func(*wire.KeyPackage){
				"init key": func(k *wire.KeyPackage) { k.InitKey = key },
				"leaf key": func(k *wire.KeyPackage) { k.Leaf.EncryptionKey = key },
			} {
				raw := resignedPackage(t, "ann", spoil)
				_, err := w.publish(who("ann"), base64.StdEncoding.EncodeToString(raw))
				if r, ok := err.(*ds.Refusal); !ok || r.Code != ds.InvalidRequest || r.Index != 0 {
					t.Errorf("gateway, %s %s: %v", place, name, err)
				}
				out, err := w.service.PublishKeyPackages(ctx, ds.Caller{Account: "ann"}, Publication{Packages: []Upload{{Body: raw, Metadata: &PackageMetadata{Suite: 1, ExpiresMS: time.Now().Add(time.Hour).UnixMilli()}}}})
				if err != nil || out.Added != 0 || len(out.Problems) != 1 {
					t.Errorf("XRPC, %s %s: %+v, %v", place, name, out, err)
				}
			}
		}
		raw := resignedPackage(t, "ann", func(*wire.KeyPackage) {})
		if n, err := w.publish(who("ann"), base64.StdEncoding.EncodeToString(raw)); err != nil || n != 1 {
			t.Errorf("as it was: %d, %v", n, err)
		}
	})
}

// resignedPackage is a KeyPackage that its owner changed and then signed.
func resignedPackage(t *testing.T, account string, spoil func(*wire.KeyPackage)) []byte {
	t.Helper()
	s, err := suite.Lookup(suite.X25519AES128GCM)
	if err != nil {
		t.Fatal(err)
	}
	private, err := s.GenerateSignatureKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(published(t, account, mls.KeyPackageOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	var m wire.Message
	if err := wire.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	k := m.KeyPackage
	spoil(k)
	if k.Leaf.SignatureKey, err = s.SignaturePublicKey(private); err == nil {
		err = leaf.Sign(s, private, &k.Leaf, nil, 0)
	}
	if err == nil {
		k.Signature, err = s.SignWithLabel(private, "KeyPackageTBS", k.SignedContent())
	}
	if err != nil {
		t.Fatal(err)
	}
	return wire.Marshal(&m)
}

func TestClaimKeyPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url)
		ctx := context.Background()
		var list []string
		for i := range 12 {
			list = append(list, fmt.Sprintf("package %d", i))
		}
		list = append(list, published(t, "ann", mls.KeyPackageOptions{LastResort: true}))
		if _, err := w.publish(who("ann"), list...); err != nil {
			t.Fatal(err)
		}
		claim := func(count int) []ds.KeyPackage {
			t.Helper()
			got, err := w.claimed(count)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := claim(2); len(got) != 2 || string(got[0].Body) != "package 0" || string(got[1].Body) != "package 1" {
			t.Errorf("first claim: %v", got)
		}
		if got := claim(0); len(got) != 0 {
			t.Errorf("a claim of none: %v", got)
		}
		if got := claim(1000); len(got) != keyPackageCountMax {
			t.Errorf("a claim of a thousand: %d", len(got))
		}
		for range 2 {
			if got := claim(3); len(got) != 1 || !got[0].LastResort {
				t.Errorf("from an empty pool: %v", got)
			}
		}
		if got, err := w.service.ClaimKeyPackages(ctx, who("bob"), Claim{Owners: []ds.AccountID{"nobody"}, Count: 1}); err != nil || len(got) != 0 {
			t.Errorf("of an unknown account: %v, %v", got, err)
		}
		// The owner was told once, when the pool was low and empty.
		told, err := w.store.RecordsAfter(context.Background(), ds.AccountLog("ann"), 0, 10, 1<<20)
		if err != nil || len(told) != 1 || told[0].Kind != ds.KeyPackagesLow || !slices.Equal(w.woken(), []ds.AccountID{"ann"}) {
			t.Errorf("told %+v, woken %v, %v", told, w.woken(), err)
		}
		metrics := w.service.metrics
		for name, row := range map[string]struct {
			counter prometheus.Collector
			want    float64
		}{
			"one-time": {metrics.claims.WithLabelValues(claimOneTime), 12}, "last-resort": {metrics.claims.WithLabelValues(claimLastResort), 2},
			"none": {metrics.claims.WithLabelValues(claimNone), 2}, "all last-resort": {metrics.lastResort, 2}, "low": {metrics.low, 1},
		} {
			if n := testmetric.Value(t, row.counter); n != row.want {
				t.Errorf("%s: counted %g", name, n)
			}
		}
		if n := testmetric.Value(t, metrics.available); n != 4 {
			t.Errorf("%g sizes of pools", n)
		}
	})
}

func TestClaimPerDevice(t *testing.T) {
	w := newWorld(t, "sqlite:"+t.TempDir())
	ctx := context.Background()
	for _, device := range []ds.DeviceID{"phone", "laptop", "tablet"} {
		caller := ds.Caller{Account: "ann", Device: device}
		packages := []string{"one of " + string(device)}
		if device == "tablet" {
			packages = []string{published(t, "ann", mls.KeyPackageOptions{LastResort: true})}
		}
		if _, err := w.publish(caller, packages...); err != nil {
			t.Fatal(err)
		}
	}
	for round, want := range []string{"laptop phone tablet", "tablet"} {
		got, err := w.service.ClaimKeyPackages(ctx, who("bob"), Claim{Owners: []ds.AccountID{"ann"}, PerDevice: true})
		if err != nil {
			t.Fatal(err)
		}
		var devices []string
		for _, p := range got {
			devices = append(devices, string(p.Device.ID))
		}
		if strings.Join(devices, " ") != want {
			t.Errorf("round %d: %v, want %s", round, devices, want)
		}
	}
}

// TestClaimRace: callers at once on two nodes never get the same package, and the owner is told
// that its pool is low, and that it is empty, once.
func TestClaimRace(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		nodes := []*world{newWorld(t, url)}
		if strings.HasPrefix(url, "postgres") {
			nodes = append(nodes, newWorld(t, url))
		}
		var list []string
		for i := range 60 {
			list = append(list, fmt.Sprint("package ", i))
		}
		if _, err := nodes[0].publish(who("ann"), list...); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		given := map[string]int{}
		var callers sync.WaitGroup
		for i := range 16 {
			callers.Go(func() {
				for range 5 {
					got, err := nodes[i%len(nodes)].claimed(1)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					for _, p := range got {
						given[string(p.Body)]++
					}
					mu.Unlock()
				}
			})
		}
		callers.Wait()
		for name, n := range given {
			if n > 1 {
				t.Errorf("%s was handed out %d times", name, n)
			}
		}
		if len(given) != 60 {
			t.Errorf("%d of 60 were handed out", len(given))
		}
		told := 0
		for _, w := range nodes {
			told += len(w.woken())
		}
		if told != 2 {
			t.Errorf("the owner was told %d times, want that the pool is low and that it is empty", told)
		}
	})
}

// TestPublishIsBounded: of a list that is longer than a pool only what the pool keeps
// costs the database anything, wherever in the list the one for last stands.
func TestPublishIsBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		var inserts atomic.Int64
		w := openWorld(t, store.Options{URL: url, Hook: store.Watch(func(sql string, done bool) {
			if !done && strings.HasPrefix(sql, "INSERT INTO key_packages") {
				inserts.Add(1)
			}
		})})
		const count, lastAt = 3*keyPackagesMax + 7, 10
		packages := make([]string, count)
		for i := range packages {
			packages[i] = fmt.Sprint("package ", i)
		}
		packages[lastAt-1] = published(t, "ann", mls.KeyPackageOptions{LastResort: true})
		packages[lastAt] = published(t, "ann", mls.KeyPackageOptions{LastResort: true})
		n, err := w.publish(who("ann"), packages...)
		if err != nil || n != keyPackagesMax {
			t.Fatal(n, err)
		}
		if got := inserts.Load(); got != keyPackagesMax+1 {
			t.Errorf("%d rows were written", got)
		}
		claimed, err := w.claimed(1)
		if err != nil || len(claimed) != 1 || string(claimed[0].Body) != fmt.Sprint("package ", count-keyPackagesMax) {
			t.Errorf("the oldest is %v, %v", claimed, err)
		}
		all, err := w.claimed(keyPackageCountMax)
		if err != nil || len(all) != keyPackageCountMax {
			t.Error(len(all), err)
		}
		if _, err := w.rotate(who("ann"), packages[:lastAt+1]...); err != nil {
			t.Fatal(err)
		}
		all, err = w.claimed(keyPackageCountMax)
		if err != nil || len(all) != lastAt-1 {
			t.Error(len(all), err)
		}
		last, err := w.claimed(1)
		if err != nil || len(last) != 1 || base64.StdEncoding.EncodeToString(last[0].Body) != packages[lastAt] {
			t.Error("the one for last is not the newest", err)
		}
	})
}

// TestClaimsAreOne: a fault in the middle of a claim for many devices uses up no package.
func TestClaimsAreOne(t *testing.T) {
	const devices = 150
	server := pgtest.Start(t, pgtest.Options{})
	var left atomic.Int64
	left.Store(1 << 40)
	w := openWorld(t, store.Options{URL: server.Database(t), Hook: store.Watch(func(sql string, done bool) {
		if !done && strings.HasPrefix(sql, "UPDATE key_packages SET claimed_ms") && left.Add(-1) == 0 {
			server.Kill()
		}
	})})
	owners := []ds.AccountID{"o0", "o1", "o2"}
	if err := w.store.Update(t.Context(), func(tx *store.Tx) error {
		for n := range devices {
			ref := fmt.Sprintf("%064x", n)
			d := ds.Device{Account: owners[n%3], ID: ds.DeviceID(fmt.Sprint("d", n))}
			if _, _, err := tx.Packages.Publish([]ds.KeyPackage{{Device: d, Ref: ref, Suite: 1, Body: []byte("p")}}, []string{ref}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	left.Store(140)
	all := Claim{Owners: owners, PerDevice: true, OnlyMLS: true}
	if _, err := w.service.ClaimKeyPackages(t.Context(), who("ann"), all); !ds.IsUnavailable(err) {
		t.Fatalf("with the database away: %v", err)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		found, err := w.service.ClaimKeyPackages(t.Context(), who("ann"), all)
		if err == nil {
			if n := len(found); n != devices {
				t.Errorf("%d packages are left of %d", n, devices)
			}
			return
		}
		if !ds.IsUnavailable(err) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

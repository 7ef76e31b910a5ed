package directory

import (
	"context"
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/internal/testmetric"
	"waxwing.im/waxwing/mls"
)

// TestStoredPackagesAreNotPaidAgain: what is in a pool already costs nothing when it is
// published again.
func TestStoredPackagesAreNotPaidAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		w := newWorld(t, url, func(o *Options) {
			o.Limits = limits.New(limits.Rates{limits.StoredBytes: {Count: 1000, Period: 24 * time.Hour}}, time.Now)
		})
		body := published(t, "ann", mls.KeyPackageOptions{})
		for range 5 {
			if _, err := w.publish(who("ann"), body); err != nil {
				t.Fatalf("%d bytes: %v", len(body), err)
			}
		}
	})
}

// TestRefusedClaimsCountUnderNoLimit: who is refused for the target of a claim has asked
// nothing of others, however it claims.
func TestRefusedClaimsCountUnderNoLimit(t *testing.T) {
	ctx := context.Background()
	for name, claim := range map[string]Claim{"so many": {Count: 1}, "of each device": {PerDevice: true}} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			w := newWorld(t, "sqlite:"+t.TempDir(), func(o *Options) {
				o.Limits = limits.New(limits.Rates{limits.KeyPackageFetches: {Count: 3, Period: time.Hour},
					limits.KeyPackageTargets: {Count: 1, Period: time.Hour}}, func() time.Time { return now })
			})
			for _, owner := range []string{"ann", "cid", "dan"} {
				if _, err := w.publish(who(owner), "one of "+owner, "another of "+owner); err != nil {
					t.Fatal(err)
				}
			}
			for _, step := range []struct {
				owner string
				code  ds.Code
			}{{"ann", ""}, {"ann", ds.RateLimited}, {"ann", ds.RateLimited}, {"cid", ""}, {"dan", ""}, {"eve", ds.RateLimited}} {
				claim.Owners = []ds.AccountID{ds.AccountID(step.owner)}
				got, err := w.service.ClaimKeyPackages(ctx, who("bob"), claim)
				if ds.CodeOf(err) != step.code || err == nil && len(got) != 1 {
					t.Errorf("of %s: %d packages, %v", step.owner, len(got), err)
				}
			}
			if n := testmetric.Value(t, w.service.metrics.claims.WithLabelValues(claimRefused)); n != 3 {
				t.Errorf("%g refused claims are counted", n)
			}
		})
	}
}

// TestClaimsWithoutACallerCount: a caller that goes away during a claim may have used packages
// up, so the claim counts.
func TestClaimsWithoutACallerCount(t *testing.T) {
	now := time.Now()
	var leave func()
	w := openWorld(t, store.Options{URL: "sqlite:" + t.TempDir(), Hook: func(sql string, done bool) error {
		if sql == "COMMIT" && !done && leave != nil {
			leave()
			return errors.New("the connection is gone")
		}
		return nil
	}}, func(o *Options) {
		o.Limits = limits.New(limits.Rates{limits.KeyPackageTargets: {Count: 1, Period: time.Hour}}, func() time.Time { return now })
	})
	if _, err := w.publish(who("ann"), "one", "another"); err != nil {
		t.Fatal(err)
	}
	claim := Claim{Count: 1, Owners: []ds.AccountID{"ann"}}
	ctx, cancel := context.WithCancel(t.Context())
	leave = cancel
	if _, err := w.service.ClaimKeyPackages(ctx, who("bob"), claim); err == nil {
		t.Error("a claim without its caller is answered")
	}
	leave = nil
	if _, err := w.service.ClaimKeyPackages(t.Context(), who("bob"), claim); ds.CodeOf(err) != ds.RateLimited {
		t.Errorf("the next claim: %v, want rate_limited", err)
	}
}

package directory

import (
	"context"
	"encoding/base64"
	"slices"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is a directory over a real store.
type world struct {
	t       testing.TB
	service *Service
	store   *store.DB
	mu      sync.Mutex // guards wakes
	wakes   []ds.AccountID
}

// onBoth runs a test on SQLite and on PostgreSQL.
var onBoth = pgtest.OnBoth

func newWorld(t testing.TB, url string, change ...func(*Options)) *world {
	t.Helper()
	return openWorld(t, store.Options{URL: url}, change...)
}

func openWorld(t testing.TB, at store.Options, change ...func(*Options)) *world {
	t.Helper()
	db, err := store.Open(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &world{t: t, store: db}
	o := Options{Store: db, Now: time.Now, Limits: limits.New(nil, time.Now), Wake: func(account ds.AccountID) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.wakes = append(w.wakes, account)
	}}
	for _, c := range change {
		c(&o)
	}
	w.service = New(o)
	return w
}

// woken returns the accounts whose readers were woken.
func (w *world) woken() []ds.AccountID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.wakes)
}

func who(account string) ds.Caller {
	return ds.Caller{Account: ds.AccountID(account), Device: ds.DeviceID(account + "-phone")}
}

// uploadsOf are strings as a door publishes them.
func uploadsOf(texts []string) []Upload {
	list := make([]Upload, len(texts))
	for i, text := range texts {
		raw, err := base64.StdEncoding.Strict().DecodeString(text)
		if list[i] = (Upload{Body: raw}); err != nil || base64.StdEncoding.EncodeToString(raw) != text || !IsKeyPackage(raw) {
			list[i] = Upload{Body: []byte(text), IsOpaque: true}
		}
	}
	return list
}

// publish publishes strings for a device, and returns the size of its pool.
func (w *world) publish(who ds.Caller, texts ...string) (int64, error) {
	out, err := w.service.PublishKeyPackages(context.Background(), who, Publication{Packages: uploadsOf(texts)})
	if err == nil && len(out.Problems) > 0 {
		return 0, &ds.Refusal{Code: ds.InvalidRequest, Message: out.Problems[0].Text, Index: out.Problems[0].Index, HasIndex: true}
	}
	return out.Available, err
}

// rotate publishes strings in place of what the device's pool holds.
func (w *world) rotate(who ds.Caller, texts ...string) (int64, error) {
	out, err := w.service.PublishKeyPackages(context.Background(), who, Publication{Packages: uploadsOf(texts), Revoke: true})
	return out.Available, err
}

// claimed hands out packages of ann to bob.
func (w *world) claimed(count int) ([]ds.KeyPackage, error) {
	return w.service.ClaimKeyPackages(context.Background(), who("bob"), Claim{Owners: []ds.AccountID{"ann"}, Count: count})
}

package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// TestDeviceConformance holds both databases to the same answers about devices, their
// key packages and their additions.
func TestDeviceConformance(t *testing.T) {
	suite := []struct {
		name string
		test func(*testing.T, *DB)
	}{
		{"devices", testDevices}, {"reset", testResetDevice}, {"delete", testDeleteDevice}, {"account lock", testLockAccount},
		{"additions", testAdditions}, {"claims of additions", testClaimAddition}, {"claim race", testAdditionRace},
		{"pool", testPool}, {"device packages", testClaimFromPool}, {"free packages", testFreePackages}, {"acquainted", testAcquainted},
	}
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			for _, part := range suite {
				t.Run(part.name, func(t *testing.T) { part.test(t, open(t, database)) })
			}
		})
	}
}

var phone = ds.Device{Account: "ann", ID: "phone"}

func registered(id string) Registration {
	return Registration{Device: ds.Device{Account: "ann", ID: ds.DeviceID(id)}, Name: id, UUID: "uuid of " + id, SignatureKey: []byte(id)}
}

// read runs what only reads and cannot fail.
func read[T any](t *testing.T, db *DB, fn func(tx *Tx) (T, error)) (out T) {
	t.Helper()
	if err := db.View(context.Background(), func(tx *Tx) (err error) {
		out, err = fn(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func (db *DB) devices(t *testing.T) []Registration {
	t.Helper()
	return read(t, db, func(tx *Tx) ([]Registration, error) { return tx.Devices.Of("ann") })
}

func testDevices(t *testing.T, db *DB) {
	one, two := registered("one"), registered("two")
	one.PushToken, one.Generation, two.UUID = "token", 1, ""
	db.must(t, func(tx *Tx) error { return tx.Devices.Register(one) })
	pass(time.Second)
	db.must(t, func(tx *Tx) error { return tx.Devices.Register(two) })
	publish(t, db, pack("one", "p1", false), pack("one", "p2", true))
	list := db.devices(t)
	if len(list) != 2 || list[0].Device.ID != "two" || list[0].UUID != "" || list[0].PushToken != "" {
		t.Fatalf("got %+v", list)
	}
	firstMS := list[1].RegisteredMS
	one.RegisteredMS, one.SeenMS, one.KeyPackages = firstMS, firstMS, 1
	same(t, "device", list[1], one)
	pass(time.Second)
	one.Name, one.SignatureKey, one.Generation, one.PushToken = "renamed", []byte("new"), 2, ""
	db.must(t, func(tx *Tx) error { return tx.Devices.Register(one) })
	one.SeenMS += 2000
	same(t, "device after it came again", db.devices(t)[0], one)
	for generation, want := range map[int]int{0: 2, 1: 2, 2: 2} {
		db.must(t, func(tx *Tx) error { return tx.Devices.Touch(one.Device, generation) })
		same(t, "generation", read(t, db, func(tx *Tx) (int, error) { return tx.Devices.RememberedGeneration("ann") }), want)
	}
	same(t, "generation of nobody", read(t, db, func(tx *Tx) (int, error) { return tx.Devices.RememberedGeneration("bob") }), 0)
	db.must(t, func(tx *Tx) error { return tx.Devices.SetPushToken(two.Device, "new token") })
	for _, d := range db.devices(t) {
		same(t, "token of "+d.Name, d.PushToken != "", d.Device == two.Device)
	}
	for id, want := range map[ds.DeviceID]bool{"one": true, "three": false} {
		same(t, "is a device", read(t, db, func(tx *Tx) (bool, error) { return tx.Devices.Has(id) }), want)
	}
	taken := registered("three")
	taken.SignatureKey = two.SignatureKey
	if err := db.Update(context.Background(), func(tx *Tx) error { return tx.Devices.Register(taken) }); err == nil {
		t.Error("two devices of an account with one key")
	}
}

// welcomeFor is a Welcome that waits for a device, made with a key package.
func (db *DB) welcomeFor(t *testing.T, id, device, ref string) {
	t.Helper()
	db.must(t, func(tx *Tx) error {
		_, err := tx.exec(`INSERT INTO welcome_recipients (welcome_id, log_id, account, device, key_package_ref, created_ms) VALUES ($1, 'c/c1', 'ann', $2, $3, 1)`, id, device, ref)
		return err
	})
}

// waiting lists the Welcomes that were not given up.
func (db *DB) waiting(t *testing.T) []string {
	t.Helper()
	return read(t, db, func(tx *Tx) (list []string, err error) {
		err = tx.each(func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			list = append(list, id)
			return err
		}, `SELECT welcome_id FROM welcome_recipients WHERE consumed_ms IS NULL ORDER BY welcome_id`)
		return list, err
	})
}

func testResetDevice(t *testing.T, db *DB) {
	publish(t, db, pack("phone", "a", false), pack("phone", "b", false), pack("phone", "c", true), pack("laptop", "d", false))
	claim(t, db, "phone") // a
	db.welcomeFor(t, "by ref", "", "a")
	db.welcomeFor(t, "by device", "phone", "")
	db.welcomeFor(t, "of what is kept", "phone", "b")
	db.welcomeFor(t, "of the laptop", "laptop", "d")
	db.welcomeFor(t, "of any", "", "")
	free := func() []string {
		return read(t, db, func(tx *Tx) ([]string, error) { return tx.Packages.FreeRefs(phone) })
	}
	db.must(t, func(tx *Tx) error { return tx.Devices.Reset(phone, []string{"b"}, "why") })
	same(t, "left of the phone", free(), []string{"b"})
	same(t, "waiting", db.waiting(t), []string{"of any", "of the laptop", "of what is kept"})
	db.must(t, func(tx *Tx) error { return tx.Devices.Reset(phone, nil, "why") })
	same(t, "left of the phone", free(), []string(nil))
	same(t, "waiting", db.waiting(t), []string{"of any", "of the laptop"})
	reasons := read(t, db, func(tx *Tx) (n int64, err error) {
		err = tx.row(`SELECT COUNT(*) FROM welcome_recipients WHERE reason = 'why' AND consumed_ms IS NOT NULL`).Scan(&n)
		return n, err
	})
	same(t, "reasons", reasons, int64(3))
	same(t, "the laptop's", len(read(t, db, func(tx *Tx) ([]string, error) { return tx.Packages.FreeRefs(ds.Device{Account: "ann", ID: "laptop"}) })), 1)
}

func testDeleteDevice(t *testing.T, db *DB) {
	db.conversation(t, "c1", "ann", "bob")
	db.must(t, func(tx *Tx) error { return tx.Devices.Register(registered("phone")) })
	db.must(t, func(tx *Tx) error {
		_, err := tx.Devices.OpenAdditions(phone, []ds.ConversationID{"c1"}, []string{"a1"})
		return err
	})
	publish(t, db, pack("phone", "a", false), pack("phone", "b", false), pack("laptop", "d", false))
	claim(t, db, "phone")
	db.welcomeFor(t, "w1", "phone", "a")
	db.welcomeFor(t, "w2", "", "a")
	remove := func() (isDeleted bool, packages int64) {
		db.must(t, func(tx *Tx) (err error) {
			isDeleted, packages, err = tx.Devices.Delete(phone, "gone")
			return err
		})
		return isDeleted, packages
	}
	isDeleted, packages := remove()
	same(t, "deleted", isDeleted, true)
	same(t, "packages", packages, int64(1))
	same(t, "waiting", db.waiting(t), []string(nil))
	for table, want := range map[string]int64{"devices": 0, "additions": 0, "key_packages": 0, "welcome_recipients": 0} {
		n := read(t, db, func(tx *Tx) (n int64, err error) {
			err = tx.row(`SELECT COUNT(*) FROM ` + table + ` WHERE device = 'phone'`).Scan(&n)
			return n, err
		})
		same(t, "rows in "+table, n, want)
	}
	publish(t, db, pack("phone", "a", false)) // was handed out
	same(t, "came back", len(read(t, db, func(tx *Tx) ([]string, error) { return tx.Packages.FreeRefs(phone) })), 0)
	isDeleted, _ = remove()
	same(t, "deleted again", isDeleted, false)
}

func testLockAccount(t *testing.T, db *DB) {
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if err := db.Update(context.Background(), func(tx *Tx) error {
				if err := tx.Devices.LockAccount("ann"); err != nil {
					return err
				}
				list, err := tx.Devices.Of("ann")
				if err != nil || len(list) == 3 {
					return err
				}
				return tx.Devices.Register(registered(fmt.Sprint("device ", i)))
			}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	same(t, "devices", len(db.devices(t)), 3)
}

// conversation makes a conversation with members.
func (db *DB) conversation(t *testing.T, id string, members ...ds.AccountID) {
	t.Helper()
	b := Batch{Created: []ds.Conversation{head(id)}}
	for _, account := range members {
		b.Stays = append(b.Stays, Stay{Conversation: ds.ConversationID(id), Account: account, Interval: ds.Interval{From: 1, Role: ds.Plain}})
	}
	db.write(t, b)
}

func (db *DB) opened(t *testing.T, device ds.Device, ids []string, conversations ...ds.ConversationID) (fresh []string) {
	t.Helper()
	db.must(t, func(tx *Tx) error {
		fresh = nil
		list, err := tx.Devices.OpenAdditions(device, conversations, ids)
		for _, a := range list {
			fresh = append(fresh, a.ID+" in "+string(a.Conversation))
		}
		slices.Sort(fresh)
		return err
	})
	return fresh
}

func testAdditions(t *testing.T, db *DB) {
	db.conversation(t, "c1", "ann", "bob", "dan")
	db.conversation(t, "c2", "ann", "bob")
	db.conversation(t, "c3", "ann", "carl")
	db.must(t, func(tx *Tx) error { return tx.Devices.Register(registered("phone")) })
	same(t, "of none", db.opened(t, phone, nil), []string(nil))
	same(t, "opened", db.opened(t, phone, []string{"a1", "a2"}, "c1", "c2"), []string{"a1 in c1", "a2 in c2"})
	same(t, "not told yet", db.opened(t, phone, []string{"x1", "x2"}, "c1", "c2"), []string{"a1 in c1", "a2 in c2"})
	db.must(t, func(tx *Tx) error { return tx.Devices.NoteAdditions([]string{"a1", "a2"}) })
	pass(time.Second)
	same(t, "told", db.opened(t, phone, []string{"x1", "x2", "a3"}, "c1", "c2", "c3"), []string{"a3 in c3"})
	pending := func(account ds.AccountID, conversations []ds.ConversationID, max int) (ids []string) {
		for _, a := range read(t, db, func(tx *Tx) ([]Addition, error) { return tx.Devices.PendingAdditions(account, conversations, 0, max) }) {
			ids = append(ids, a.ID)
		}
		return ids
	}
	same(t, "bob's", pending("bob", nil, 10), []string{"a1", "a2"})
	same(t, "bob's first", pending("bob", nil, 1), []string{"a1"})
	same(t, "bob's in c2", pending("bob", []ds.ConversationID{"c2", "c3"}, 10), []string{"a2"})
	same(t, "bob's in none", pending("bob", []ds.ConversationID{}, 10), []string(nil))
	same(t, "carl's", pending("carl", nil, 10), []string{"a3"})
	same(t, "ann's own", pending("ann", nil, 10), []string(nil))
	same(t, "a stranger's", pending("eve", nil, 10), []string(nil))
	got := read(t, db, func(tx *Tx) (Addition, error) { return tx.Devices.Addition("dan", "a1", 0) })
	got.CreatedMS = 0
	same(t, "addition", got, Addition{ID: "a1", Conversation: "c1", Device: phone, DeviceName: "phone", Status: AdditionPending})
	db.write(t, Batch{Stays: []Stay{{Conversation: "c1", Account: "ann", Interval: ds.Interval{From: 1, Until: 2, Role: ds.Plain}}}})
	same(t, "where ann has left", pending("bob", nil, 10), []string{"a2"})
	for account, id := range map[ds.AccountID]string{"dan": "a1", "eve": "a2", "bob": "none"} {
		if err := db.View(context.Background(), func(tx *Tx) error { _, err := tx.Devices.Addition(account, id, 0); return err }); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s sees %s: %v", account, id, err)
		}
	}
}

func testClaimAddition(t *testing.T, db *DB) {
	db.conversation(t, "c1", "ann", "bob", "dan")
	publish(t, db, pack("phone", "p1", false), pack("phone", "p2", false), pack("laptop", "p3", false))
	db.opened(t, phone, []string{"a1"}, "c1")
	db.must(t, func(tx *Tx) error { return tx.Devices.NoteAdditions([]string{"a1"}) })
	claimAs := func(account ds.AccountID, ranOutMS int64) string {
		var got string
		err := db.Update(context.Background(), func(tx *Tx) error {
			had, err := tx.Devices.ClaimAddition("a1", account, ranOutMS)
			if err != nil {
				return err
			}
			list, err := tx.Packages.ForClaimant("a1", had, phone, account)
			got = ""
			for _, p := range list {
				got += p.Ref
			}
			return err
		})
		if errors.Is(err, ErrNotFound) {
			return "not found"
		}
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	complete := func(account ds.AccountID) (isDone bool) {
		db.must(t, func(tx *Tx) (err error) {
			isDone, err = tx.Devices.CompleteAddition("a1", account)
			return err
		})
		return isDone
	}
	same(t, "completed before", complete("bob"), false)
	same(t, "claimed", claimAs("bob", 0), "p1")
	same(t, "claimed again", claimAs("bob", 0), "p1")
	same(t, "claimed by another", claimAs("dan", 0), "not found")
	same(t, "completed by another", complete("dan"), false)
	same(t, "claimed after it ran out", claimAs("dan", 1<<60), "p2")
	same(t, "claimed with none left", claimAs("bob", 1<<60), "")
	a := read(t, db, func(tx *Tx) (Addition, error) { return tx.Devices.Addition("dan", "a1", 0) })
	same(t, "state", a.Status+" "+string(a.ClaimedBy), "in_progress bob")
	a = read(t, db, func(tx *Tx) (Addition, error) { return tx.Devices.Addition("dan", "a1", 1<<60) })
	same(t, "state of a claim that ran out", a.Status+" "+string(a.ClaimedBy), "pending ")
	same(t, "opened again", db.opened(t, phone, []string{"x"}, "c1"), []string{"a1 in c1"})
	same(t, "completed after it was opened again", complete("bob"), false)
	claimAs("bob", 0)
	same(t, "completed", complete("bob"), true)
	same(t, "completed again", complete("bob"), true)
	same(t, "claimed when completed", claimAs("bob", 1<<60), "not found")
	same(t, "opened when completed", db.opened(t, phone, []string{"x"}, "c1"), []string(nil))
}

func testAdditionRace(t *testing.T, db *DB) {
	db.opened(t, phone, []string{"a1"}, "c1")
	var mu sync.Mutex
	claimed := 0
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			err := db.Update(context.Background(), func(tx *Tx) error {
				_, err := tx.Devices.ClaimAddition("a1", ds.AccountID(fmt.Sprint("claimant ", i)), 0)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				claimed++
			} else if !errors.Is(err, ErrNotFound) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	same(t, "claimed", claimed, 1)
}

func testPool(t *testing.T, db *DB) {
	other, last := pack("laptop", "d", false), pack("phone", "c", true)
	other.Suite = 2
	publish(t, db, pack("phone", "a", false), pack("phone", "b", false), last, other)
	claim(t, db, "phone")
	db.must(t, func(tx *Tx) error { return tx.Devices.Register(registered("empty")) })
	counts := func(device ds.DeviceID, suite int64) PoolCounts {
		return read(t, db, func(tx *Tx) (PoolCounts, error) { return tx.Packages.PoolCounts("ann", device, suite) })
	}
	same(t, "all", counts("", 0), PoolCounts{Published: 4, Available: 2, Claimed: 1})
	same(t, "phone", counts("phone", 0), PoolCounts{Published: 3, Available: 1, Claimed: 1})
	same(t, "suite 2", counts("", 2), PoolCounts{Published: 1, Available: 1})
	same(t, "devices", read(t, db, func(tx *Tx) ([]PoolDevice, error) { return tx.Packages.PoolDevices("ann", 0, 10) }),
		[]PoolDevice{{"empty", 0}, {"laptop", 1}, {"phone", 1}})
	same(t, "devices of a suite", read(t, db, func(tx *Tx) ([]PoolDevice, error) { return tx.Packages.PoolDevices("ann", 1, 10) }),
		[]PoolDevice{{"empty", 0}, {"laptop", 0}, {"phone", 1}})
	pools := func(suite int64, onlyMLS bool, max int) []Pool {
		return read(t, db, func(tx *Tx) ([]Pool, error) {
			return tx.Packages.DevicePools([]ds.AccountID{"bob", "ann"}, suite, onlyMLS, max)
		})
	}
	db.must(t, func(tx *Tx) error {
		return publishIn(tx, []ds.KeyPackage{{Device: ds.Device{Account: "bob", ID: "desk"}, Body: []byte("x"), Encoding: ds.Text}}, []string{"opaque"})
	})
	same(t, "pools", pools(0, true, 10), []Pool{{"ann", "laptop", 0, true}, {"ann", "phone", 0, true}})
	same(t, "one pool of each", pools(0, false, 1), []Pool{{"ann", "laptop", 0, false}, {"bob", "desk", 0, false}})
	same(t, "pools of a suite", pools(1, true, 10), []Pool{{"ann", "phone", 1, true}})
	page := func(beforeMS int64, after string, max int) (ids []string) {
		for _, p := range read(t, db, func(tx *Tx) ([]PublishedPackage, error) {
			return tx.Packages.Published("ann", 0, beforeMS, after, max)
		}) {
			ids = append(ids, fmt.Sprint(p.ID, p.ClaimedMS != 0, p.ClaimedBy, p.IsExpired))
		}
		return ids
	}
	same(t, "packages", page(1<<60, "", 3), []string{"annatruebobfalse", "annbfalsefalse", "anncfalsefalse"})
	ms := read(t, db, func(tx *Tx) (int64, error) {
		list, err := tx.Packages.Published("ann", 0, 1<<60, "", 1)
		return list[0].PublishedMS, err
	})
	same(t, "next page", page(ms, "annc", 3), []string{"anndfalsefalse"})
}

func testClaimFromPool(t *testing.T, db *DB) {
	opaque := pack("phone", "", false)
	second, other, last := pack("phone", "b", false), pack("phone", "c", false), pack("phone", "d", true)
	other.Suite = 2
	db.must(t, func(tx *Tx) error { return publishIn(tx, []ds.KeyPackage{opaque}, []string{"opaque"}) })
	publish(t, db, pack("phone", "a", false), second, other, last, pack("laptop", "e", false))
	take := func(suite int64) (ref string) {
		err := db.Update(context.Background(), func(tx *Tx) error {
			p, err := tx.Packages.Claim(Pool{phone.Account, phone.ID, suite, true}, "bob")
			ref = p.Ref
			return err
		})
		if errors.Is(err, ErrNotFound) {
			return "none"
		}
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	for i, row := range []struct {
		suite int64
		want  string
	}{{1, "a"}, {0, "b"}, {1, "d"}, {2, "c"}, {2, "none"}, {0, "d"}, {0, "d"}} {
		same(t, fmt.Sprint("claim ", i), take(row.suite), row.want)
	}
	newer := pack("phone", "f", true)
	newer.Suite = 2
	publish(t, db, newer)
	db.must(t, func(tx *Tx) error { return tx.Packages.Trim(phone, 1000) })
	same(t, "last resort of each suite", take(1)+take(2), "df")
}

func testFreePackages(t *testing.T, db *DB) {
	publish(t, db, pack("phone", "a", false), pack("phone", "b", false), pack("phone", "c", true), pack("laptop", "d", false))
	claim(t, db, "phone")
	db.welcomeFor(t, "w1", "", "c")
	db.welcomeFor(t, "w2", "", "b")
	remove := func(refs ...string) (n int64) {
		db.must(t, func(tx *Tx) (err error) {
			n, err = tx.Packages.DeleteFree(phone, refs, "why")
			return err
		})
		return n
	}
	same(t, "free", read(t, db, func(tx *Tx) ([]string, error) { return tx.Packages.FreeRefs(phone) }), []string{"b", "c"})
	same(t, "none", remove(), int64(0))
	same(t, "deleted", remove("a", "c", "d", "unknown"), int64(1))
	same(t, "left", read(t, db, func(tx *Tx) ([]string, error) { return tx.Packages.FreeRefs(phone) }), []string{"b"})
	same(t, "waiting", db.waiting(t), []string{"w2"})
}

func testAcquainted(t *testing.T, db *DB) {
	db.conversation(t, "c1", "ann", "bob")
	db.conversation(t, "c2", "ann", "carl", "bob")
	db.conversation(t, "c3", "dan", "eve")
	known := func(targets []ds.AccountID, id ds.ConversationID, max int) []ds.AccountID {
		return read(t, db, func(tx *Tx) ([]ds.AccountID, error) { return tx.Conversations.Acquainted("ann", targets, id, max) })
	}
	same(t, "itself", known(nil, "", 9), []ds.AccountID{"ann"})
	same(t, "in c1", known(nil, "c1", 9), []ds.AccountID{"bob"})
	same(t, "in c2, one", known(nil, "c2", 1), []ds.AccountID{"bob"})
	same(t, "in c3", known(nil, "c3", 9), []ds.AccountID(nil))
	same(t, "of some", known([]ds.AccountID{"dan", "carl", "bob"}, "", 9), []ds.AccountID{"bob", "carl"})
	same(t, "of some in c1", known([]ds.AccountID{"carl", "bob"}, "c1", 9), []ds.AccountID{"bob"})
}

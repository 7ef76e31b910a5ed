package logs_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // for database/sql

	"waxwing.im/waxwing/internal/core"
	"waxwing.im/waxwing/internal/directory"
	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
	"waxwing.im/waxwing/mls/wire"
)

// world is a running service over a real store, and a small language to speak to it.
type world struct {
	t       testing.TB
	service *core.Service
	store   *store.DB

	logs      *logs.Engine
	directory *directory.Service
}

// setup holds what tests change in a world.
type setup struct {
	core.Options
	flushers     int
	pollInterval time.Duration
}

// onBoth runs a test on SQLite and on PostgreSQL.
var onBoth = pgtest.OnBoth

func newWorld(t testing.TB, url string, change ...func(*setup)) *world {
	t.Helper()
	return openWorld(t, store.Options{URL: url}, change...)
}

func openWorld(t testing.TB, at store.Options, change ...func(*setup)) *world {
	t.Helper()
	db, err := store.Open(context.Background(), at)
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, db, change...)
	t.Cleanup(w.close)
	return w
}

// startWorld runs a service over an open store.
func startWorld(t testing.TB, db *store.DB, change ...func(*setup)) *world {
	o := setup{Options: core.Options{Limits: limits.New(nil, time.Now), Now: time.Now}, pollInterval: 50 * time.Millisecond}
	for _, c := range change {
		c(&o)
	}
	w := &world{t: t, store: db}
	w.logs = logs.New(logs.Options{Store: db, Now: o.Now, Flushers: o.flushers, PollInterval: o.pollInterval})
	w.directory = directory.New(directory.Options{Store: db, Now: o.Now, Limits: o.Limits, OnlyMLS: false, Wake: w.logs.WakeAccount})
	o.Store, o.Logs, o.Directory = db, w.logs, w.directory
	w.service = core.New(o.Options)
	return w
}

// stop ends the service, and leaves the store open.
func (w *world) stop() error {
	w.service.Close()
	return w.logs.Close()
}

func (w *world) close() {
	if err := w.stop(); err != nil {
		w.t.Error(err)
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
}

func who(account string) ds.Caller {
	return ds.Caller{Account: ds.AccountID(account), Device: ds.DeviceID(account + "-phone")}
}

func (w *world) room(id string, members ...string) {
	w.t.Helper()
	var others []ds.AccountID
	for _, m := range members[1:] {
		others = append(others, ds.AccountID(m))
	}
	if err := w.apply(who(members[0]), core.Create{ConversationID: ds.ConversationID(id), Accounts: others}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) send(account, id, message, text string) (ds.Record, error) {
	return w.record(who(account), core.Send{ConversationID: ds.ConversationID(id), ID: ds.MessageID(message), Body: []byte(text)})
}

// read follows a conversation from a seq until it has caught up or been ended.
func (w *world) read(account, id string, fromSeq int64) ([]ds.Record, *ds.Refusal) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f := w.logs.NewFollower(who(account))
	defer f.Close()
	if err := followFrom(ctx, f, ds.ConversationID(id), fromSeq); err != nil {
		w.t.Fatal(err)
	}
	var list []ds.Record
	for {
		page, err := f.Next(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, page.Records...)
		if page.CaughtUp || page.Ended != nil {
			return list, page.Ended
		}
	}
}

func seqs(list []ds.Record) string {
	var b strings.Builder
	for _, r := range list {
		if r.Seq > 0 {
			fmt.Fprintf(&b, "%d:%s ", r.Seq, r.Kind)
		}
	}
	return strings.TrimSpace(b.String())
}

// mlsMessage is a PrivateMessage that shows group, epoch and content type.
func mlsMessage(group string, epoch uint64, content wire.ContentType) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.PrivateMessageFormat, Private: &wire.PrivateMessage{
		GroupID: []byte(group), Epoch: epoch, ContentType: content, EncryptedSenderData: []byte("s"), Ciphertext: []byte("c")}})
}

func commit(group string, epoch uint64) []byte { return mlsMessage(group, epoch, wire.CommitContent) }

func (w *world) sendMLS(account, id, message string, body []byte) (ds.Record, error) {
	return w.record(who(account), core.Send{ConversationID: ds.ConversationID(id), ID: ds.MessageID(message), Body: body, Encoding: ds.Base64})
}

func (w *world) bundle(account string, b core.Bundle) (ds.Record, error) {
	b.Encoding = ds.Base64
	return w.record(who(account), b)
}

func TestMain(m *testing.M) { pgtest.Main(m) }

// publish publishes opaque key packages for a device.
func (w *world) publish(who ds.Caller, texts ...string) error {
	var list []directory.Upload
	for _, text := range texts {
		list = append(list, directory.Upload{Body: []byte(text), IsOpaque: true})
	}
	_, err := w.directory.PublishKeyPackages(context.Background(), who, directory.Publication{Packages: list})
	return err
}

// claimed hands out a key package of ann to bob.
func (w *world) claimed() ([]ds.KeyPackage, error) {
	return w.directory.ClaimKeyPackages(context.Background(), who("bob"), directory.Claim{Owners: []ds.AccountID{"ann"}, Count: 1})
}

// apply applies an operation whose result does not matter.
func (w *world) apply(who ds.Caller, op core.Op) error {
	_, err := w.service.Apply(context.Background(), who, op)
	return err
}

// record applies an operation and returns its record.
func (w *world) record(who ds.Caller, op core.Op) (ds.Record, error) {
	result, err := w.service.Apply(context.Background(), who, op)
	return result.Record, err
}

// ruleFunc is a rule of a test's own.
type ruleFunc func(c *logs.Conversation, now time.Time) error

func (f ruleFunc) Decide(c *logs.Conversation, now time.Time) error { return f(c, now) }

func (f ruleFunc) Ended(error) {}

// followFrom follows a conversation, or with "" the account log, from a seq or with 0 from
// the stored cursor.
func followFrom(ctx context.Context, f *logs.Follower, id ds.ConversationID, seq int64) error {
	_, err := f.Follow(ctx, logs.Start{Conversation: id, From: logs.FromSeq(seq)})
	return err
}

// databaseOf is the database of a store's URL, or a file beside it, for database/sql.
func databaseOf(url, file string) (driver, name string) {
	if dir, ok := strings.CutPrefix(url, "sqlite:"); ok {
		return "sqlite", "file:" + filepath.Join(dir, file) + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_txlock=immediate"
	}
	return "pgx", url
}

// checkChain checks every hash of a conversation's log, and that of its head.
func (w *world) checkChain(id ds.ConversationID) {
	w.t.Helper()
	records, err := w.store.RecordsAfter(context.Background(), ds.ConversationLog(id), 0, 1000, 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	var last []byte
	for i := range records {
		if last = logs.ChainHash(last, &records[i]); !bytes.Equal(last, records[i].Hash) {
			w.t.Errorf("%s: record %d breaks the chain", id, records[i].Pos)
		}
	}
	if err := w.store.View(context.Background(), func(tx *store.Tx) error {
		head, err := tx.Logs.Head(id)
		if err == nil && (head.Pos != int64(len(records)) || !bytes.Equal(head.Hash, last)) {
			w.t.Errorf("%s: the head is not that of the last of %d records", id, len(records))
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

func reasonOf(err error) ds.Reason {
	if r, ok := err.(*ds.Refusal); ok {
		return r.Reason
	}
	return ""
}

// welcome is a Welcome for the given KeyPackageRefs.
func welcome(refs ...string) []byte {
	w := &wire.Welcome{CipherSuite: 1, EncryptedGroupInfo: []byte("x")}
	for _, ref := range refs {
		raw, err := hex.DecodeString(ref)
		if err != nil {
			panic(err)
		}
		w.Secrets = append(w.Secrets, wire.EncryptedGroupSecrets{NewMember: raw, Secrets: wire.HPKECiphertext{KEMOutput: []byte("k"), Ciphertext: []byte("c")}})
	}
	return wire.Marshal(&wire.Message{WireFormat: wire.WelcomeFormat, Welcome: w})
}

func recipient(account, ref string) core.Recipient {
	return core.Recipient{Device: who(account).AsDevice(), KeyPackageRef: ref}
}

func groupInfo(group string, epoch uint64) []byte {
	return wire.Marshal(&wire.Message{WireFormat: wire.GroupInfoFormat, GroupInfo: &wire.GroupInfo{
		Context: wire.GroupContext{Version: wire.MLS10, CipherSuite: 1, GroupID: []byte(group), Epoch: epoch}}})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

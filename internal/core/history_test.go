package core

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"

	"waxwing.im/waxwing/internal/ds"
)

// appender is what a history is made of: the service, or something broken on purpose.
type appender interface {
	// append answers the place of a message, under which it stood already or stands now.
	append(ctx context.Context, conversation, id string) (int64, error)
	// read is the conversation from the beginning: the ids of its messages in order.
	read(ctx context.Context, conversation string) ([]string, error)
}

// nodeAppender is a node of the service.
type nodeAppender struct{ *world }

func (n nodeAppender) append(ctx context.Context, conversation, id string) (int64, error) {
	r, err := n.record(who("ann"), Send{ConversationID: ds.ConversationID(conversation), ID: ds.MessageID(id), Body: []byte(id)})
	return r.Seq, err
}

func (n nodeAppender) read(ctx context.Context, conversation string) ([]string, error) {
	f := n.logs.NewFollower(who("bob"))
	defer f.Close()
	if err := followFrom(ctx, f, ds.ConversationID(conversation), 1); err != nil {
		return nil, err
	}
	var ids []string
	for {
		page, err := f.Next(ctx)
		if err != nil || page.Ended != nil {
			return nil, fmt.Errorf("reading %s: %w, %v", conversation, err, page.Ended)
		}
		for _, r := range page.Records {
			if r.Seq == 0 {
				continue
			}
			if ids = append(ids, string(r.MessageID)); r.Seq != int64(len(ids)) {
				return nil, fmt.Errorf("reading %s: seq %d stands where %d should", conversation, r.Seq, len(ids))
			}
		}
		if page.CaughtUp {
			return ids, nil
		}
	}
}

// The operations of a history. A read has no id; an append has one and is answered
// with a seq.
type (
	historyInput  struct{ conversation, id string }
	historyOutput struct {
		seq    int64
		length int
		hash   uint64 // of the ids read
	}
)

// historyState is a conversation: its messages in order, with a hash for each
// length, so that states are compared in one step.
type historyState struct {
	ids  []string
	hash uint64
}

func (s historyState) with(id string) historyState {
	return historyState{append(slices.Clip(s.ids), id), hashNext(s.hash, id)}
}

// hashNext is FNV-1a over ids, each with its end.
func hashNext(hash uint64, id string) uint64 {
	for i := range len(id) {
		hash = (hash ^ uint64(id[i])) * 1099511628211
	}
	return (hash ^ 0xff) * 1099511628211
}

// logModel is what a conversation promises (I2, I6): an append adds its message at
// the end, or finds it where it is; a read sees everything that was answered before
// it began, in the one order that there is.
var logModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := map[string][]porcupine.Operation{}
		for _, o := range history {
			c := o.Input.(historyInput).conversation
			parts[c] = append(parts[c], o)
		}
		var list [][]porcupine.Operation
		for _, part := range parts {
			list = append(list, sharpen(part))
		}
		return list
	},
	Init: func() any { return historyState{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(historyState), input.(historyInput), output.(historyOutput)
		if in.id == "" {
			return out.length == len(s.ids) && out.hash == s.hash, s
		}
		switch n := int64(len(s.ids)); {
		case out.seq >= 1 && out.seq <= n:
			return s.ids[out.seq-1] == in.id, s
		case out.seq != n+1 || slices.Contains(s.ids, in.id):
			return false, s
		}
		return true, s.with(in.id)
	},
	Equal: func(a, b any) bool {
		x, y := a.(historyState), b.(historyState)
		return len(x.ids) == len(y.ids) && x.hash == y.hash
	},
}

// historyLoad is the shape of a history.
type historyLoad struct {
	writers, readers, conversations int
	perWriter                       int // appends of each
	doubles                         int // one in so many appends repeats an id that somebody sends or has sent
}

// historyCheckMax bounds the search for an order; running out of it is a failure.
const historyCheckMax = 20 * time.Second

// sharpen moves the calls of one conversation to where they can first have taken
// effect: no message got its place before the one in front of it, nor before a read
// began that did not see it. There is an order for the one if and only if there is
// one for the other; without this the search would try every subset of the doubles
// each time that it put a message before a read and not behind it.
func sharpen(history []porcupine.Operation) []porcupine.Operation {
	var first []int64 // at seq i: when the first answer of that place was called, and then the earliest it can have been
	grow := func(seq int64) {
		for int64(len(first)) <= seq {
			first = append(first, math.MaxInt64)
		}
	}
	for _, o := range history {
		if seq := o.Output.(historyOutput).seq; seq > 0 && seq <= int64(len(history)) {
			grow(seq)
			first[seq] = min(first[seq], 2*o.Call)
		}
	}
	missed := make([]int64, len(first)+1) // at seq i: the latest call of a read that ended before it
	for _, o := range history {
		if out := o.Output.(historyOutput); out.seq == 0 && out.length+1 < len(missed) {
			missed[out.length+1] = max(missed[out.length+1], 2*o.Call+1)
		}
	}
	for i := 1; i < len(first); i++ {
		if first[i] == math.MaxInt64 {
			first[i] = 0 // nobody was told this place; the check will say so
		}
		missed[i] = max(missed[i], missed[i-1])
		if first[i] = max(first[i], missed[i]); i > 1 {
			first[i] = max(first[i], first[i-1])
		}
	}
	sharp := slices.Clone(history)
	for i := range sharp {
		o := &sharp[i]
		o.Call, o.Return = 2*o.Call, 2*o.Return
		if seq := o.Output.(historyOutput).seq; seq > 0 && seq < int64(len(first)) {
			o.Call = min(max(o.Call, first[seq]), o.Return)
		}
	}
	return sharp
}

// record runs the load, each client on one of the nodes, and returns what happened.
func (l historyLoad) record(t *testing.T, nodes []appender) []porcupine.Operation {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var (
		mu      sync.Mutex // guards history and recent
		history []porcupine.Operation
		recent  []historyInput
		writing sync.WaitGroup
		reading sync.WaitGroup
		ended   atomic.Bool
		began   = time.Now()
	)
	note := func(client int, in historyInput, call time.Duration, out historyOutput) {
		mu.Lock()
		defer mu.Unlock()
		history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: int64(call), Output: out, Return: int64(time.Since(began))})
	}
	for writer := range l.writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(writer)))
			for n := range l.perWriter {
				in := historyInput{fmt.Sprintf("c%d", random.IntN(l.conversations)), fmt.Sprintf("w%d-%d", writer, n)}
				mu.Lock()
				if len(recent) > 0 && random.IntN(l.doubles) == 0 {
					in = recent[len(recent)-1-random.IntN(min(len(recent), 16))]
				}
				recent = append(recent, in)
				mu.Unlock()
				call := time.Since(began)
				seq, err := nodes[random.IntN(len(nodes))].append(ctx, in.conversation, in.id)
				for ds.IsUnavailable(err) && ctx.Err() == nil { // on a busy machine; the same id is the same message
					seq, err = nodes[random.IntN(len(nodes))].append(ctx, in.conversation, in.id)
				}
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				note(writer, in, call, historyOutput{seq: seq})
			}
		})
	}
	for reader := range l.readers {
		reading.Go(func() {
			random := rand.New(rand.NewPCG(2, uint64(reader)))
			for !ended.Load() {
				in := historyInput{conversation: fmt.Sprintf("c%d", random.IntN(l.conversations))}
				call := time.Since(began)
				ids, err := nodes[random.IntN(len(nodes))].read(ctx, in.conversation)
				if err != nil {
					t.Errorf("read: %v", err)
					return
				}
				out := historyOutput{length: len(ids)}
				for _, id := range ids {
					out.hash = hashNext(out.hash, id)
				}
				note(l.writers+reader, in, call, out)
				time.Sleep(time.Duration(random.IntN(5)) * time.Millisecond)
			}
		})
	}
	writing.Wait()
	ended.Store(true)
	reading.Wait()
	return history
}

// TestHistories: 64 writers with doubles and concurrent readers; what each of them
// was told can have happened one after the other, in every conversation.
func TestHistories(t *testing.T) {
	loads := map[string]historyLoad{
		"one conversation":    {writers: 64, readers: 4, conversations: 1, perWriter: 16, doubles: 8},
		"1000 conversations":  {writers: 64, readers: 8, conversations: 1000, perWriter: 32, doubles: 4},
		"a few conversations": {writers: 64, readers: 8, conversations: 8, perWriter: 16, doubles: 8},
	}
	for name, load := range loads {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, url string) {
				w := newWorld(t, url)
				nodes := []appender{nodeAppender{w}}
				if w.store.IsShared() { // two nodes are one service
					nodes = append(nodes, nodeAppender{newWorld(t, url)})
				}
				var creating sync.WaitGroup
				for i := range 16 {
					creating.Go(func() {
						for c := i; c < load.conversations; c += 16 {
							if err := w.apply(who("ann"), Create{ConversationID: ds.ConversationID(fmt.Sprintf("c%d", c)), Accounts: []ds.AccountID{"bob"}}); err != nil {
								t.Error(err)
							}
						}
					})
				}
				creating.Wait()
				history := load.record(t, nodes)
				began := time.Now()
				if result := porcupine.CheckOperationsTimeout(logModel, history, historyCheckMax); result != porcupine.Ok {
					t.Errorf("%d operations: %s", len(history), result)
				}
				t.Logf("%d operations, checked in %s", len(history), time.Since(began).Round(time.Millisecond))
			})
		})
	}
}

// broken is an appender with one of three mistakes, on tables of its own that do not
// stop it. Its nodes have separate memories and one database.
type broken struct {
	db       *sql.DB
	postgres bool
	mistake  string

	mu   sync.Mutex // guards seen
	seen map[string]int64
}

// The mistakes.
const (
	byMaximum = "MAX(seq)+1"
	unlocked  = "no lock"
	byMemory  = "dedupe by memory"
)

func newBroken(t *testing.T, url, mistake string, conversations int) []appender {
	t.Helper()
	driver, name := databaseOf(url, "broken.db")
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(8)
	for _, statement := range []string{`CREATE TABLE heads (conversation TEXT PRIMARY KEY, seq BIGINT)`, `CREATE TABLE messages (conversation TEXT, seq BIGINT, id TEXT)`} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	for i := range conversations {
		if _, err := db.Exec(`INSERT INTO heads VALUES ($1, 0)`, fmt.Sprintf("c%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	var nodes []appender
	for range 2 {
		nodes = append(nodes, &broken{db: db, postgres: driver == "pgx", mistake: mistake, seen: map[string]int64{}})
	}
	return nodes
}

// databaseOf is the database of a store's URL, or a file beside it, for database/sql.
func databaseOf(url, file string) (driver, name string) {
	if dir, ok := strings.CutPrefix(url, "sqlite:"); ok {
		return "sqlite", "file:" + filepath.Join(dir, file) + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_txlock=immediate"
	}
	return "pgx", url
}

func (b *broken) append(ctx context.Context, conversation, id string) (int64, error) {
	switch b.mistake {
	case byMaximum:
		return b.appendAt(ctx, b.db, `SELECT COALESCE(MAX(seq), 0) FROM messages WHERE conversation = $1`, conversation, id)
	case unlocked:
		return b.appendAt(ctx, b.db, `SELECT seq FROM heads WHERE conversation = $1`, conversation, id)
	}
	// This one locks: by BEGIN IMMEDIATE or FOR UPDATE.
	b.mu.Lock()
	defer b.mu.Unlock()
	if seq := b.seen[id]; seq != 0 {
		return seq, nil
	}
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	head := `SELECT seq FROM heads WHERE conversation = $1`
	if b.postgres {
		head += ` FOR UPDATE`
	}
	seq, err := b.appendAt(ctx, tx, head, conversation, id)
	if err != nil {
		return 0, err
	}
	b.seen[id] = seq
	return seq, tx.Commit()
}

// querier is a connection or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (b *broken) appendAt(ctx context.Context, q querier, head, conversation, id string) (seq int64, err error) {
	if b.mistake != byMemory {
		err := q.QueryRowContext(ctx, `SELECT seq FROM messages WHERE conversation = $1 AND id = $2`, conversation, id).Scan(&seq)
		if !errors.Is(err, sql.ErrNoRows) {
			return seq, err
		}
	}
	if err := q.QueryRowContext(ctx, head, conversation).Scan(&seq); err != nil {
		return 0, err
	}
	seq++
	if _, err := q.ExecContext(ctx, `INSERT INTO messages VALUES ($1, $2, $3)`, conversation, seq, id); err != nil {
		return 0, err
	}
	_, err = q.ExecContext(ctx, `UPDATE heads SET seq = $2 WHERE conversation = $1`, conversation, seq)
	return seq, err
}

func (b *broken) read(ctx context.Context, conversation string) (ids []string, err error) {
	rows, err := b.db.QueryContext(ctx, `SELECT id FROM messages WHERE conversation = $1 ORDER BY seq`, conversation)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// TestHistoriesOfBrokenAppenders: a check that lets these pass would prove nothing.
func TestHistoriesOfBrokenAppenders(t *testing.T) {
	load := historyLoad{writers: 16, readers: 2, conversations: 2, perWriter: 10, doubles: 3}
	for _, mistake := range []string{byMaximum, unlocked, byMemory} {
		t.Run(mistake, func(t *testing.T) {
			onBoth(t, func(t *testing.T, url string) {
				history := load.record(t, newBroken(t, url, mistake, load.conversations))
				if result := porcupine.CheckOperationsTimeout(logModel, history, historyCheckMax); result != porcupine.Illegal {
					t.Errorf("%d operations: %s, want %s", len(history), result, porcupine.Illegal)
				}
			})
		})
	}
}

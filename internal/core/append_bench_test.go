package core

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/pgtest"
	"waxwing.im/waxwing/internal/store"
)

const (
	benchBodyBytes     = 512
	benchCallers       = 1024 // as many rows under way as the widest raw has
	benchConversations = 100
	benchBatch         = 256
	benchRounds        = 4
)

// benchPhase is how long one phase lasts; each kind of work gets benchRounds of them.
var benchPhase = 3 * time.Second

// BenchmarkAppendBesideRaw measures the append path beside raw writes of the same
// rows into the same tables and indexes, 256 per transaction and durable, in turns
// within one run. It reports rows per second and the ratio to the best raw figure.
// Each figure is over at least 10 seconds, whatever -benchtime says.
func BenchmarkAppendBesideRaw(b *testing.B) {
	b.Run("postgres", func(b *testing.B) {
		server := pgtest.Start(b, pgtest.Options{Fsync: true})
		url := server.Database(b)
		raw := map[string]func(context.Context) int64{}
		for _, n := range []int{1, 2, 4} {
			raw[fmt.Sprintf("raw%d", n)] = func(ctx context.Context) int64 { return rawPostgres(ctx, b, url, n) }
		}
		besideRaw(b, url, raw)
	})
	b.Run("sqlite", func(b *testing.B) {
		dir := b.TempDir()
		besideRaw(b, "sqlite:"+dir, map[string]func(context.Context) int64{
			"raw1": func(ctx context.Context) int64 { return rawSQLite(ctx, b, filepath.Join(b.TempDir(), "raw")) },
		})
	})
}

func besideRaw(b *testing.B, url string, raw map[string]func(context.Context) int64) {
	w := newWorld(b, url)
	for i := range benchConversations {
		w.room(fmt.Sprintf("bench-%d", i), "ann", "bob")
	}
	w.room("bench-one", "ann", "bob")
	var next atomic.Int64
	append := func(conversation func(int64) string) func(context.Context) int64 {
		return func(ctx context.Context) int64 { return w.appendFor(ctx, &next, conversation) }
	}
	work := map[string]func(context.Context) int64{
		"many": append(func(n int64) string { return fmt.Sprintf("bench-%d", n%benchConversations) }),
		"one":  append(func(int64) string { return "bench-one" }),
	}
	for name, f := range raw {
		work[name] = f
	}
	rows, seconds := map[string]float64{}, map[string]float64{}
	for range benchRounds {
		for name, f := range work {
			ctx, cancel := context.WithTimeout(context.Background(), benchPhase)
			started := time.Now()
			rows[name] += float64(f(ctx))
			seconds[name] += time.Since(started).Seconds()
			cancel()
		}
	}
	best := 0.0
	for name := range raw {
		best = max(best, rows[name]/seconds[name])
	}
	for name := range work {
		b.ReportMetric(rows[name]/seconds[name], name+"_rows/s")
	}
	b.ReportMetric(rows["many"]/seconds["many"]/best, "ratio_many")
	b.ReportMetric(rows["one"]/seconds["one"]/best, "ratio_one")
	b.ReportMetric(0, "ns/op")
}

// appendFor sends from many callers at once until ctx ends.
func (w *world) appendFor(ctx context.Context, next *atomic.Int64, conversation func(int64) string) int64 {
	var done atomic.Int64
	var callers sync.WaitGroup
	body := []byte(strings.Repeat("x", benchBodyBytes))
	for range benchCallers {
		callers.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				_, err := w.service.Apply(context.Background(), who("ann"), Send{ConversationID: ds.ConversationID(conversation(n)),
					ID: ds.MessageID(fmt.Sprintf("message-%024d", n)), Body: body})
				switch {
				case err == nil:
					done.Add(1)
				case !ds.IsUnavailable(err): // a machine that is too busy answers so
					w.t.Error(err)
					return
				}
			}
		})
	}
	callers.Wait()
	return done.Load()
}

var rawNext atomic.Int64

func rawPostgres(ctx context.Context, b *testing.B, url string, connections int) int64 {
	var done atomic.Int64
	var writers sync.WaitGroup
	for range connections {
		writers.Go(func() {
			conn, err := pgx.Connect(context.Background(), url)
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close(context.Background())
			id := rawNext.Add(1)
			logs := make([]string, benchConversations)
			for i := range logs {
				logs[i] = fmt.Sprintf("c/raw-%d-%d", id, i)
				if _, err := conn.Exec(context.Background(), `INSERT INTO logs (log_id, pos, seq, term, created_ms) VALUES ($1, 0, 0, 1, 0)`, logs[i]); err != nil {
					b.Error(err)
					return
				}
			}
			for pos := int64(0); ctx.Err() == nil; {
				if err := rawBatch(conn, logs, &pos); err != nil {
					b.Error(err)
					return
				}
				done.Add(benchBatch)
			}
		})
	}
	writers.Wait()
	return done.Load()
}

func rawBatch(conn *pgx.Conn, all []string, n *int64) error {
	var logs, ids []string
	var pos, created []int64
	var hashes, bodies [][]byte
	var heads []string
	var headPos []int64
	moved := map[string]int64{}
	for range benchBatch {
		log := all[*n%int64(len(all))]
		p := *n/int64(len(all)) + 1
		*n++
		logs, ids, pos, created = append(logs, log), append(ids, fmt.Sprintf("message-%024d", *n)), append(pos, p), append(created, 1780000000000)
		hashes, bodies = append(hashes, make([]byte, 32)), append(bodies, make([]byte, benchBodyBytes))
		moved[log] = p
	}
	for log, p := range moved {
		heads, headPos = append(heads, log), append(headPos, p)
	}
	ctx := context.Background()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO records (log_id, pos, seq, kind, generation, epoch, term, message_id, created_ms, hash, encoding, body)
			SELECT log_id, pos, pos, 1, 0, 0, 1, message_id, created_ms, hash, 0, body
			FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[]) AS n(log_id, pos, message_id, created_ms, hash, body)`,
			logs, pos, ids, created, hashes, bodies); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO message_ids (log_id, message_id, pos, seq, kind, epoch, created_ms)
			SELECT log_id, message_id, pos, pos, 1, 0, created_ms FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS n(log_id, message_id, pos, created_ms)`,
			logs, ids, pos, created); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE logs AS l SET pos = n.pos, seq = n.pos FROM unnest($1::text[], $2::bigint[]) AS n(log_id, pos) WHERE l.log_id = n.log_id`, heads, headPos)
		return err
	})
}

func rawSQLite(ctx context.Context, b *testing.B, dir string) int64 {
	made, err := store.Open(context.Background(), store.Options{URL: "sqlite:" + dir}) // for its tables
	if err != nil {
		b.Error(err)
		return 0
	}
	if err := made.Close(); err != nil {
		b.Error(err)
		return 0
	}
	defer os.RemoveAll(dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "waxwing.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(ON)&_pragma=wal_autocheckpoint(8000)&_pragma=cache_size(-16384)")
	if err != nil {
		b.Error(err)
		return 0
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	bg := context.Background()
	statements := map[string]*sql.Stmt{}
	for name, text := range map[string]string{
		"log": `INSERT INTO logs (log_id, pos, seq, term, created_ms) VALUES ($1, 0, 0, 1, 0)`,
		"record": `INSERT INTO records (log_id, pos, seq, kind, generation, epoch, term, message_id, created_ms, hash, encoding, body)
			VALUES ($1, $2, $2, 1, 0, 0, 1, $3, $4, $5, 0, $6)`,
		"id":   `INSERT INTO message_ids (log_id, message_id, pos, seq, kind, epoch, created_ms) VALUES ($1, $2, $3, $3, 1, 0, $4)`,
		"head": `UPDATE logs SET pos = $2, seq = $2 WHERE log_id = $1`,
	} {
		if statements[name], err = db.Prepare(text); err != nil {
			b.Error(err)
			return 0
		}
	}
	logs := make([]string, benchConversations)
	for i := range logs {
		logs[i] = fmt.Sprintf("c/raw-%d", i)
		if _, err := statements["log"].Exec(logs[i]); err != nil {
			b.Error(err)
			return 0
		}
	}
	done := int64(0)
	for n := int64(0); ctx.Err() == nil; {
		tx, err := db.BeginTx(bg, nil)
		if err != nil {
			b.Error(err)
			return done
		}
		moved := map[string]int64{}
		for range benchBatch {
			log, pos := logs[n%benchConversations], n/benchConversations+1
			n++
			id := fmt.Sprintf("message-%024d", n)
			if _, err := tx.Stmt(statements["record"]).Exec(log, pos, id, int64(1780000000000), make([]byte, 32), make([]byte, benchBodyBytes)); err != nil {
				b.Error(err)
				return done
			}
			if _, err := tx.Stmt(statements["id"]).Exec(log, id, pos, int64(1780000000000)); err != nil {
				b.Error(err)
				return done
			}
			moved[log] = pos
		}
		for log, pos := range moved {
			if _, err := tx.Stmt(statements["head"]).Exec(log, pos); err != nil {
				b.Error(err)
				return done
			}
		}
		if err := tx.Commit(); err != nil {
			b.Error(err)
			return done
		}
		done += benchBatch
	}
	return done
}

package core

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // registers the driver "pgx"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/logs"
	"waxwing.im/waxwing/internal/store"
)

// crashVariable tells a test binary that it is the process to be killed, and how.
const crashVariable = "WAXWING_TEST_CRASH"

// crashPlan is what the process is told: it kills itself at the statement, before or
// after it, when it comes for the Skip+1st time. Without a statement it ends by
// itself and says which statements there are.
type crashPlan struct {
	URL       string
	Round     int
	Statement string
	Done      bool
	Skip      int
	After     time.Duration // instead of a statement: how long after the load has begun
}

// isKilled says whether the process is to end by its own hand.
func (p crashPlan) isKilled() bool { return p.Statement != "" || p.After > 0 }

// crashLine is what it says, one line each: a request is tried, and then answered or
// refused; a key package was given to it; there is such a statement.
type crashLine struct {
	Op           string // try, ok, lost, claim, statement
	Conversation string
	ID           string
	Seq          int64 // of a statement: how often it came
	// Of a bundle. One without Add is an ordinary message.
	Epoch            uint64
	Add, Remove, Ref string
}

const (
	crashRooms     = 3
	crashSenders   = 12 // in each room: enough for batches that PostgreSQL takes by COPY
	crashGroups    = 2
	crashLoadMax   = 10 * time.Second // for a process to come to its end
	crashSkipMax   = 6
	crashTries     = 1  // more, for a statement that did not come
	crashMoments   = 26 // on each database
	crashMomentMax = 300 * time.Millisecond
)

// request makes the same request of the same line, however often.
func (l crashLine) request(ctx context.Context, s *Service) (ds.Record, error) {
	result, err := s.Apply(ctx, who("ann"), l.op())
	return result.Record, err
}

func (l crashLine) op() Op {
	if l.Add == "" {
		return Send{ConversationID: ds.ConversationID(l.Conversation), ID: ds.MessageID(l.ID), Body: []byte(l.ID)}
	}
	b := Bundle{ConversationID: ds.ConversationID(l.Conversation), ID: ds.MessageID(l.ID), Encoding: ds.Base64,
		Commit: commit(l.Conversation, l.Epoch), GroupInfo: groupInfo(l.Conversation, l.Epoch+1),
		Welcome: welcome(l.Ref), To: []Recipient{recipient(l.Add, l.Ref)}, Add: []ds.AccountID{ds.AccountID(l.Add)}}
	if l.Remove != "" {
		b.Remove = []ds.AccountID{ds.AccountID(l.Remove)}
	}
	return b
}

var (
	crashBlanks = regexp.MustCompile(`\s+`)
	crashRows   = regexp.MustCompile(`(\([?$0-9, ]+\)[, ]*)+`)
)

// statementOf is a statement without what differs from one batch to the next.
func statementOf(sql string) string {
	return crashRows.ReplaceAllString(crashBlanks.ReplaceAllString(sql, " "), "() ")
}

// TestCrashingProcess is the process of TestKilledAtEveryStatement; by itself it does
// nothing.
func TestCrashingProcess(t *testing.T) {
	text := os.Getenv(crashVariable)
	if text == "" {
		return
	}
	var plan crashPlan
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		t.Fatal(err)
	}
	p := crashingProcess{plan: plan, seen: map[string]int64{}}
	db, err := store.Open(t.Context(), store.Options{URL: plan.URL, Hook: store.Watch(p.hook)})
	if err != nil {
		t.Fatal(err)
	}
	w := startWorld(t, db)
	defer w.close() // unless it is killed
	p.load(w)
}

type crashingProcess struct {
	plan crashPlan

	mu    sync.Mutex // guards the rest and standard output
	armed bool
	left  int
	seen  map[string]int64
}

func (p *crashingProcess) say(l crashLine) {
	text, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	os.Stdout.Write(append(append([]byte("\ncrash "), text...), '\n'))
}

func (p *crashingProcess) hook(sql string, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed {
		return
	}
	name := statementOf(sql)
	if !done {
		p.seen[name]++
	}
	if name != p.plan.Statement || done != p.plan.Done {
		return
	}
	if p.left--; p.left < 0 {
		p.die()
		select {} // holding mu: nobody says anything any more
	}
}

// die is kill -9.
func (p *crashingProcess) die() {
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Kill()
	}
}

// load sends, commits and claims until the end.
func (p *crashingProcess) load(w *world) {
	ctx, cancel := context.WithTimeout(context.Background(), crashLoadMax)
	if !p.plan.isKilled() {
		ctx, cancel = context.WithTimeout(context.Background(), crashLoadMax/10)
	}
	defer cancel()
	p.mu.Lock()
	p.armed, p.left = true, p.plan.Skip
	p.mu.Unlock()
	if p.plan.After > 0 {
		time.AfterFunc(p.plan.After, p.die)
	}
	var running sync.WaitGroup
	for i := range crashSenders * crashRooms {
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				p.ask(ctx, w, crashLine{Conversation: fmt.Sprintf("room-%d", i%crashRooms), ID: fmt.Sprintf("m-%d-%d-%d", p.plan.Round, i, n)})
			}
		})
	}
	for i := range 2 * crashGroups { // two race for every epoch
		running.Go(func() { p.commits(ctx, w, i) })
	}
	running.Go(func() {
		for ctx.Err() == nil {
			got, err := w.claimed()
			if err == nil && len(got) == 1 {
				p.say(crashLine{Op: "claim", ID: string(got[0].Body)})
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	running.Wait()
	p.mu.Lock()
	p.armed = false
	p.mu.Unlock()
	for name, times := range p.seen {
		p.say(crashLine{Op: "statement", ID: name, Seq: times})
	}
}

func (p *crashingProcess) commits(ctx context.Context, w *world, i int) {
	epoch, previous := uint64(0), ""
	for n := 0; ctx.Err() == nil; n++ {
		l := crashLine{Conversation: fmt.Sprintf("group-%d", i%crashGroups), ID: fmt.Sprintf("b-%d-%d-%d", p.plan.Round, i, n), Epoch: epoch,
			Add: fmt.Sprintf("new-%d-%d-%d", p.plan.Round, i, n), Remove: previous, Ref: fmt.Sprintf("%04x%04x%08x", p.plan.Round, i, n)}
		r, err := p.ask(ctx, w, l)
		var refusal *ds.Refusal
		switch {
		case err == nil:
			epoch, previous = uint64(r.Epoch), l.Add
		case errors.As(err, &refusal) && refusal.Code == ds.EpochConflict:
			epoch = uint64(refusal.CurrentEpoch)
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *crashingProcess) ask(ctx context.Context, w *world, l crashLine) (ds.Record, error) {
	l.Op = "try"
	p.say(l)
	r, err := l.request(ctx, w.service)
	switch {
	case err == nil:
		l.Op, l.Seq = "ok", r.Seq
		p.say(l)
	case ds.CodeOf(err) == ds.EpochConflict:
		l.Op = "lost"
		p.say(l)
	case !ds.IsUnavailable(err):
		w.t.Errorf("%s: %v", l.ID, err)
	}
	return r, err
}

// crashes is the other side: what all the processes were told, held against what
// they left behind.
type crashes struct {
	t   *testing.T
	url string

	tried  map[string]crashLine // not answered
	acked  map[string]crashLine
	lost   map[string]crashLine
	claims map[string]bool
	logs   map[string]*crashLog
}

// crashLog is how far a log has been checked.
type crashLog struct {
	last      ds.Record
	seq       int64
	epoch     int64
	bound     bool
	ids       map[string]int64
	members   map[ds.AccountID]bool
	infoAfter int64 // pos of the last commit
}

// run runs one process to its end and returns the statements that it names, with how
// often they came, and whether it was killed.
func (c *crashes) run(plan crashPlan) (statements map[string]int64, wasKilled bool) {
	c.t.Helper()
	text, err := json.Marshal(plan)
	c.must(err)
	ctx, cancel := context.WithTimeout(c.t.Context(), 6*crashLoadMax)
	defer cancel()
	command := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestCrashingProcess$")
	command.Env = append(os.Environ(), crashVariable+"="+string(text))
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err = command.Run()
	status, _ := command.ProcessState.Sys().(syscall.WaitStatus)
	wasKilled = status.Signaled() && status.Signal() == syscall.SIGKILL
	if err != nil && !wasKilled {
		c.t.Fatalf("%v\n%s", err, out.String())
	}
	statements = map[string]int64{}
	lines := bufio.NewScanner(&out)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "crash ")
		var l crashLine
		if !ok || json.Unmarshal([]byte(text), &l) != nil { // the last line may be cut
			continue
		}
		switch l.Op {
		case "try":
			c.tried[l.ID] = l
		case "ok":
			c.note(c.acked, l)
		case "lost":
			c.note(c.lost, l)
		case "claim":
			if c.claims[l.ID] {
				c.t.Errorf("%s was handed out twice", l.ID) // I5
			}
			c.claims[l.ID] = true
		case "statement":
			statements[l.ID] = l.Seq
		}
	}
	return statements, wasKilled
}

func (c *crashes) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *crashes) note(where map[string]crashLine, l crashLine) {
	delete(c.tried, l.ID)
	where[l.ID] = l
}

// restart brings the service back and asks again: whatever was not answered, and some
// of what was. Then everything must be as it was told.
func (c *crashes) restart(all bool) {
	c.t.Helper()
	db, err := store.Open(c.t.Context(), store.Options{URL: c.url})
	c.must(err)
	w := startWorld(c.t, db)
	defer w.close()
	again := slices.Collect(maps.Values(c.tried))
	for _, l := range c.acked {
		if again = append(again, l); len(again) > len(c.tried)+20 {
			break
		}
	}
	for _, l := range again {
		r, err := l.request(c.t.Context(), w.service)
		switch {
		case err == nil && l.Op == "ok" && r.Seq != l.Seq:
			c.t.Errorf("%s was answered %d, now %d", l.ID, l.Seq, r.Seq) // I6
		case err == nil:
			l.Op, l.Seq = "ok", r.Seq
			c.note(c.acked, l)
		case l.Op == "try" && ds.CodeOf(err) == ds.EpochConflict:
			c.note(c.lost, l)
		default:
			c.t.Errorf("%s again: %v", l.ID, err)
		}
	}
	if all {
		c.logs = map[string]*crashLog{}
	}
	c.must(db.View(c.t.Context(), func(tx *store.Tx) error {
		for i := range crashRooms {
			c.check(tx, fmt.Sprintf("room-%d", i))
		}
		for i := range crashGroups {
			c.check(tx, fmt.Sprintf("group-%d", i))
		}
		return nil
	}))
	// In parts: a transaction has half a minute, and a run may lose ten thousand epochs.
	for part := range slices.Chunk(slices.Collect(maps.Values(c.lost)), 500) {
		c.must(db.View(c.t.Context(), func(tx *store.Tx) error {
			for _, l := range part {
				list, err := tx.Logs.RecordsAfter(ds.AccountLog(ds.AccountID(l.Add)), 0, 1, 1)
				if err != nil {
					return err
				}
				if len(list) > 0 {
					c.t.Errorf("%s lost its epoch and %s was told of it", l.ID, l.Add) // I4
				}
			}
			return nil
		}))
	}
	for _, l := range c.acked {
		if log := c.logs[l.Conversation]; log.ids[l.ID] != l.Seq {
			c.t.Errorf("%s was acknowledged at %d and stands at %d", l.ID, l.Seq, log.ids[l.ID]) // I1, I3
		}
	}
	c.checkGroupInfos()
}

// check reads on in the log of a conversation.
func (c *crashes) check(tx *store.Tx, name string) {
	log := c.logs[name]
	if log == nil {
		log = &crashLog{ids: map[string]int64{}, members: map[ds.AccountID]bool{}}
		c.logs[name] = log
	}
	for {
		list, err := tx.Logs.RecordsAfter(ds.ConversationLog(ds.ConversationID(name)), log.last.Pos, 500, 4<<20)
		c.must(err)
		if len(list) == 0 {
			break
		}
		for i := range list {
			c.checkRecord(tx, name, log, &list[i])
		}
	}
	head, err := tx.Logs.Head(ds.ConversationID(name))
	c.must(err)
	if head.Pos != log.last.Pos || head.Seq != log.seq || !bytes.Equal(head.Hash, log.last.Hash) || log.bound && head.Epoch != log.epoch ||
		head.Members != int64(len(log.members)) {
		c.t.Errorf("%s: the head is %+v, the log ends with %+v", name, head, log.last)
	}
	members, err := tx.Conversations.Members(ds.ConversationID(name))
	c.must(err)
	for _, m := range members {
		if !log.members[m.Account] || len(members) != len(log.members) {
			c.t.Errorf("%s: %d members, the log says %d, %s among them: %t", name, len(members), len(log.members), m.Account, log.members[m.Account])
		}
	}
}

func (c *crashes) checkRecord(tx *store.Tx, name string, log *crashLog, r *ds.Record) {
	if r.Pos != log.last.Pos+1 || !bytes.Equal(r.Hash, logs.ChainHash(log.last.Hash, r)) {
		c.t.Fatalf("%s: record %d does not follow %d", name, r.Pos, log.last.Pos) // I2
	}
	previous := log.last
	log.last = *r
	switch {
	case r.Kind == ds.Membership:
		var change ds.MembershipChange
		c.must(json.Unmarshal(r.Body, &change))
		for _, account := range change.Add {
			log.members[account] = true
		}
		for _, account := range change.Remove {
			delete(log.members, account)
		}
		if l, ok := c.acked[string(previous.MessageID)]; ok && l.Add != "" && (len(change.Add) != 1 || string(change.Add[0]) != l.Add) {
			c.t.Errorf("%s: behind %s stands the membership of others", name, l.ID) // I4
		}
	case r.Kind.IsMessage():
		log.seq++
		id := string(r.MessageID)
		if l, ok := c.acked[id]; r.Seq != log.seq || log.ids[id] != 0 || !ok || l.Conversation != name {
			c.t.Errorf("%s: %s at seq %d, want %d; before %d; acknowledged %t", name, id, r.Seq, log.seq, log.ids[id], ok) // I1, I2
		}
		log.ids[id] = r.Seq
		if r.Kind == ds.Commit {
			c.checkCommit(tx, name, log, r)
		} else if string(r.Body) != id {
			c.t.Errorf("%s: %s has another text", name, id)
		}
	}
}

// checkCommit: one commit for each epoch (I3), and its Welcome is where it should be (I4).
func (c *crashes) checkCommit(tx *store.Tx, name string, log *crashLog, r *ds.Record) {
	l := c.acked[string(r.MessageID)]
	if log.bound && r.Epoch != log.epoch+1 || r.Epoch != int64(l.Epoch)+1 {
		c.t.Errorf("%s: %s opens epoch %d behind %d, asked for %d", name, r.MessageID, r.Epoch, log.epoch, l.Epoch+1)
	}
	log.bound, log.epoch, log.infoAfter = true, r.Epoch, r.Pos
	list, err := tx.Logs.RecordsAfter(ds.AccountLog(ds.AccountID(l.Add)), 0, 10, 1<<20)
	c.must(err)
	welcomes, entered := 0, 0
	for _, e := range list {
		var event ds.DeviceEvent
		c.must(json.Unmarshal(e.Body, &event))
		switch {
		case e.Kind == ds.MembersEvent && len(event.Add) == 1:
			entered++
		case e.Kind == ds.WelcomeEvent:
			welcomes++
			bodies, err := tx.Welcomes.Bodies([]string{event.WelcomeID})
			c.must(err)
			if !bytes.Equal(bodies[event.WelcomeID], welcome(l.Ref)) || event.NextSeq != r.Seq+1 {
				c.t.Errorf("%s: the welcome of %s is not that of its commit", name, l.Add)
			}
		}
	}
	if welcomes != 1 || entered != 1 {
		c.t.Errorf("%s: %s has %d welcomes and entered %d times", name, l.Add, welcomes, entered)
	}
}

// databaseOf returns the database of a store's URL, for database/sql.
func databaseOf(url string) (driver, name string) {
	if dir, ok := strings.CutPrefix(url, "sqlite:"); ok {
		return "sqlite", "file:" + filepath.Join(dir, "waxwing.db") + "?_pragma=journal_mode(WAL)&_pragma=busy_timeout(10000)&_txlock=immediate"
	}
	return "pgx", url
}

// checkGroupInfos: the GroupInfo kept is that of the last commit.
func (c *crashes) checkGroupInfos() {
	driver, name := databaseOf(c.url)
	db, err := sql.Open(driver, name)
	c.must(err)
	defer db.Close()
	for i := range crashGroups {
		log := c.logs[fmt.Sprintf("group-%d", i)]
		var pos int64
		var body []byte
		if log.infoAfter == 0 {
			continue
		}
		c.must(db.QueryRowContext(c.t.Context(), `SELECT group_info_pos, group_info FROM conversation_details WHERE log_id = $1`,
			fmt.Sprintf("c/group-%d", i)).Scan(&pos, &body))
		if pos != log.infoAfter || !bytes.Equal(body, groupInfo(fmt.Sprintf("group-%d", i), uint64(log.epoch))) {
			c.t.Errorf("group-%d: the group info is of record %d, the last commit is %d", i, pos, log.infoAfter)
		}
	}
}

// TestKilledAtEveryStatement kills a process under load at every statement of its
// transactions, before it and behind it, one process after the other on one database.
// After each everything is as it was told (I1 to I6).
func TestKilledAtEveryStatement(t *testing.T) {
	onBoth(t, func(t *testing.T, url string) {
		c := newCrashes(t, url)
		statements, _ := c.run(crashPlan{URL: url})
		c.restart(false)
		if len(statements) < 14 {
			t.Errorf("only %d statements: %q", len(statements), slices.Collect(maps.Keys(statements)))
		}
		random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
		round, rare := 0, 0
		for statement, times := range statements {
			for _, done := range []bool{false, true} {
				round++
				plan := crashPlan{URL: url, Round: round, Statement: statement, Done: done, Skip: random.IntN(min(int(times+1)/2, crashSkipMax))}
				// What is rare, such as a batch of exactly one change, need not come in each load.
				isKilled := c.survive(plan)
				for try := 0; !isKilled && try < crashTries; try++ {
					round++
					plan.Round, plan.Skip = round, 0
					isKilled = c.survive(plan)
				}
				if !isKilled {
					t.Logf("did not come again: %s", statement)
					rare++
				}
			}
		}
		if rare > len(statements)/4 {
			t.Errorf("%d of %d kills did not happen", rare, 2*len(statements))
		}
		c.restart(true)
		t.Logf("%d kills at %d statements: %d requests answered, %d commits lost their epoch, %d key packages claimed",
			round, len(statements), len(c.acked), len(c.lost), len(c.claims))
	})
}

// TestKilledAtRandomMoments does the same at moments that nothing chose: while the
// disk is waited for, between transactions, in the middle of an answer.
func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, url string) {
		c := newCrashes(t, url)
		for round := range crashMoments {
			if plan := (crashPlan{URL: url, Round: round, After: 1 + rand.N(crashMomentMax)}); !c.survive(plan) {
				t.Errorf("%+v: not killed", plan)
			}
		}
		c.restart(true)
		t.Logf("%d kills: %d requests answered, %d commits lost their epoch, %d key packages claimed",
			crashMoments, len(c.acked), len(c.lost), len(c.claims))
	})
}

// survive runs a process to the end that is planned for it, checks what it left, and reports
// whether it was killed.
func (c *crashes) survive(plan crashPlan) (wasKilled bool) {
	c.t.Helper()
	_, wasKilled = c.run(plan)
	c.restart(false)
	if c.t.Failed() {
		c.t.Fatalf("after %+v", plan)
	}
	return wasKilled
}

func newCrashes(t *testing.T, url string) *crashes {
	c := &crashes{t: t, url: url, tried: map[string]crashLine{}, acked: map[string]crashLine{}, lost: map[string]crashLine{},
		claims: map[string]bool{}, logs: map[string]*crashLog{}}
	c.prepare()
	return c
}

// prepare makes the conversations and the pool of key packages.
func (c *crashes) prepare() {
	w := newWorld(c.t, c.url)
	for i := range crashRooms {
		w.room(fmt.Sprintf("room-%d", i), "ann", "bob")
	}
	for i := range crashGroups {
		w.room(fmt.Sprintf("group-%d", i), "ann", "bob")
	}
	var packages []string
	for i := range 100 {
		packages = append(packages, fmt.Sprint("package ", i))
	}
	for device := range 10 {
		caller := ds.Caller{Account: "ann", Device: ds.DeviceID(fmt.Sprint("device-", device))}
		for i := range packages {
			packages[i] = fmt.Sprintf("package %d of %d", i, device)
		}
		if err := w.publish(caller, packages...); err != nil {
			c.t.Fatal(err)
		}
	}
	w.close()
}

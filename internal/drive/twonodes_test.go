package drive

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/identity"
	"waxwing.im/waxwing/internal/pgtest"
)

const (
	twoNodesMax     = 3 * time.Minute
	nodeDeliveryMax = 5 * time.Second // from a message's ack on one node to its event on the other
)

// nodes are two servers on one database, which are one service to all clients.
type nodes struct {
	t    *testing.T
	ctx  context.Context
	a, b *Process
	room string
}

func newNodes(t *testing.T) *nodes {
	ctx := within(t, twoNodesMax)
	n := &nodes{t: t, ctx: ctx, room: "room"}
	folder, database := t.TempDir(), pgtest.URL(t)
	publicURL := fmt.Sprintf("http://localhost:%d", freePort(t))
	serve := func() *Process {
		process, err := Serve(ctx, serverBinary(t), "--listen", "127.0.0.1:0", "--data", folder, "--database", database,
			"--service-key", filepath.Join(folder, "service.key"), "--public-url", publicURL, "--log-level", "warn", "--limit", "all=off")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(process.Kill)
		return process
	}
	n.a, n.b = serve(), serve()
	if n.a.DID != n.b.DID {
		t.Fatalf("two nodes of one service are %s and %s", n.a.DID, n.b.DID)
	}
	return n
}

// client makes a client that is connected to node.
func (n *nodes) client(key *identity.AccountKey, device string, node *Process) *Client {
	n.t.Helper()
	network, err := NewFaultProxy(node.Address(), 1)
	n.must(err)
	c := NewClient(ClientOptions{Name: device, Key: key, Device: device, Audience: node.DID, Network: network, KeepsText: true}, n.room)
	ctx, stop := context.WithCancel(n.ctx)
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t := n.t
	t.Cleanup(func() {
		stop()
		running.Wait()
		network.Close()
		if err := c.Violations(); err != nil {
			t.Error(err)
		}
	})
	_, err = c.AwaitReady(n.ctx, 0)
	n.must(err)
	return c
}

// step is a subtest; those behind one that failed would mean nothing.
func (n *nodes) step(name string, run func()) {
	n.t.Helper()
	whole := n.t
	ok := whole.Run(name, func(t *testing.T) {
		n.t = t
		run()
	})
	n.t = whole
	if !ok {
		whole.FailNow()
	}
}

func (n *nodes) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func accountKey(t *testing.T, name string) *identity.AccountKey {
	t.Helper()
	key, err := identity.DeriveAccountKey([]byte("two nodes"), name, identity.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// acked waits for the ack of a message and returns its seq.
func (n *nodes) acked(c *Client, id string) int64 {
	n.t.Helper()
	seq, err := c.AwaitAcked(n.ctx, n.room, id)
	n.must(err)
	return seq
}

// delivered waits until each client has received message seq, as soon as it should.
func (n *nodes) delivered(seq int64, clients ...*Client) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.ctx, nodeDeliveryMax)
	defer cancel()
	for _, c := range clients {
		n.must(c.AwaitSeq(ctx, n.room, seq))
	}
}

// same checks that both clients have the same history of n messages, each id once.
// That the seqs are 1, 2, 3 and so on is each client's own concern.
func (n *nodes) same(messages int, a, b *Client) {
	n.t.Helper()
	inA, inB := a.Events(n.room), b.Events(n.room)
	if len(inA) != messages || len(inB) != messages {
		n.t.Fatalf("histories of %d and %d messages, want %d", len(inA), len(inB), messages)
	}
	seen := map[string]bool{}
	for i := range inA {
		if inA[i].MsgID != inB[i].MsgID || inA[i].Env != inB[i].Env || inA[i].Seq != inB[i].Seq {
			n.t.Errorf("seq %d: %s on one node, %s on the other", i+1, inA[i].MsgID, inB[i].MsgID)
		}
		if seen[inA[i].MsgID] {
			n.t.Errorf("%s is there twice", inA[i].MsgID)
		}
		seen[inA[i].MsgID] = true
	}
}

// TestTwoNodes runs two servers on one PostgreSQL: one order of messages, whichever
// node they come through, and each node is enough.
func TestTwoNodes(t *testing.T) {
	n := newNodes(t)
	ann, ben := accountKey(t, "ann"), accountKey(t, "ben")
	caller, err := SignIn(n.ctx, n.a.URL, n.a.DID, ann, "caller")
	n.must(err)
	n.must(caller.CreateRoom(n.ctx, n.room, []string{ben.DID()}))
	onA, onB := n.client(ann, "ann-on-a", n.a), n.client(ben, "ben-on-b", n.b)
	total := 0

	n.step("one message id sent to both nodes at once has one seq", func() {
		for i := range 50 {
			id := fmt.Sprintf("shared-%d", i)
			var sending sync.WaitGroup
			for _, c := range []*Client{onA, onB} {
				sending.Go(func() { c.Send(n.room, id, "the same text from everybody") })
			}
			sending.Wait()
			total++
			if a, b := n.acked(onA, id), n.acked(onB, id); a != b || a != int64(total) {
				n.t.Fatalf("%s: seq %d on one node and %d on the other, want %d", id, a, b, total)
			}
		}
		n.delivered(int64(total), onA, onB)
		n.same(total, onA, onB)
	})

	n.step("what one node takes the other delivers in order", func() {
		var slowest time.Duration
		for i := range 5 {
			id := fmt.Sprintf("lone-%d", i)
			onA.Send(n.room, id, "hello from the other side")
			total++
			seq, sent := n.acked(onA, id), time.Now()
			n.delivered(seq, onB)
			slowest = max(slowest, time.Since(sent))
		}
		n.t.Logf("delivered by the other node within %s", slowest.Round(time.Millisecond))
		for i := range 100 {
			onA.Send(n.room, fmt.Sprintf("a-%d", i), "from a")
			onB.Send(n.room, fmt.Sprintf("b-%d", i), "from b")
		}
		total += 200
		n.must(onA.AwaitEmpty(n.ctx))
		n.must(onB.AwaitEmpty(n.ctx))
		n.delivered(int64(total), onA, onB)
		n.same(total, onA, onB)
	})

	n.step("the other node goes on without the killed one, and its clients resume there", func() {
		for i := range 20 {
			onA.Send(n.room, fmt.Sprintf("last-on-a-%d", i), "some of this is acked before the end")
		}
		total += 20
		n.acked(onA, "last-on-a-0")
		n.a.Kill()
		onB.Send(n.room, "still-here", "this node works")
		total++
		n.acked(onB, "still-here")
		before := onA.Counts()
		onA.o.Network.Redirect(n.b.Address())
		n.must(onA.AwaitEmpty(n.ctx))
		onA.Send(n.room, "moved", "on the other node")
		total++
		n.acked(onA, "moved")
		n.delivered(int64(total), onA, onB)
		n.same(total, onA, onB)
		after := onA.Counts()
		if after.Resumes <= before.Resumes || after.Starts != 1 || after.ResumesFailed != 0 {
			n.t.Errorf("%d sessions started, %d resumed, %d refused: want the old one resumed", after.Starts, after.Resumes-before.Resumes, after.ResumesFailed)
		}
		if err := n.b.Stop(); err != nil {
			n.t.Error(err)
		}
	})
}

package prove

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"

	"waxwing.im/waxwing/api/gateway"
	"waxwing.im/waxwing/api/xrpc"
	"waxwing.im/waxwing/internal/drive"
	"waxwing.im/waxwing/internal/identity"
)

var rr008 = Proof{
	ID: "RR-008", Title: "denial of service by churn",
	Attack: "Strangers open connections and say nothing, or a letter now and then, send bodies that do not end, read nothing of large messages and of answers, subscribe again and again, " +
		"and send frames and bodies that are too long or deeply nested, while an honest client goes on sending.",
	Mitigation: "Time, bytes and turns of every connection are bounded, and of strangers together: slow ones are cut off, and what is refused costs little.",
	Detection:  []string{"waxwing_slow_readers_total", "waxwing_connections", "waxwing_transport_closes_total", "waxwing_rate_limited_total"},
	Missing:    "penalties that grow with each violation, limits that several servers share, and presence",
	Run:        attackByChurn,
}

const (
	churnHaste     = 20 // of a quick run: slow clients are cut off in a twentieth of the time
	cutWithin      = 30 * time.Second
	slowdownMax    = 2.0
	requestCPUMax  = 50.0 // milliseconds
	attackHeapMax  = 256.0
	attackedGrowth = 50 // goroutines more than before
)

// churn is a run of RR-008.
type churn struct {
	*Run
	ctx    context.Context
	server *Server
	attack *drive.Attack
	lines  drive.Lines

	mallory *identity.AccountKey
	caller  *drive.Caller // hers
	honest  *websocket.Conn
	sent    int
	quiet   float64 // p99 of an honest message, in milliseconds
	cut     map[string]float64
}

func attackByChurn(ctx context.Context, r *Run) error {
	p := &churn{Run: r, ctx: ctx, cut: map[string]float64{}}
	defer p.lines.Close()
	options := []string{"--ping-interval", "10m", "--limit", "session_starts=off", "--limit", "sends=off", "--limit", "stored_bytes=off"}
	if r.Quick {
		options = append(options, "--dev", "--haste", fmt.Sprint(churnHaste))
	}
	var err error
	if p.server, err = r.Serve(ctx, options...); err != nil {
		return err
	}
	p.attack = drive.NewAttack(ctx, p.server.Process)
	defer p.attack.Calm()
	if err := p.join(); err != nil {
		return err
	}
	memory := r.Watch(ctx, p.server)
	before, err := p.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	if p.quiet, err = p.p99("quiet"); err != nil {
		return err
	}
	if err := memory.Baseline(ctx); err != nil {
		return err
	}
	r.Figure("an honest message, 99th percentile, quiet", p.quiet, "ms")
	if err := p.connections(); err != nil {
		return err
	}
	if err := p.readers(); err != nil {
		return err
	}
	if err := p.subscribers(); err != nil {
		return err
	}
	if err := p.bombs(); err != nil {
		return err
	}
	p.attack.Calm()
	p.lines.Close()
	if err := p.calm(before); err != nil {
		return err
	}
	after, err := p.server.Ops.Metrics(ctx)
	if err != nil {
		return err
	}
	r.Moved(before, after, `slow_readers_total`, `transport_closes_total{cause="handshake"}`, `transport_closes_total{cause="stalled"}`, `rate_limited_total{policy="subscribes"}`)
	r.Bars("connections cut off by the server", p.cut)
	if err := memory.Check(ctx); err != nil {
		return err
	}
	return p.server.Stop()
}

// join signs in an honest client and an attacker.
func (p *churn) join() (err error) {
	key := func(name string) (*identity.AccountKey, error) {
		return identity.DeriveAccountKey(fmt.Append(nil, p.Seed), name, identity.ES256)
	}
	honest, err := key("honest")
	if err != nil {
		return err
	}
	if p.mallory, err = key("mallory"); err != nil {
		return err
	}
	quiet := drive.NewAttack(p.ctx, p.server.Process) // which this one is not: it lasts until the end
	p.Cleanup(quiet.Calm)
	caller, err := quiet.Stranger(honest, "caller")
	if err != nil {
		return err
	}
	if err := caller.CreateRoom(p.ctx, "honest", nil); err != nil {
		return err
	}
	if p.honest, err = quiet.Narrow(honest, "sender"); err != nil {
		return err
	}
	if p.caller, err = quiet.Stranger(p.mallory, "first"); err != nil {
		return err
	}
	p.Step("writing large messages")
	return quiet.Large(p.caller, "large", 40) // more than networks hold; caches keep some of them
}

// p99 sends honest messages one after the other and returns how long all but a hundredth of them
// take at most, in milliseconds.
func (p *churn) p99(during string) (float64, error) {
	line := p.Plot("an honest message until its answer", "ms", during)
	times := make([]float64, Size(p.Run, 40, 2000))
	for i := range times {
		p.sent++
		began := time.Now()
		frame, err := gateway.EncodeFrame(gateway.TypeSend, gateway.StringID("1"), &gateway.Send{ConvID: "honest", MsgID: fmt.Sprint("honest-", p.sent), Env: "hello"})
		if err != nil {
			return 0, err
		}
		if err := p.honest.Write(p.ctx, websocket.MessageText, frame); err != nil {
			return 0, fmt.Errorf("the honest client: %w", err)
		}
		_, data, err := p.honest.Read(p.ctx)
		if err != nil {
			return 0, fmt.Errorf("the honest client: %w", err)
		}
		if answer, err := gateway.DecodeFrame(data); err != nil || answer.Type != gateway.TypeAcked {
			return 0, fmt.Errorf("an honest message is answered %.200s", data)
		}
		times[i] = float64(time.Since(began).Microseconds()) / 1000
		line.Add(times[i])
		_ = pause(p.ctx, 2*time.Millisecond) // it is one of many, not a load of its own
	}
	slices.Sort(times)
	return times[len(times)*99/100], nil
}

// during measures while an attack lasts. The attackers have the same machine: whether the bound
// holds in a full run depends on its cores, and in a quick one on a few messages.
func (p *churn) during(name string) error {
	p.Step("%s, and an honest client", name)
	p99, err := p.p99(name)
	if err != nil {
		return err
	}
	heap, err := p.server.Ops.LiveHeap(p.ctx)
	if err != nil {
		return err
	}
	if err := p.server.Check(); err != nil {
		return err
	}
	if p.Quick {
		p.Figure("an honest message, times its quiet 99th percentile: "+name, p99/p.quiet, "×")
	} else {
		p.AtMost("an honest message, times its quiet 99th percentile: "+name, p99/p.quiet, slowdownMax, "×")
	}
	p.AtMost("live heap: "+name, float64(heap)/(1<<20), attackHeapMax, "MiB")
	return nil
}

// awaitCut waits until the server has ended n connections of an attack.
func (p *churn) awaitCut(name string, n int) error {
	most := 3 * Size(p.Run, cutWithin/churnHaste, cutWithin)
	began, got := time.Now(), int64(0)
	for got += p.attack.Cut(); got < int64(n) && time.Since(began) < most; got += p.attack.Cut() {
		p.At(int(got), n, "waiting until the server cuts off: %s", name)
		if pause(p.ctx, 20*time.Millisecond) != nil {
			return p.ctx.Err()
		}
	}
	p.cut[name] = float64(got)
	p.AtLeast("connections cut off: "+name, float64(got), float64(n), "")
	return nil
}

// connections opens connections that say nothing or little, and bodies that do not end.
func (p *churn) connections() error {
	flood := Size(p.Run, 200, 1000)
	head := "POST /v1/session/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	p.Step("opening connections that say nothing or little")
	for _, begin := range []func(n int) error{
		p.attack.Silent, p.attack.Nameless,
		func(n int) error { return p.attack.Dripping(n, head+"X-Slow: ") },
		func(n int) error { return p.attack.Dripping(n, head+"Content-Length: 100000\r\n\r\n") },
	} {
		if err := begin(flood); err != nil {
			return err
		}
	}
	if err := p.during("connections that say nothing or little"); err != nil {
		return err
	}
	if err := p.awaitCut("connections that say nothing or little", 4*flood); err != nil {
		return err
	}
	p.attack.Calm()
	p.Did("%d connections said nothing, as many sent a letter of a header now and then, or of a body, and as many sockets started no session.", flood)
	const bodies = 128 // twice what strangers may hold together
	p.attack.Refused()
	if err := p.attack.UnfinishedBodies(bodies); err != nil {
		return err
	}
	if err := p.during("bodies without their last byte"); err != nil {
		return err
	}
	p.AtLeast("bodies that were refused because others were not finished", float64(p.attack.Refused()), 1, "")
	p.attack.Calm()
	p.Did("%d bodies of a MiB came slowly, and never their last byte.", bodies)
	return nil
}

// readers opens sockets and streams whose other end does not read.
func (p *churn) readers() error {
	readers, cut := Size(p.Run, 10, 300), Size(p.Run, 20, 48) // few at a time are read for; the others wait for their turn
	p.attack.Cut()
	before, err := p.server.Ops.Metrics(p.ctx)
	if err != nil {
		return err
	}
	if err := p.attack.UnreadStreams(p.caller, "large", readers); err != nil {
		return err
	}
	if err := p.attack.UnreadSockets(p.mallory, "large", readers); err != nil {
		return err
	}
	if err := p.during("readers that do not read"); err != nil {
		return err
	}
	most := 3 * Size(p.Run, cutWithin/churnHaste, cutWithin)
	began, slow := time.Now(), 0.0
	for slow < float64(cut) && time.Since(began) < most && p.ctx.Err() == nil {
		p.At(int(slow), cut, "waiting until the server cuts off readers that do not read")
		after, err := p.server.Ops.Metrics(p.ctx)
		if err != nil {
			return err
		}
		was, _ := before.Sum("waxwing_slow_readers_total")
		is, _ := after.Sum("waxwing_slow_readers_total")
		slow = is - was
		_ = pause(p.ctx, 50*time.Millisecond) // an error: the row ends
	}
	p.cut["readers that do not read"] = slow
	p.AtLeast("readers that do not read and were cut off", slow, float64(cut), "")
	p.attack.Calm()
	taken := int64(0)
	for _, isOwn := range Size(p.Run, []bool{true}, []bool{false, true}) {
		n, err := p.attack.UnreadAnswers(p.mallory, "large", Size(p.Run, 3, 40), drive.LongFrame("large", isOwn))
		if err != nil {
			return err
		}
		taken += n
		if err := p.during(map[bool]string{false: "unread answers with long message ids", true: "unread answers with long frame ids"}[isOwn]); err != nil {
			return err
		}
		p.attack.Calm()
	}
	p.Did("%d streams and as many sockets read nothing of 10 MiB; others sent %d frames of a MiB and read no answer.", readers, taken)
	return nil
}

// subscribers subscribe again and again.
func (p *churn) subscribers() error {
	if err := p.caller.CreateRoom(p.ctx, "small", nil); err != nil {
		return err
	}
	refused, err := p.attack.Subscribing(p.mallory, "small", Size(p.Run, 2, 8))
	if err != nil {
		return err
	}
	if err := p.during("subscriptions again and again"); err != nil {
		return err
	}
	began := time.Now()
	for refused.Load() == 0 && time.Since(began) < 10*time.Second && p.ctx.Err() == nil {
		_ = pause(p.ctx, 20*time.Millisecond) // an error: the row ends
	}
	p.attack.Calm()
	p.Did("Sockets subscribed to a room again and again.")
	p.AtLeast("subscriptions that a limit refused", float64(refused.Load()), 1, "")
	return nil
}

// bombs sends what is costly to parse, and measures the processor time of the server.
func (p *churn) bombs() error {
	nested := func(open, last string, n int) string { return strings.Repeat(open, n) + last }
	frame := func(body string) []byte {
		return []byte(`{"v":1,"t":"conv.send","id":"1","body":{"conv_id":"large","msg_id":"m","env":` + body + `}}`)
	}
	const long = 900 << 10
	huge := strings.Repeat("A", 40000) // of base64: vectors in vectors
	bombs := []struct {
		name, path string
		body       []byte
	}{
		{"nested lists", "/v1/session/start", []byte(nested("[", "", long))},
		{"nested objects", "/v1/session/start", []byte(nested(`{"a":`, "1", long/5))},
		{"many names", "/v1/session/start", []byte("{" + strings.Repeat(`"a":1,`, long/6) + `"a":1}`)},
		{"a long number", "/v1/session/start", []byte(`{"device_id":1` + strings.Repeat("0", long) + "}")},
		{"escapes", "/v1/session/start", []byte(`{"device_id":"` + strings.Repeat(`\u0041`, long/6) + `"}`)},
		{"nested lists in a frame", "/v1/inbox", frame(nested("[", "", long))},
		{"a frame that is too long", "/v1/inbox", frame(`"` + strings.Repeat("x", 2<<20) + `"`)},
		{"MLS vectors", "/v1/keypackages", []byte(`{"device_id":"first","keypackages":["AAEABQABAAEA` + huge + `"]}`)},
		{"MLS vectors, by XRPC", "/xrpc/" + xrpc.PublishKeyPackages, []byte(`{"action":"publish","keyPackages":[{"keyPackage":{"$bytes":"AAEABQABAAEA` + huge + `"},"cipherSuite":"x","expires":"2030-01-01T00:00:00Z"}]}`)},
		{"nested lists, by XRPC", "/xrpc/" + xrpc.PublishKeyPackages, []byte(nested("[", "", long))},
		{"CBOR, nested, by XRPC", "/xrpc/" + xrpc.SendMessage, []byte(nested("\x81", "\x01", long))},
	}
	each := Size(p.Run, 5, 50)
	cpu := map[string]float64{}
	worst, odd := 0.0, 0
	for n, bomb := range bombs {
		p.At(n, len(bombs), "sending what is costly to parse")
		before, err := p.server.Ops.Metrics(p.ctx)
		if err != nil {
			return err
		}
		for range each {
			token := p.caller.Token()
			if strings.HasPrefix(bomb.path, "/xrpc/") {
				now := time.Now()
				method := strings.TrimPrefix(bomb.path, "/xrpc/")
				if token, err = identity.SignToken(p.mallory, identity.Claims{Issuer: p.mallory.DID(), Audience: p.server.DID, Method: method, IssuedAt: now, ExpiresAt: now.Add(time.Minute)}); err != nil {
					return err
				}
			}
			shot, err := p.lines.HTTP(p.ctx, p.server.Address(), http.MethodPost, bomb.path, token, bomb.body)
			if err != nil {
				continue // the server has cut off what is too long
			}
			if status, err := shot.Fire(); err == nil && status >= http.StatusInternalServerError {
				odd++
			}
		}
		after, err := p.server.Ops.Metrics(p.ctx)
		if err != nil {
			return err
		}
		ms := (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) * 1000 / float64(each)
		cpu[bomb.name] = ms
		worst = max(worst, ms)
	}
	p.Did("%d kinds of bodies that are costly to parse were sent %d times each.", len(bombs), each)
	p.Bars("processor time of a request, ms", cpu)
	p.AtMost("processor time of the most expensive request", worst, requestCPUMax, "ms")
	p.Exactly("answers to them that are the server's fault", float64(odd), 0, "")
	return p.during("nothing any more")
}

// calm waits until the goroutines of the attacks have ended.
func (p *churn) calm(before drive.Metrics) error {
	p.Step("waiting until the server is calm")
	was, is := before["go_goroutines"], 0.0
	most := Size(p.Run, 5*time.Second, time.Minute)
	for began := time.Now(); ; {
		metrics, err := p.server.Ops.Metrics(p.ctx)
		if err != nil {
			return err
		}
		if is = metrics["go_goroutines"]; is <= was+attackedGrowth || time.Since(began) > most {
			break
		}
		if pause(p.ctx, 50*time.Millisecond) != nil {
			return p.ctx.Err()
		}
	}
	p.AtMost("goroutines more than before the attacks", is-was, attackedGrowth, "")
	return nil
}

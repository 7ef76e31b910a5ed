package client

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/mr-tron/base58"
)

func TestPace(t *testing.T) {
	soon := served{lasted: time.Millisecond}
	idle, busy, steady := soon, served{lasted: soon.lasted, worked: true}, served{lasted: steadyAfter + 1}
	var p pace
	if wait := p.next(idle, io.EOF); wait != 0 {
		t.Errorf("the first wait is %v", wait)
	}
	for range 20 {
		p.next(idle, io.EOF)
	}
	if wait := p.next(idle, io.EOF); wait < resumeMax/4 {
		t.Errorf("after many sessions for nothing: %v", wait)
	}
	if wait := p.next(busy, io.EOF); wait == 0 || wait > resumeMin {
		t.Errorf("after a short session that did something: %v", wait)
	}
	for range 20 {
		if wait := p.next(busy, io.EOF); wait == 0 || wait > 2*resumeMin {
			t.Errorf("after short sessions that did something: %v", wait)
		}
	}
	for range 20 {
		p.next(served{}, io.EOF)
	}
	if wait := p.next(served{}, io.EOF); wait < reconnectMax/4 {
		t.Errorf("after many attempts: %v", wait)
	}
	if wait := p.next(busy, io.EOF); wait > resumeMin {
		t.Errorf("the first session after many attempts: %v", wait)
	}
	if wait := p.next(served{}, io.EOF); wait != 0 {
		t.Errorf("the first attempt after a session: %v", wait)
	}
	if p.next(steady, io.EOF); p.next(idle, io.EOF) > resumeMin {
		t.Error("a steady session does not count")
	}
	if wait := p.next(served{}, &Refusal{RetryAfter: time.Hour}); wait != time.Hour {
		t.Errorf("told to wait an hour: %v", wait)
	}
	if wait := p.next(idle, errSocketAgain); wait != 0 {
		t.Errorf("on the way to a better transport: %v", wait)
	}
}

func TestRoute(t *testing.T) {
	upgrade, early := &socketError{io.EOF, false}, &socketError{io.EOF, true}
	var r route
	if r.blames(errors.New("no network")) || r.blames(&Refusal{Code: codeResumeFailed}) {
		t.Error("what is no fault of WebSockets is held against them")
	}
	if !r.blames(upgrade) {
		t.Error("a refused Upgrade is nothing")
	}
	if r.blames(early) {
		t.Error("one socket that ends early is enough")
	}
	if !r.blames(early) {
		t.Error("two sockets that end early are nothing")
	}
	last := time.Duration(0)
	for i := range 12 {
		r.failed(time.Second)
		wait := time.Until(r.probeAt)
		if wait < 700*time.Millisecond || wait > probeSlowest*time.Second || i > 0 && i < 3 && wait < last {
			t.Errorf("try %d comes after %v", i, wait)
		}
		last = wait
	}
	if last < probeSlowest*time.Second/2 {
		t.Errorf("the last wait is %v", last)
	}
}

func TestCheckAccount(t *testing.T) {
	good := []string{
		testAccount(t, "ann").DID(),
		"did:web:chat.example", "did:web:localhost%3A8420", "did:plc:ewvi7nxzyoun6zhxrhs64oiz", "did:x:a::b",
		"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
		"did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", // secp256k1
	}
	for _, did := range good {
		if err := checkAccount(did); err != nil {
			t.Errorf("%q: %v", did, err)
		}
	}
	bad := []string{
		"", "bob", "did", "did:", "did:key", "did:key:", "did::a", "did:Web:a", "DID:web:a", "did:web:a b", "did:web:a:",
		"did:web:%4", "did:web:a/b", "did:web:a?b", "did:web:a#b", " did:web:a", "did:web:a\n", "did:web:a\x00", "did:web:ä",
		"did:key:z", "did:key:z0", "did:key:zz", "did:key:mAAAA", "did:key:" + testAccount(t, "ann").DID()[len(didKeyPrefix):],
		testAccount(t, "ann").DID() + "1", testAccount(t, "ann").DID()[:40],
		testAccount(t, "ann").DID() + "#key", didKeyPrefix + base58.Encode([]byte(codecK256+"short")),
	}
	for _, did := range bad {
		if err := checkAccount(did); !errors.Is(err, ErrAccount) {
			t.Errorf("%q: %v", did, err)
		}
	}
}

// homeVariable names a home to the copy of the test that tries to open it too.
const homeVariable = "WAXWING_TEST_SECOND_HOME"

// TestHomeIsLocked: a client that only reads has its home to itself too, against
// others in this process and in another.
func TestHomeIsLocked(t *testing.T) {
	if dir := os.Getenv(homeVariable); dir != "" {
		_, err := Open(t.Context(), Options{Dir: dir, StorageKey: bytes.Repeat([]byte{1}, StorageKeyBytes),
			Server: "http://127.0.0.1:1", Account: testAccount(t, "ann")})
		if !errors.Is(err, ErrInUse) {
			t.Errorf("a client in a second process: %v", err)
		}
		return
	}
	w := newWorld(t)
	ann := w.people("ann")[0]
	if err := ann.WaitOnline(w.ctx); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ann.close()
		ann.net.setDown(true)
		ann.open()
		second := *ann
		if err := second.tryOpen(nil); !errors.Is(err, ErrInUse) {
			t.Errorf("a second client: %v", err)
		}
	}
	second := exec.CommandContext(w.ctx, os.Args[0], "-test.run=^TestHomeIsLocked$", "-test.v")
	second.Env = append(os.Environ(), homeVariable+"="+ann.options.Dir)
	if out, err := second.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: TestHomeIsLocked")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestStreamSilence: one feed from which nothing comes any more is enough.
func TestStreamSilence(t *testing.T) {
	s := &stream{feeds: map[*feed]bool{}}
	for range 3 {
		f := &feed{s: s}
		f.lastRead.now()
		s.feeds[f] = true
	}
	if s.isSilent(time.Millisecond) {
		t.Error("silent, although the server sends a sign only every so often")
	}
	for f := range s.feeds {
		f.lastRead.at.Store(time.Now().Add(-streamPing * silentAfter / 2).Add(-time.Second).UnixNano())
		break
	}
	if !s.isSilent(time.Millisecond) {
		t.Error("not silent")
	}
	if s.isSilent(time.Minute) {
		t.Error("silent before the time that was asked for")
	}
}

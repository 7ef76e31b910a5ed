package clienttest_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/client/clienttest"
)

// talk sends a text while the server is stopped, which arrives once it is started.
func talk(t *testing.T, s *clienttest.Server) {
	ann, bob := s.Client("ann"), s.Client("bob")
	if ann.DID() != s.Account("ann").DID() || ann.DID() == bob.DID() {
		t.Errorf("ann is %s and bob %s", ann.DID(), bob.DID())
	}
	dm, err := ann.StartDM(t.Context(), bob.DID())
	if err != nil {
		t.Fatal(err)
	}
	s.Await(bob, client.EventJoined)
	url := s.URL
	s.Stop()
	if _, err := ann.Send(t.Context(), dm, []byte("while nobody listens")); err != nil {
		t.Fatal(err)
	}
	s.Start()
	if s.URL != url {
		t.Errorf("the address moved from %s to %s", url, s.URL)
	}
	if e := s.Await(bob, client.EventMessage); string(e.Text) != "while nobody listens" {
		t.Errorf("bob got %q", e.Text)
	}
}

func TestServer(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("on the loopback address", func(t *testing.T) { talk(t, clienttest.NewServer(t)) })
	t.Run("with XRPC", func(t *testing.T) {
		s := clienttest.NewServer(t)
		ann, bob := s.Client("ann"), s.Client("bob", client.WithXRPC())
		dm, err := bob.StartDM(t.Context(), ann.DID())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bob.Send(t.Context(), dm, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		s.Await(ann, client.EventMessage)
	})
}

// TestBubbleServer: hours pass in no time.
func TestBubbleServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := clienttest.NewBubbleServer(t)
		began := time.Now()
		s.Stop()
		time.Sleep(5 * time.Hour)
		s.Start()
		talk(t, s)
		if passed := time.Since(began); passed < 5*time.Hour {
			t.Errorf("%s passed", passed)
		}
	})
}

// TestDeviceOpensAgain: the options of a device open its home again.
func TestDeviceOpensAgain(t *testing.T) {
	s := clienttest.NewServer(t)
	o, ids := s.Options("ann"), map[string]bool{}
	for range 2 {
		c, err := client.Open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		ids[c.DeviceID()] = true
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	ids[s.Client("ann").DeviceID()] = true
	if len(ids) != 2 {
		t.Errorf("devices %v, want one that was opened twice and a second one", ids)
	}
}

// recorder is a test whose end is recorded, with the file of the caller that caused it.
type recorder struct {
	testing.TB
	helpers map[string]bool
	said    string
	at      string
}

func (r *recorder) Helper() { r.helpers[caller(1).Function] = true }

func (r *recorder) Fatal(v ...any) {
	r.said = fmt.Sprint(v...)
	for skip := 1; r.at == "" || r.helpers[r.at]; skip++ {
		r.at = caller(skip).Function
	}
	runtime.Goexit()
}

func caller(skip int) runtime.Frame {
	var at [1]uintptr
	runtime.Callers(skip+2, at[:])
	frame, _ := runtime.CallersFrames(at[:]).Next()
	return frame
}

// TestErrorNamesTheTest: a test that fails says what it waited for, in the line that waited.
func TestErrorNamesTheTest(t *testing.T) {
	r := &recorder{TB: t, helpers: map[string]bool{}}
	s := clienttest.NewServer(r)
	ann := s.Client("ann")
	if err := ann.Close(); err != nil {
		t.Error(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Await(ann, client.EventRemoved)
	}()
	<-done
	if !strings.HasPrefix(r.said, "no removed event: ") || !strings.Contains(r.at, "TestErrorNamesTheTest") {
		t.Errorf("%q in %s", r.said, r.at)
	}
}

// TestStartTwice: a server that runs is left alone.
func TestStartTwice(t *testing.T) {
	s := clienttest.NewServer(t)
	s.Start()
	if err := s.Client("ann").WaitOnline(t.Context()); err != nil {
		t.Error(err)
	}
	s.Stop()
	s.Stop()
	s.Start()
}

// TestExampleServer: a server without a test leaves nothing behind.
func TestExampleServer(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	defer goleak.VerifyNone(t)
	s := clienttest.NewServer(nil)
	s.Client("ann")
	s.Close()
	s.Close()
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("an error does not panic")
		}
	}()
	t.Setenv("TMPDIR", folder+"/none")
	clienttest.NewServer(nil)
}

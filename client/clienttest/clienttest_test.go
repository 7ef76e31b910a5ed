package clienttest_test

import (
	"context"
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

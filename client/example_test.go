package client_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/client/clienttest"
)

// Two accounts meet and talk, end to end encrypted, through a server that reads
// nothing. The server here runs in the process; a real one is a URL.
func Example() {
	server := clienttest.NewServer(nil)
	defer server.Close()
	bob := server.Client("bob")

	// This is how a program opens a client.
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "waxwing-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	seed, storageKey := make([]byte, 32), make([]byte, client.StorageKeyBytes)
	rand.Read(seed) // keep both: the seed is the account, the other key opens the home
	rand.Read(storageKey)
	account, err := client.AccountFromSeed(seed, "ann")
	if err != nil {
		log.Fatal(err)
	}
	ann, err := client.Open(ctx, client.Options{
		Dir: filepath.Join(dir, "ann"), StorageKey: storageKey, Server: server.URL, Account: account,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer ann.Close()

	dm, err := ann.StartDM(ctx, bob.DID())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := ann.Send(ctx, dm, []byte("hello, bob")); err != nil {
		log.Fatal(err)
	}
	for {
		e, err := bob.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if e.Type == client.EventMessage {
			fmt.Printf("%s (from ann: %v, verified: %v)\n", e.Text, e.From.Account == ann.DID(), e.From.Verified)
		}
		if err := bob.Ack(ctx, e.ID); err != nil {
			log.Fatal(err)
		}
		if e.Type == client.EventMessage {
			break
		}
	}
	// Output: hello, bob (from ann: true, verified: true)
}

// One of two people uses the server's gateway and the other its AT Protocol door.
func ExampleWithXRPC() {
	server := clienttest.NewServer(nil)
	defer server.Close()
	ann, bob := server.Client("ann"), server.Client("bob", client.WithXRPC())

	ctx := context.Background()
	dm, err := bob.StartDM(ctx, ann.DID())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := bob.Send(ctx, dm, []byte("hello, ann")); err != nil {
		log.Fatal(err)
	}
	e := server.Await(ann, client.EventMessage)
	fmt.Printf("%s (from bob: %v)\n", e.Text, e.From.Account == bob.DID())
	state, _ := bob.State()
	fmt.Println("bob is connected by", state.Transport)
	// Output:
	// hello, ann (from bob: true)
	// bob is connected by xrpc
}

// Three people in a room: one is removed, and what is said then is for the other two.
func Example_room() {
	server := clienttest.NewServer(nil)
	defer server.Close()
	ann, bob, cid := server.Client("ann"), server.Client("bob"), server.Client("cid")

	ctx := context.Background()
	room, err := ann.CreateRoom(ctx, bob.DID(), cid.DID())
	if err != nil {
		log.Fatal(err)
	}
	server.Await(bob, client.EventJoined)
	server.Await(cid, client.EventJoined)
	if err := ann.Remove(ctx, room, bob.DID()); err != nil {
		log.Fatal(err)
	}
	if _, err := ann.Send(ctx, room, []byte("now that bob is gone")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(server.Await(bob, client.EventRemoved).Type)
	fmt.Printf("%s\n", server.Await(cid, client.EventMessage).Text)
	c, err := cid.Conversation(ctx, room)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(c.Members), "members,", c.Unread, "unread")
	// Output:
	// removed
	// now that bob is gone
	// 2 members, 1 unread
}

// A bot answers each message once, wherever it is killed.
func ExampleClient_Reply() {
	server := clienttest.NewServer(nil)
	defer server.Close()
	ann, bot := server.Client("ann"), server.Client("bot")

	ctx := context.Background()
	dm, err := ann.StartDM(ctx, bot.DID())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := ann.Send(ctx, dm, []byte("hello")); err != nil {
		log.Fatal(err)
	}
	question, err := bot.Next(ctx)
	for err == nil && question.Type != client.EventMessage {
		question, err = bot.Next(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
	if _, err := bot.Reply(ctx, question, []byte("you said: "+string(question.Text))); err != nil {
		log.Fatal(err)
	}
	for {
		if e := server.Await(ann, client.EventMessage); !e.Own {
			fmt.Printf("%s\n", e.Text)
			return
		}
	}
	// Output: you said: hello
}

// The server goes away and comes back: what is sent meanwhile waits in the home, and is
// delivered once.
func Example_offline() {
	server := clienttest.NewServer(nil)
	defer server.Close()
	ann, bob := server.Client("ann"), server.Client("bob")

	ctx := context.Background()
	dm, err := ann.StartDM(ctx, bob.DID())
	if err != nil {
		log.Fatal(err)
	}
	server.Await(bob, client.EventJoined)
	server.Stop()
	if _, err := ann.Send(ctx, dm, []byte("are you there?")); err != nil {
		log.Fatal(err)
	}
	server.Start()
	fmt.Printf("%s\n", server.Await(bob, client.EventMessage).Text)
	// Output: are you there?
}

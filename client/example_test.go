package client_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"time"

	"waxwing.im/waxwing/client"
	"waxwing.im/waxwing/internal/server"
)

// Two accounts meet and talk, end to end encrypted, through a server that reads
// nothing. The server here runs in the process; a real one is a URL.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "waxwing-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	service, err := server.Start(ctx, server.DefaultConfig(dir+"/server"))
	if err != nil {
		log.Fatal(err)
	}
	defer service.Close()

	open := func(name string) *client.Client {
		seed, storageKey := make([]byte, 32), make([]byte, client.StorageKeyBytes)
		rand.Read(seed) // keep both: the seed is the account, the other key opens the home
		rand.Read(storageKey)
		account, err := client.AccountFromSeed(seed, name)
		if err != nil {
			log.Fatal(err)
		}
		c, err := client.Open(ctx, client.Options{Dir: dir + "/" + name, StorageKey: storageKey,
			Server: service.URL(), Account: account})
		if err != nil {
			log.Fatal(err)
		}
		return c
	}
	ann, bob := open("ann"), open("bob")
	defer ann.Close()
	defer bob.Close()

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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "waxwing-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	service, err := server.Start(ctx, server.DefaultConfig(dir+"/server"))
	if err != nil {
		log.Fatal(err)
	}
	defer service.Close()
	open := func(name string, with ...client.Option) *client.Client {
		account, err := client.NewAccount()
		if err != nil {
			log.Fatal(err)
		}
		c, err := client.Open(ctx, client.Options{Dir: dir + "/" + name, StorageKey: make([]byte, client.StorageKeyBytes), // a real one is random
			Server: service.URL(), Account: account}, with...)
		if err != nil {
			log.Fatal(err)
		}
		return c
	}
	ann, bob := open("ann"), open("bob", client.WithXRPC())
	defer ann.Close()
	defer bob.Close()

	dm, err := bob.StartDM(ctx, ann.DID())
	if err != nil {
		log.Fatal(err)
	}
	if _, err := bob.Send(ctx, dm, []byte("hello, ann")); err != nil {
		log.Fatal(err)
	}
	for {
		e, err := ann.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if e.Type == client.EventMessage {
			fmt.Printf("%s (from bob: %v)\n", e.Text, e.From.Account == bob.DID())
			break
		}
	}
	state, _ := bob.State()
	fmt.Println("bob is connected by", state.Transport)
	// Output:
	// hello, ann (from bob: true)
	// bob is connected by xrpc
}

// Three people in a room: one is removed, and what is said then is for the other two.
func Example_room() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "waxwing-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	service, err := server.Start(ctx, server.DefaultConfig(dir+"/server"))
	if err != nil {
		log.Fatal(err)
	}
	defer service.Close()
	people := map[string]*client.Client{}
	for _, name := range []string{"ann", "bob", "cid"} {
		account, err := client.NewAccount()
		if err != nil {
			log.Fatal(err)
		}
		c, err := client.Open(ctx, client.Options{Dir: dir + "/" + name, StorageKey: make([]byte, client.StorageKeyBytes), // a real one is random
			Server: service.URL(), Account: account})
		if err != nil {
			log.Fatal(err)
		}
		defer c.Close()
		people[name] = c
	}
	ann, bob, cid := people["ann"], people["bob"], people["cid"]
	// until reads events up to one of a type.
	until := func(c *client.Client, want client.EventType) client.Event {
		for {
			e, err := c.Next(ctx)
			if err != nil {
				log.Fatal(err)
			}
			if e.Type == want {
				return e
			}
		}
	}

	room, err := ann.CreateRoom(ctx, bob.DID(), cid.DID())
	if err != nil {
		log.Fatal(err)
	}
	until(bob, client.EventJoined)
	until(cid, client.EventJoined)
	if err := ann.Remove(ctx, room, bob.DID()); err != nil {
		log.Fatal(err)
	}
	if _, err := ann.Send(ctx, room, []byte("now that bob is gone")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(until(bob, client.EventRemoved).Type)
	fmt.Printf("%s\n", until(cid, client.EventMessage).Text)
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

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

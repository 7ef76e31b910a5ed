// Package drive drives whole servers from outside: it runs servers and many clients on a bad
// network and checks that no message is lost, doubled or reordered.
//
// Its parts can be combined: a Process is a real server that can be killed and restarted, a
// FaultProxy is the network between one client and its server, and a Client speaks the gateway
// protocol, reconnects after every disconnect and records every violation that it sees. Churn
// combines them: it first breaks things and then lets them heal, checks the invariants
// throughout, and at the end compares the records of all clients with the log.
//
// Clients only know the protocol. The expected behaviour of the server is not computed here,
// only observed. A run is made from a seed: the same seed gives the same schedule of faults and
// messages, as far as real processes and sockets allow.
package drive

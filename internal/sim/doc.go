// Package sim puts whole servers and many clients on a bad network and checks that
// nothing is lost, doubled or reordered.
//
// Its parts can be combined: a Process is a real server that can be killed and
// started again, a FaultProxy is the network between one client and its server, and
// a Client speaks the gateway protocol, comes back after every disconnect and notes
// whatever it sees that may not be. Churn makes a run of them: it breaks things first
// and then lets them heal, watches the invariants throughout, and in the end holds
// what every client saw against the log.
//
// Clients know what any client knows: the wire. What the server should do is decided
// nowhere here, only observed. A run is made from a seed: the same seed gives the same
// schedule of faults and messages, as far as real processes and sockets let it.
package sim

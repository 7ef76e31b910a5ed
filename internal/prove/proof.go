// Package prove shows on an operator's own machine that the mitigations of the risk register and
// of the threat model hold: on this build, on this database, with figures.
//
// A Proof is a row of one of the two documents, in a file named after its ID. It attacks servers
// in processes of their own (a Run starts them from this very binary) over real sockets, by what
// package drive has for that and by the SDK; it knows nothing of the inside of a server. What it
// measures are figures; those with a bound decide: a row holds if it ran to its end and all its
// bounds hold, and it must have some. Mutants, builds of the server and of the SDK without one
// of their defences, show that a row can fail (docs/mutants.md).
//
// Suite.Run runs rows, one after the other, each on each database, and returns a Report, which
// can be written as JSON and as a page.
package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Proof is a row of the risk register or of the threat model.
type Proof struct {
	ID    string // as RR-001
	Title string // a few words
	// Attack says what is done, and Mitigation what withstands it: one or two sentences each.
	Attack, Mitigation string
	// Detection names the metrics that show in operation what the row is about.
	Detection []string

	// NotBuilt says what the mitigation waits for. Such a row is not run.
	NotBuilt string
	// Missing says what of the mitigation is not built yet, for a row that holds in part.
	Missing string
	// Once marks a row that needs no database of a server: it is run once.
	Once bool
	// Needs returns an error that says what the machine lacks for the row; nil: nothing is needed.
	Needs func() error
	// Run attacks, and puts figures into r. Its error says why the row does not hold, unless it
	// is ErrMissing: then the row was not run.
	Run func(ctx context.Context, r *Run) error
}

// ErrMissing reports that the machine lacks what a row needs.
var ErrMissing = errors.New("missing")

// Proofs returns all rows, in the order of the documents.
func Proofs() []Proof {
	return []Proof{
		rr001, rr002, rr003, rr004, rr005, rr006, rr007, rr008, rr009,
		tm001, tm002, tm003, tm004, tm005, tm006, tm007,
	}
}

// Find returns the rows with the IDs, in the order of the documents; letters of either case name
// them. An unknown ID is an error that lists the known ones.
func Find(ids []string) ([]Proof, error) {
	all := Proofs()
	var known []string
	for _, p := range all {
		known = append(known, p.ID)
	}
	wanted := map[string]bool{}
	for _, id := range ids {
		if id = strings.ToUpper(id); !slices.Contains(known, id) {
			return nil, fmt.Errorf("no row %q; there are %s", id, strings.Join(known, ", "))
		}
		wanted[id] = true
	}
	return slices.DeleteFunc(all, func(p Proof) bool { return !wanted[p.ID] }), nil
}

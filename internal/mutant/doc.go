// Package mutant switches defences off in a binary that is made to show that waxwing prove
// notices: the mutants of internal/prove are put into the source by an overlay of the go command
// and built with -tags mutants. Without that nothing imports this package, so that no released
// binary has a mutant.
package mutant

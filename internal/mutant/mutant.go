//go:build mutants

package mutant

import "os"

var name = os.Getenv("WAXWING_MUTANT")

// Is reports whether the process is the mutant.
func Is(mutant string) bool { return name == mutant }

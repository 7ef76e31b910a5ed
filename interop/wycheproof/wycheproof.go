// Package wycheproof requires the test vectors of Project Wycheproof, in a module of its own so
// that the product does not depend on them. The tests of the root module read them by
// internal/testvectors.
package wycheproof

import _ "github.com/c2sp/wycheproof"

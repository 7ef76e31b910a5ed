// Package docs holds the documentation as a running server publishes it, so that its readers
// see the pages of the version that runs.
package docs

import "embed"

// Pages holds the pages, *.md.
//
//go:embed *.md
var Pages embed.FS

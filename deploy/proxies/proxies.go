// Package proxies holds configurations of reverse proxies for operators to copy. Package drive
// runs the proxies with these files; docs/proxies.md says what was tested and why each line is
// there.
package proxies

import "embed"

// Files holds the configurations.
//
//go:embed *.conf *.cfg *.vcl Caddyfile
var Files embed.FS

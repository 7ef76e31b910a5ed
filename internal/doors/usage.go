package doors

import (
	"fmt"
	"net/http"
	"time"

	"waxwing.im/waxwing/internal/limits"
)

// WriteUsage adds the headers that tell a client how much of a limit of its own is left
// (draft-ietf-httpapi-ratelimit-headers): its count and period, what passes now, and the seconds
// until all of it passes again or, if nothing does now, until one call does.
func WriteUsage(header http.Header, u limits.Usage) {
	header.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=%d", u.Name, u.Rate.Count, Seconds(u.Rate.Period)))
	header.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", u.Name, u.Left, Seconds(u.Wait)))
}

// Seconds returns whole seconds, rounded up.
func Seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Package limits counts what callers do against rates, by GCRA: as many calls as a
// rate has may come at once, then one more each time a share of its period has passed.
//
// A Bucket is the state of one such count, for callers that keep it themselves. A
// Limiter has a bucket for every name and key, in bounded memory. Rates are the
// published policies, by name.
//
// The packages that count decide on the keys.
package limits

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Rate is a limit of Count at once, then one more each Period/Count (GCRA). The
// zero Rate does not limit.
type Rate struct {
	Count  int64
	Period time.Duration
}

// cost returns the time that n calls take from a bucket.
func (r Rate) cost(n int64) time.Duration {
	return r.Period / time.Duration(r.Count) * time.Duration(n)
}

// left returns the number of calls that a bucket admits which takes that time to fill.
func (r Rate) left(spent time.Duration) int64 {
	if r.Period < time.Duration(r.Count) {
		return math.MaxInt64 // too many to be counted
	}
	return max(0, int64((r.Period-spent)/r.cost(1)))
}

// ParseRate reads "COUNT/PERIOD" ("120/1m", "60/min", "1/s") or "off".
func ParseRate(s string) (Rate, error) {
	if s == "off" {
		return Rate{}, nil
	}
	count, period, ok := strings.Cut(s, "/")
	n, err := strconv.ParseInt(count, 10, 64)
	if !ok || err != nil || n < 1 {
		return Rate{}, fmt.Errorf("rate %q: want COUNT/PERIOD or off", s)
	}
	switch period {
	case "s", "sec", "second":
		return Rate{n, time.Second}, nil
	case "m", "min", "minute":
		return Rate{n, time.Minute}, nil
	case "h", "hour":
		return Rate{n, time.Hour}, nil
	case "d", "day", "1d":
		return Rate{n, 24 * time.Hour}, nil
	}
	d, err := time.ParseDuration(period)
	if err != nil || d <= 0 || d > 24*time.Hour {
		return Rate{}, fmt.Errorf("rate %q: the period is no duration up to 24h", s)
	}
	return Rate{n, d}, nil
}

// Bucket is the state of one GCRA: the time at which everything that was taken will be
// paid for, counted from any fixed start. The zero value is a full bucket.
type Bucket time.Duration

// Wait returns how long to wait until n calls fit into rate; they fit now if it is 0 or
// less. The caller may wait and take them, or refuse them.
func (b Bucket) Wait(rate Rate, n int64, now time.Duration) time.Duration {
	return max(time.Duration(b), now) + rate.cost(n) - now - rate.Period
}

// Take charges n calls, whether they fit or not, and returns their cost.
func (b *Bucket) Take(rate Rate, n int64, now time.Duration) (cost time.Duration) {
	cost = rate.cost(n)
	*b = max(*b, Bucket(now)) + Bucket(cost)
	return cost
}

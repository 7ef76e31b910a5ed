package drive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testsize"
)

// TestChurn is RR-001 in small: clients lose their connections in all the ways that
// there are while all send and the server is killed, and no client misses a
// message, sees one twice or loses one that was acked.
func TestChurn(t *testing.T) {
	eachDatabase(t, func(t *testing.T, options []string) {
		disconnects := int(numberOf(t, disconnectsVariable, testsize.Of[uint64](60, 1000)))
		seed := numberOf(t, seedVariable, rand.Uint64N(1e9))
		repeat := fmt.Sprintf("%s=%d %s=%d go test ./internal/drive -run '^%s$' -count 1", seedVariable, seed, disconnectsVariable, disconnects, t.Name())
		name := serverBinary(t)
		serve := append([]string{
			"--listen", fmt.Sprintf("127.0.0.1:%d", freePort(t)),
			"--limit", "all=off", "--ping-interval", "2s", "--log-level", "warn",
		}, options...)
		churn := Churn{
			Seed: seed, Clients: testsize.Of(20, 50), Conversations: testsize.Of(16, 40), PerClient: testsize.Of(8, 20),
			Disconnects: disconnects, Kills: min(10, 1+disconnects/50),
			Pace: 3 * time.Second, Silence: 5 * time.Second, // what one busy machine can take, and patience for it
			Serve: func(ctx context.Context) (*Process, error) { return Serve(ctx, name, serve...) },
		}
		report, err := churn.Run(within(t, 3*time.Minute+time.Duration(disconnects)*time.Second/2))
		t.Logf("seed %d\n%s", seed, report)
		if err != nil {
			t.Errorf("%v\nrepeat with: %s", err, repeat)
		}
	})
}

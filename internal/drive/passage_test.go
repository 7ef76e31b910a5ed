package drive

import (
	"os"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/testsize"
)

// TestPassages is RR-007 in small: behind each proxy a server does what it does without one.
// Times are a twentieth of those in the world, but with WAXWING_FULL=1.
func TestPassages(t *testing.T) {
	t.Parallel()
	var kinds []ProxyKind
	all := ProxyKinds()
	if !testsize.IsFull() {
		all = all[:1] // waxwing prove --quick, which make test runs, tries them all
	}
	for _, kind := range all {
		err := kind.Missing()
		switch {
		case err == nil:
			kinds = append(kinds, kind)
		case os.Getenv("CI") == "true":
			t.Error(err)
		default:
			t.Logf("NOT TESTED: %v", err)
		}
	}
	// The race detector makes long bodies slow; waxwing prove sends them as long as they may be.
	suite := PassageSuite{Scale: testsize.Of(20, 1), Size: testsize.Of(1, 4), Bytes: testsize.Of(512<<10, 0)}
	ctx := within(t, testsize.Of(2*time.Minute, 10*time.Minute))
	process, err := Serve(ctx, serverBinary(t), append(suite.Serve(), "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--log-level", "warn")...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(process.Kill)
	reports, err := suite.Run(ctx, process, kinds)
	for _, report := range reports {
		t.Log(report)
		for _, problem := range report.Problems {
			t.Error(problem)
		}
	}
	if err != nil {
		t.Error(err)
	}
	if err := process.Stop(); err != nil {
		t.Error(err)
	}
}

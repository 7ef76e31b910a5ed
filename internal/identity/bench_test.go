package identity

import (
	"context"
	"testing"

	"waxwing.im/waxwing/internal/pgtest"
)

// BenchmarkResume is a resume storm: 64 devices at a time resume and confirm.
func BenchmarkResume(b *testing.B) {
	run := func(b *testing.B, url string) {
		w := newWorld(b, url)
		a := w.node()
		b.SetParallelism(32)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			ready := w.start(a, "ann")
			for pb.Next() {
				ready = w.resume(a, ready.ResumeToken)
				if err := a.Confirm(context.Background(), ready); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("sqlite", func(b *testing.B) { run(b, "sqlite:"+b.TempDir()) })
	b.Run("postgres", func(b *testing.B) { run(b, pgtest.URL(b)) })
}

// BenchmarkVerify is what one token costs without the database.
func BenchmarkVerify(b *testing.B) {
	now := newClock().Now()
	for _, alg := range Algorithms {
		b.Run(alg, func(b *testing.B) {
			token := goodToken(b, testKey(b, "ann", alg), now)
			for b.Loop() {
				if _, err := verifyAlone(token, SessionStartMethod, Audiences(serviceDID), now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

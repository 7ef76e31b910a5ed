package identity

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"

	"waxwing.im/waxwing/internal/pgtest"
)

// BenchmarkResume is a resume storm: 64 devices at a time resume and are answered.
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
				if err := a.Answered(context.Background(), ready); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("sqlite", func(b *testing.B) { run(b, "sqlite:"+b.TempDir()) })
	b.Run("postgres", func(b *testing.B) { run(b, pgtest.URL(b)) })
}

// BenchmarkVerify measures one token without the database.
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

// BenchmarkXRPC measures the verification of a call, document cached and nonce included, for
// 64 callers at a time with tokens made before.
func BenchmarkXRPC(b *testing.B) {
	run := func(b *testing.B, url string) {
		p := newPeople(newWorld(b, url))
		a := p.authenticator(nil)
		tokens := make([]string, b.N)
		for i := range tokens {
			tokens[i] = forge(b, header(ES256), p.body(p.annDID, strconv.Itoa(i)), p.ann.Sign)
		}
		var next atomic.Int64
		b.SetParallelism(32)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := a.Prove(context.Background(), tokens[next.Add(1)-1], sendMethod, "192.0.2.1"); err != nil {
					b.Error(err)
				}
			}
		})
	}
	b.Run("sqlite", func(b *testing.B) { run(b, "sqlite:"+b.TempDir()) })
	b.Run("postgres", func(b *testing.B) { run(b, pgtest.URL(b)) })
}

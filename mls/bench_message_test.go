package mls

import (
	"crypto/ed25519"
	"testing"
	"time"

	"waxwing.im/waxwing/mls/wire"
)

// messagesPerTurn is the number of messages of a turn of BenchmarkMessages.
const messagesPerTurn = 200

// BenchmarkMessages seals and opens messages of 200 bytes of one member one after
// the other, in a group of a thousand, in turns with what no implementation can do
// without: an Ed25519 signature over as many bytes, and its verification. Each
// figure is the processor's time for one; the ratios are to be believed, because
// all four share the load of the machine. Run it with -cpu 1.
func BenchmarkMessages(b *testing.B) {
	bob, ann := victim(b)
	content := ann.content(nil)
	content.ContentType, content.Application = wire.ApplicationContent, make([]byte, 200)
	a := &wire.AuthenticatedContent{WireFormat: wire.PrivateMessageFormat, Content: content}
	signed := a.SignedContent(&ann.context)
	signature := ed25519.Sign(ann.key.private, signed)
	var spent [4]time.Duration
	measure := func(i int, f func()) {
		start := cpuTime()
		f()
		spent[i] += cpuTime() - start
	}
	messages := make([][]byte, messagesPerTurn)
	for b.Loop() {
		measure(0, func() {
			for range messages {
				ed25519.Sign(ann.key.private, signed)
			}
		})
		measure(1, func() {
			for i := range messages {
				var err error
				if messages[i], ann, err = ann.Seal(content.Application, nil, SealOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		measure(2, func() {
			for range messages {
				if !ed25519.Verify(ann.key.public, signed, signature) {
					b.Fatal("a signature does not verify")
				}
			}
		})
		measure(3, func() {
			for _, m := range messages {
				p, err := bob.Process(m)
				if err != nil {
					b.Fatal(err)
				}
				bob = p.Group
			}
		})
	}
	n := float64(b.N * messagesPerTurn)
	for i, name := range []string{"sign", "seal", "verify", "open"} {
		b.ReportMetric(float64(spent[i].Nanoseconds())/1000/n, name+"-µs")
	}
	b.ReportMetric(float64(spent[1])/float64(spent[0]), "seal/sign")
	b.ReportMetric(float64(spent[3])/float64(spent[2]), "open/verify")
}

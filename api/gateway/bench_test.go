package gateway

import (
	"strings"
	"testing"
)

// BenchmarkDecode reads a usual conv.send and the longest conv.commit.
func BenchmarkDecode(b *testing.B) {
	send := []byte(`{"v":1,"t":"conv.send","id":"12","body":{"conv_id":"` + strings.Repeat("c", 64) + `","msg_id":"0123456789abcdef","env":"` + strings.Repeat("A", 684) + `"}}`)
	commit := []byte(`{"v":1,"t":"conv.commit","id":"12","body":{"conv_id":"c","msg_id":"m","commit":"` + strings.Repeat("A", 15<<20) + `"}}`)
	for name, data := range map[string][]byte{"send": send, "commit": commit} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				frame, err := DecodeFrame(data)
				if err != nil {
					b.Fatal(err)
				}
				if name == "send" {
					err = frame.Decode(&Send{})
				} else {
					err = frame.Decode(&Commit{})
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

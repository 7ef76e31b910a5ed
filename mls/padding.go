package mls

import (
	"waxwing.im/waxwing/mls/suite"
	"waxwing.im/waxwing/mls/wire"
)

// PaddingPolicy returns the wanted size of a PrivateMessage (the whole MLSMessage) that has
// messageBytes without padding, both in bytes. A result that is not larger means no padding. It
// must be safe for concurrent use. RFC 9420, section 15.1.
type PaddingPolicy func(messageBytes int) (paddedBytes int)

// padBucketMin and padBucketStep are the smallest bucket of PadBuckets, and the size above
// which buckets stop doubling.
const (
	padBucketMin  = 512
	padBucketStep = 8192
)

// PadBuckets is a PaddingPolicy: it pads to 512, 1024, 2048, 4096 or 8192 bytes, and above that to
// multiples of 8192. Above 512 bytes a message at most doubles.
func PadBuckets(messageBytes int) int {
	for bucket := padBucketMin; bucket < padBucketStep; bucket *= 2 {
		if messageBytes <= bucket {
			return bucket
		}
	}
	return (messageBytes + padBucketStep - 1) / padBucketStep * padBucketStep
}

// sealedSenderBytes is the size of the sealed sender data. RFC 9420, section 6.3.2.
const sealedSenderBytes = 4 + 4 + 4 + suite.TagBytes

// paddingFor returns the number of zero bytes that policy adds to a.
func paddingFor(policy PaddingPolicy, a *wire.AuthenticatedContent) int {
	if policy == nil {
		return 0
	}
	c := &a.Content
	// Version, format, group id, epoch, content type, authenticated data, sender.
	head := 2 + 2 + wire.VectorBytes(len(c.GroupID)) + 8 + 1 + wire.VectorBytes(len(c.AuthenticatedData)) + wire.VectorBytes(sealedSenderBytes)
	sealed := len(wire.Marshal(&wire.PrivateContent{Message: a})) + suite.TagBytes
	bytes := head + wire.VectorBytes(sealed)
	wanted := min(policy(bytes), wire.MessageBytesMax)
	for wanted > bytes {
		// The length of the ciphertext takes 2 bytes up to 16 383, then 4: a wanted size just
		// above that cannot be reached, and the next one is used.
		for _, prefix := range []int{1, 2, 4} {
			padding := wanted - head - prefix - sealed
			if padding >= 0 && head+wire.VectorBytes(sealed+padding) == wanted {
				return padding
			}
		}
		next := policy(wanted + 1)
		if next <= wanted || next > wire.MessageBytesMax {
			break
		}
		wanted = next
	}
	return 0
}

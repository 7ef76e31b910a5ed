package xrpc

// Generation is which of the two kinds of client calls. It shows in the request alone
// (decision 1): a {"$bytes"} object in a field that A has as a string, or a parameter
// that only B knows, means B; plain base64 means A.
type Generation byte

// The generations.
const (
	// GenerationUnknown is that of a request which tells nothing; it is answered as B.
	GenerationUnknown Generation = iota
	GenerationA
	GenerationB
)

// Or is g, or what is known otherwise when g tells nothing.
func (g Generation) Or(otherwise Generation) Generation {
	if g == GenerationUnknown {
		return otherwise
	}
	return g
}

// Blob is data in the shape that a client of this generation reads. Nil is absent.
func (g Generation) Blob(data []byte) Blob {
	switch {
	case data == nil:
		return Blob{}
	case g == GenerationA:
		return Blob{data, ShapeText}
	}
	return Blob{data, ShapeBytes}
}

// GenerationOf is the generation that an input shows; unknown when its kind never does.
func GenerationOf(in any) Generation {
	if shows, can := in.(interface{ Generation() Generation }); can {
		return shows.Generation()
	}
	return GenerationUnknown
}

// generationOf takes a generation from what has a shape. One object is enough for B: no
// client of A ever writes one there.
func generationOf(onlyB bool, blobs ...Blob) Generation {
	g := GenerationUnknown
	if onlyB {
		g = GenerationB
	}
	for _, blob := range blobs {
		switch {
		case blob.Shape == ShapeBytes:
			g = GenerationB
		case blob.Shape == ShapeText && g == GenerationUnknown:
			g = GenerationA
		}
	}
	return g
}

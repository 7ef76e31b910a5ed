package xrpc

// Generation is one of the two kinds of clients. It is derived from the request alone: a
// {"$bytes"} object in a field that is a string in A, or a parameter that only B knows, means B;
// plain base64 means A.
type Generation byte

// The generations.
const (
	// GenerationUnknown is the generation of a request that does not show it; it is answered as
	// B.
	GenerationUnknown Generation = iota
	GenerationA
	GenerationB
)

// Or returns g, or otherwise if g is unknown.
func (g Generation) Or(otherwise Generation) Generation {
	if g == GenerationUnknown {
		return otherwise
	}
	return g
}

// Blob returns data in the shape that a client of this generation reads. Nil is absent.
func (g Generation) Blob(data []byte) Blob {
	switch {
	case data == nil:
		return Blob{}
	case g == GenerationA:
		return Blob{data, ShapeText}
	}
	return Blob{data, ShapeBytes}
}

// GenerationOf returns the generation that an input shows; unknown if its type never shows one.
func GenerationOf(in any) Generation {
	if shows, can := in.(interface{ Generation() Generation }); can {
		return shows.Generation()
	}
	return GenerationUnknown
}

// generationOf derives a generation from fields that have a shape. One object is enough for B:
// no client of A ever writes one there.
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

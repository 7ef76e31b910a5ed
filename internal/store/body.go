package store

// Bodies are what clients hand over: those of records, Welcomes and GroupInfos. Their columns
// are written with storedBody and read into bodyInto, so that encryption at rest has one place;
// the expressions below are the only others that depend on their stored form.

// storedBody returns a body in the form of its column, which is NULL for no body only.
func storedBody(body []byte) []byte { return notNil(body) }

// bodyInto returns the destination of Scan for the column of a body.
func bodyInto(body *[]byte) any { return body }

const (
	// bodyBytes is the size of the body of a record or a Welcome.
	bodyBytes = `length(body)`
	// groupInfoStart is the part of a GroupInfo that suiteIn reads, NULL if there is none.
	groupInfoStart = `substr(group_info, 1, 8)`
)

// notNil keeps empty bytes from being stored as NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

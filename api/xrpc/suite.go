package xrpc

// suites maps the MLS cipher suites that clients of this API name to their numbers (RFC 9420,
// section 17.1; the last is a number that clients agree on among themselves).
var suites = map[string]int64{
	"MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519":        1,
	"MLS_128_DHKEMP256_AES128GCM_SHA256_P256":             2,
	"MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519": 3,
	"MLS_256_XWING_CHACHA20POLY1305_SHA256_Ed25519":       0x004d,
}

// SuiteNumber returns the number of a cipher suite.
func SuiteNumber(name string) (number int64, isKnown bool) {
	number, isKnown = suites[name]
	return number, isKnown
}

// SuiteName returns the name of a cipher suite, or "" for one without a name here.
func SuiteName(number int64) string {
	for name, n := range suites {
		if n == number {
			return name
		}
	}
	return ""
}

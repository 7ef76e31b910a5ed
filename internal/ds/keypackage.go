package ds

// KeyPackage is a package in the directory. Opaque ones (any string that is not an
// MLS key package) have neither Ref nor expiry.
type KeyPackage struct {
	Device     Device
	Ref        string // KeyPackageRef, lower-case hex; "" when opaque
	Suite      int64
	Body       []byte
	Encoding   Encoding
	LastResort bool
	ExpiresMS  int64 // 0: never
}

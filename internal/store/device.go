package store

import (
	"waxwing.im/waxwing/internal/ds"
)

// Registration is a device that its owner has registered.
type Registration struct {
	Device       ds.Device
	Name         string
	UUID         string // the device's own lasting id; "" when it has none
	SignatureKey []byte
	PushToken    string // "" when it has none
	Generation   int    // of the API that it speaks: 0 unknown, 1 A, 2 B
	RegisteredMS int64
	SeenMS       int64
	KeyPackages  int64 // that can still be handed out once
}

// RememberedGeneration is the newest generation that the account's devices were seen to
// speak, or 0.
func (tx *Tx) RememberedGeneration(account ds.AccountID) (int, error) {
	var generation int64
	err := tx.row(`SELECT COALESCE(MAX(generation), 0) FROM devices WHERE account = $1`, string(account)).Scan(&generation)
	return int(generation), err
}

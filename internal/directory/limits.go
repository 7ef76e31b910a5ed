package directory

import "time"

// Sizes, counts and ages. Every list and page of this package has its bound here.
const (
	keyPackagesMax             = 1000 // of a device
	keyPackageBytesMax         = 64 << 10
	keyPackageCountMax         = 10                  // of one account in one claim
	keyPackagesLow             = 10                  // an owner is notified when fewer are left
	keyPackagesWanted          = 5                   // with fewer an owner should publish more
	keyPackagesFreeMax         = 100                 // unclaimed ones of an account, where its caller has no device
	keyPackageAhead            = 91 * 24 * time.Hour // the latest expiry that a publisher may set: 90 days, and one for clocks
	claimDevicesMax            = 2048                // devices with packages that one request claims, in one transaction
	devicesMax                 = 64                  // per account, in one claim
	devicesRegistered          = 10                  // per account
	registeredConversationsMax = 10_000              // of the account, that a new device is announced in
	replenishMax               = 100                 // accounts that one request asks to publish more
	additionsPage              = 100                 // in one answer
	claimLifetime              = 5 * time.Minute     // of an addition
	generationsBytesMax        = 8 << 20             // of the accounts with a remembered generation
	generationLifetime         = time.Minute
)

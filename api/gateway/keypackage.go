package gateway

// PublishKeyPackages is the body of POST /v1/keypackages. Each string is base64 of
// an MLS key package, or opaque.
type PublishKeyPackages struct {
	DeviceID    string   `json:"device_id"` // the session's
	KeyPackages []string `json:"keypackages"`
}

// RotateKeyPackages is the body of POST /v1/keypackages/rotate. With Revoke, the device's
// published packages that have not been claimed become void.
type RotateKeyPackages struct {
	DeviceID    string   `json:"device_id"` // the session's
	Revoke      bool     `json:"revoke,omitempty"`
	Replacement []string `json:"replacement,omitempty"`
}

// KeyPackagesPublished answers publish and rotate. Available is the number of the device's
// packages that can still be claimed.
type KeyPackagesPublished struct {
	Status          string `json:"status"`
	ServedBy        string `json:"served_by"`
	UserHomeGateway string `json:"user_home_gateway"`
	Available       int64  `json:"available"`
}

// FetchKeyPackages is the body of POST /v1/keypackages/fetch: up to Count packages of any of
// the user's devices, or one of each device.
type FetchKeyPackages struct {
	UserID    string `json:"user_id"`
	Count     *int64 `json:"count,omitempty"` // required unless PerDevice
	PerDevice bool   `json:"per_device,omitempty"`
}

// KeyPackages answers a fetch.
type KeyPackages struct {
	KeyPackages     []string `json:"keypackages"`
	ServedBy        string   `json:"served_by"`
	UserHomeGateway string   `json:"user_home_gateway"`
}

// DeviceKeyPackages answers a fetch with per_device.
type DeviceKeyPackages struct {
	Items           []DeviceKeyPackage `json:"items"`
	ServedBy        string             `json:"served_by"`
	UserHomeGateway string             `json:"user_home_gateway"`
}

// DeviceKeyPackage is the package of one device. KeyPackageRef is lower-case hex, "" if the
// package is opaque.
type DeviceKeyPackage struct {
	DeviceID      string `json:"device_id"`
	KeyPackageRef string `json:"key_package_ref"`
	KeyPackage    string `json:"key_package"`
}

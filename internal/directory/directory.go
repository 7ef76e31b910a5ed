// Package directory holds the rules of devices and key packages: registration, publication and
// claims, and the devices that wait to be added to a conversation.
//
// It changes no conversation: it returns the additions that core must announce to members. It
// contains nothing about HTTP, JSON or frames.
package directory

import (
	"time"

	"waxwing.im/waxwing/internal/ds"
	"waxwing.im/waxwing/internal/limits"
	"waxwing.im/waxwing/internal/store"
)

// Options holds the dependencies and settings of a Service. All of them are set.
type Options struct {
	Store  *store.DB
	Now    func() time.Time
	Limits *limits.Limiter
	// Wake wakes the readers of an account's log.
	Wake func(ds.AccountID)
	// OnlyMLS refuses key packages that are not MLS ones.
	OnlyMLS bool
}

// Service is the directory of devices and key packages. It is safe for concurrent use.
type Service struct {
	store       *store.DB
	now         func() time.Time
	limits      *limits.Limiter
	wake        func(ds.AccountID)
	metrics     metrics
	onlyMLS     bool
	generations generations
}

// New makes a directory over an open store.
func New(o Options) *Service {
	return &Service{store: o.Store, now: o.Now, limits: o.Limits, wake: o.Wake, onlyMLS: o.OnlyMLS,
		metrics: newMetrics()}
}

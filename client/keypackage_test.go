package client

import (
	"slices"
	"sync/atomic"
	"testing"
)

// TestPublished: a package that is made while others are on their way to the server is
// not taken for one that it has.
func TestPublished(t *testing.T) {
	w := newWorld(t)
	middle := newMiddleman(w)
	ann := w.person("ann")
	add := func() {
		if err := ann.db.update(w.ctx, func(tx *tx) error { return ann.keeper.addKeyPackages(tx, 1, false) }); err != nil {
			t.Error(err)
		}
	}
	waiting := func() (out []publication) {
		if err := ann.db.update(w.ctx, func(tx *tx) (err error) { out, err = tx.unpublished(); return err }); err != nil {
			t.Error(err)
		}
		return out
	}
	var isSent atomic.Bool
	middle.answer = func(path string, body []byte) []byte {
		if path == "/v1/keypackages" && isSent.Swap(false) {
			add()
		}
		return body
	}
	ann.options.Server = middle.server.URL
	ann.open()
	w.eventually("the first pool is published", func() bool {
		var published int64
		err := ann.db.update(w.ctx, func(tx *tx) (err error) { published, err = tx.Counters.Get("published"); return err })
		return err == nil && published > 0 && len(waiting()) == 0
	})
	add()
	first := waiting()
	isSent.Store(true)
	if _, err := ann.errands.publish(w.ctx, ann.calls(), false, first); err != nil {
		t.Fatal(err)
	}
	left := waiting()
	if len(left) != 1 || slices.ContainsFunc(first, func(p publication) bool { return p.ref == left[0].ref }) {
		t.Errorf("%d of %d are left to be published", len(left), len(first)+1)
	}
}

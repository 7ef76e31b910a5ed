package client

import "testing"

func TestWaiting(t *testing.T) {
	w := newWorld(t)
	ann := w.people("ann")[0]
	bob := w.person("bob")
	dm := ann.dm(bob)
	ann.says(dm, "one")
	ann.says(dm, "two")
	waiting, err := ann.Waiting(w.ctx, dm)
	if err != nil || len(waiting) != 2 || string(waiting[0].Text) != "one" || string(waiting[1].Text) != "two" ||
		waiting[0].MessageID == "" || !waiting[0].Own || waiting[0].From.Account != ann.did() || waiting[0].Seq != 0 {
		t.Fatalf("while bob is away: %+v, %v", waiting, err)
	}
	bob.open()
	bob.reads("one")
	bob.reads("two")
	if err := ann.Flush(w.ctx); err != nil {
		t.Fatal(err)
	}
	if waiting, err := ann.Waiting(w.ctx, dm); err != nil || len(waiting) != 0 {
		t.Errorf("once delivered: %+v, %v", waiting, err)
	}
}

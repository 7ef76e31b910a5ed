package xrpcserver

import (
	"slices"
	"testing"

	"waxwing.im/waxwing/internal/ds"
)

func TestCursors(t *testing.T) {
	places := [][2]int64{{0, 0}, {0, 1}, {0, 1_800_000_000_123}, {0, partSub}, {0, partSub + 5}, {1, 0}, {1, 7}, {2, 0}, {255, 1}, {256, 0},
		{1 << 40, 9}, {cursorMaxNo, 0}, {cursorMaxNo, cursorMaxNo}}
	var texts []string
	for _, id := range []ds.ConversationID{"c0ffee", "c0ffef", "x"} {
		texts = texts[:0]
		for _, place := range places {
			text := formatCursor(id, place[0], place[1])
			if pos, sub, ok := parseCursor(id, text); !ok || pos != place[0] || sub != place[1] {
				t.Errorf("%v: %s is read as %d, %d, %v", place, text, pos, sub, ok)
			}
			if len(text) != 26 {
				t.Errorf("%v: %s", place, text)
			}
			if _, _, ok := parseCursor("another", text); ok {
				t.Errorf("%v: %s of %s is taken for another's", place, text, id)
			}
			texts = append(texts, text)
		}
		if !slices.IsSorted(texts) || len(slices.Compact(slices.Clone(texts))) != len(places) {
			t.Errorf("cursors are not in order: %v", texts)
		}
	}
}

func TestWhatIsNoCursor(t *testing.T) {
	good := formatCursor("c", 5, 0)
	for _, text := range []string{"", "5", good[:25], "01JD8Q6Z5X3V9K7M2N4P6R8S0T", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
		"Z" + good[1:], "i" + good[1:], good[:10] + "U" + good[11:], good[:10] + "=" + good[11:], good[:10] + "\n" + good[11:], "ÿÿÿÿÿÿÿÿÿÿÿÿÿ"} {
		if _, _, ok := parseCursor("c", text); ok {
			t.Errorf("%q is taken for a cursor", text)
		}
	}
}

// FuzzCursor holds that whatever is read as a cursor is one, and the only one of its place.
func FuzzCursor(f *testing.F) {
	f.Add("c", formatCursor("c", 1, 2))
	f.Add("c0ffee", "01JD8Q6Z5X3V9K7M2N4P6R8S0T")
	f.Fuzz(func(t *testing.T, id, text string) {
		pos, sub, ok := parseCursor(ds.ConversationID(id), text)
		if ok && formatCursor(ds.ConversationID(id), pos, sub) != text[:cursorSize] {
			t.Errorf("%q is read as %d, %d, whose cursor is %q", text, pos, sub, formatCursor(ds.ConversationID(id), pos, sub))
		}
	})
}

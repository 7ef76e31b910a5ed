package limits

import (
	"errors"
	"testing"
	"time"

	"waxwing.im/waxwing/internal/ds"
)

// TestBill: charges stand for calls that were answered and for bytes that were stored, and
// only as far as the last run of a rule asked for them.
func TestBill(t *testing.T) {
	const most = 100
	rates := Rates{Sends: {Count: most, Period: time.Hour}, StoredBytes: {Count: most, Period: time.Hour}}
	fault, refusal := errors.New("away"), ds.Refuse(ds.Forbidden, "no")
	rows := []struct {
		name                string
		runs                [][2]int64 // sends and bytes that each run asks for
		err                 error
		wantSends, wantSize int64
	}{
		{"accepted", [][2]int64{{1, 30}}, nil, 1, 30},
		{"refused", [][2]int64{{1, 30}}, refusal, 1, 0},
		{"a fault", [][2]int64{{1, 30}}, fault, 0, 0},
		{"run again", [][2]int64{{1, 30}, {1, 30}}, nil, 1, 30},
		{"run again, and found to be a repeat", [][2]int64{{1, 30}, {0, 0}}, nil, 0, 0},
		{"run again, and smaller", [][2]int64{{1, 30}, {1, 10}}, nil, 1, 10},
		{"run again, and larger", [][2]int64{{1, 10}, {1, 30}}, nil, 1, 30},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			now := time.UnixMilli(0)
			l := New(rates, func() time.Time { return now })
			var b Bill
			for _, run := range row.runs {
				b.Rerun()
				for i, name := range []string{Sends, StoredBytes} {
					if run[i] == 0 {
						continue
					}
					if r := b.Take(nil, l, name, "ann", "", run[i], now); r != nil {
						t.Fatal(r)
					}
				}
			}
			b.Settle(l, row.err)
			for i, name := range []string{Sends, StoredBytes} {
				left := most - []int64{row.wantSends, row.wantSize}[i]
				if r := l.TakeN(nil, name, "ann", "", left); r != nil {
					t.Errorf("%s: not %d left: %v", name, left, r)
				}
				if r := l.TakeN(nil, name, "ann", "", 1); r == nil {
					t.Errorf("%s: more than %d were left", name, left)
				}
			}
		})
	}
}

package ds

import (
	"slices"
	"sync"
)

// Meter notes the limits, among those of the caller's own, that a request was counted under. It
// is safe for concurrent use.
type Meter struct {
	mu    sync.Mutex // guards count and notes
	count int
	notes [metered]MeterNote
}

// metered bounds the notes of a Meter: an operation is counted under fewer limits.
const metered = 8

// MeterNote names a limit, and what was counted under it.
type MeterNote struct {
	Limit string
	Key   uint64
}

// Note adds a note. It does nothing for a nil Meter.
func (m *Meter) Note(note MeterNote) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.count < len(m.notes) && !slices.Contains(m.notes[:m.count], note) {
		m.notes[m.count] = note
		m.count++
	}
}

// Notes returns the notes; none for a nil Meter.
func (m *Meter) Notes() []MeterNote {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.notes[:m.count])
}

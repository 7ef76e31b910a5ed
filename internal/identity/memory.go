package identity

import "sync"

// memory is a map of bounded size in bytes: its keys, its values and entryBytes for each.
// At the bound an arbitrary entry is dropped, so that entries caused by strangers may displace
// others, but are never refused. It is safe for concurrent use.
type memory[V any] struct {
	bytesMax int
	size     func(V) int // of a value, beyond the struct itself; nil: 0

	mu      sync.Mutex // guards entries and bytes
	entries map[string]V
	bytes   int
}

// entryBytes is the cost of an entry besides its key and the memory that its value refers to.
const entryBytes = 128

func (m *memory[V]) get(key string) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.entries[key]
	return value, ok
}

func (m *memory[V]) put(key string, value V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(key)
	cost := m.cost(key, value)
	for other := range m.entries {
		if m.bytes+cost <= m.bytesMax {
			break
		}
		m.drop(other)
	}
	if cost > m.bytesMax {
		return
	}
	if m.entries == nil {
		m.entries = map[string]V{}
	}
	m.entries[key] = value
	m.bytes += cost
}

func (m *memory[V]) remove(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(key)
}

// drop deletes an entry. The caller holds mu.
func (m *memory[V]) drop(key string) {
	if value, ok := m.entries[key]; ok {
		m.bytes -= m.cost(key, value)
		delete(m.entries, key)
	}
}

func (m *memory[V]) cost(key string, value V) int {
	n := entryBytes + len(key)
	if m.size != nil {
		n += m.size(value)
	}
	return n
}

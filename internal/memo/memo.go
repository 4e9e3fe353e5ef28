// Package memo remembers what was made of bytes, for a process that is handed the same ones again and again.
package memo

import "sync"

// What is remembered at most: tenants can write texts without end. A network's text counts some six times, once for each thing that
// is made of it; all that is made of one together can be ten times as large.
const (
	maxEntries = 4096
	maxSize    = 2 << 20  // bytes of text, all entries together
	maxText    = 64 << 10 // bytes of text, one entry
)

// A Memory has what [Of] made. The zero value is ready to use, and safe for concurrent use; a nil one remembers nothing.
//
// It has two generations. What is asked for is moved to the younger one; when that has half of what is remembered at most, the
// older one is forgotten, and it takes that one's place.
type Memory struct {
	mu             sync.Mutex
	younger, older generation
}

type generation struct {
	entries map[any]entry
	size    int
}

type entry struct {
	value any
	size  int
}

// Of returns what a function makes, or what it made for the same key before. The result has to follow from the key alone, in which
// text is as a whole: a type K is for one function. Size is how long the texts are from which the result is made. The result is
// shared by all who ask, so nobody may change it. What is made with an error is not remembered.
//
// Who asks at the same time for what is not remembered makes it at the same time.
func Of[K comparable, V any](m *Memory, key K, size int, fn func() (V, error)) (V, error) {
	if m == nil || size > maxText {
		return fn()
	}
	if found, ok := m.get(key); ok {
		if value, ok := found.(V); ok {
			return value, nil
		}
	}
	value, err := fn()
	if err == nil {
		m.put(key, entry{value, size})
	}
	return value, err
}

func (m *Memory) get(key any) (any, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.younger.entries[key]; ok {
		return e.value, true
	}
	e, ok := m.older.entries[key]
	if ok {
		m.add(key, e)
	}
	return e.value, ok
}

func (m *Memory) put(key any, e entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(key, e)
}

func (m *Memory) add(key any, e entry) {
	if _, again := m.younger.entries[key]; again {
		return
	}
	if len(m.younger.entries) >= maxEntries/2 || m.younger.size+e.size > maxSize/2 {
		m.older, m.younger = m.younger, generation{}
	}
	if m.younger.entries == nil {
		m.younger.entries = make(map[any]entry)
	}
	m.younger.entries[key] = e
	m.younger.size += e.size
}

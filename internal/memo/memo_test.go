package memo

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

type number int

// of asks for a number, and says whether it was made.
func of(t *testing.T, m *Memory, n, size int) (made bool) {
	t.Helper()
	got, err := Of(m, number(n), size, func() (string, error) {
		made = true
		return fmt.Sprint(n), nil
	})
	if err != nil || got != fmt.Sprint(n) {
		t.Errorf("got %q, %v of %d", got, err, n)
	}
	return made
}

func TestRemembered(t *testing.T) {
	var m Memory
	for i := range 3 {
		if made := of(t, &m, 1, 1); made != (i == 0) {
			t.Errorf("call %d: made %v", i, made)
		}
		if !of(t, nil, 1, 1) {
			t.Error("nothing remembers something")
		}
	}
}

// What one function makes is not taken for what another one makes of an equal key.
func TestKeysOfOtherTypes(t *testing.T) {
	var m Memory
	type other number
	of(t, &m, 1, 1)
	got, err := Of(&m, other(1), 1, func() (string, error) { return "other", nil })
	if err != nil || got != "other" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestErrorsAreNotRemembered(t *testing.T) {
	var m Memory
	if got, err := Of(&m, number(1), 1, func() (string, error) { return "half", errors.New("no") }); got != "half" || err == nil {
		t.Errorf("got %q, %v", got, err)
	}
	if !of(t, &m, 1, 1) {
		t.Error("the error is remembered")
	}
}

// Bounded is what is remembered of texts that never come again, by their number and by their length.
func TestBounds(t *testing.T) {
	for _, size := range []int{1, 1 << 10, maxText} {
		var m Memory
		for i := range 3 * maxEntries {
			of(t, &m, i, size)
			if i%97 != 0 {
				continue
			}
			entries := len(m.younger.entries) + len(m.older.entries)
			bytes := 0
			for _, g := range []generation{m.younger, m.older} {
				for _, e := range g.entries {
					bytes += e.size
				}
			}
			if entries > maxEntries || bytes > maxSize {
				t.Fatalf("%d entries of %d bytes are remembered, want %d and %d at most", entries, bytes, maxEntries, maxSize)
			}
		}
	}
	var m Memory
	for range 2 {
		if !of(t, &m, 1, maxText+1) {
			t.Error("a text beyond the bound is remembered")
		}
	}
}

// What is in use stays, however much comes by.
func TestUsedIsKept(t *testing.T) {
	var m Memory
	of(t, &m, -1, 1)
	for i := range 10 * maxEntries {
		of(t, &m, i, 1)
		if i%100 == 0 && of(t, &m, -1, 1) {
			t.Fatalf("forgotten after %d others", i)
		}
	}
}

func TestConcurrent(t *testing.T) {
	var m Memory
	var wg sync.WaitGroup
	type text string
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				want := strings.Repeat("a", i%600)
				if got, err := Of(&m, text(want), len(want), func() (int, error) { return len(want), nil }); got != i%600 || err != nil {
					t.Errorf("got %d, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

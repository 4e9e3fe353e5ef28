package store

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	a := []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}
	b := []netip.Addr{addr("10.0.0.3")}
	use(t, dir, func(s *Store) {
		check(t, s.Remember("ns/a", b))
		check(t, s.Remember("ns/b", b))
		check(t, s.Remember("ns/a", a))
	})
	use(t, dir, func(s *Store) {
		for pod, want := range map[string][]netip.Addr{"ns/a": a, "ns/b": b, "ns/c": nil} {
			if got := s.Remembered(pod); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", pod, got, want)
			}
		}
	})
}

// TestMemoryIsBounded: who was remembered last is, however many there are.
func TestMemoryIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) {
		const pods = 3 * memoryPages * perPage
		address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
		for i := range pods {
			check(t, s.Remember(fmt.Sprint("ns/", i), []netip.Addr{address(i)}))
		}
		for i := pods - perPage; i < pods; i++ {
			if got := s.Remembered(fmt.Sprint("ns/", i)); !slices.Equal(got, []netip.Addr{address(i)}) {
				t.Errorf("pod %d: %v", i, got)
			}
		}
	})
	if info := must2(os.Stat(filepath.Join(dir, ".braid", "pods")))(t); info.Size() > memoryPages*pageSize {
		t.Errorf("the memory has %d bytes", info.Size())
	}
}

func TestMemoryIsDamaged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) {
		check(t, s.Remember("ns/a", []netip.Addr{first}))
		path := filepath.Join(dir, ".braid", "pods")
		b := must2(os.ReadFile(path))(t)
		for i := range b {
			b[i] ^= 0x55
		}
		check(t, os.WriteFile(path, b, 0o600))
		if got := s.Remembered("ns/a"); got != nil {
			t.Errorf("remembered %v", got)
		}
		check(t, s.Remember("ns/a", []netip.Addr{first}))
		if got := s.Remembered("ns/a"); len(got) != 1 {
			t.Errorf("remembered %v", got)
		}
	})
}

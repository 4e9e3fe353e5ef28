package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// useOn uses the store at another time, or on another node.
func useOn(t *testing.T, dir string, node Node, do func(s *Store)) {
	t.Helper()
	s, err := Open(t.Context(), dir, node, true)
	check(t, err)
	defer s.Close()
	do(s)
}

func TestReboot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	before, after := Node{"boot-1", "node-1"}, Node{"boot-2", "node-1"}
	useOn(t, dir, before, func(s *Store) { reserve(t, s, Owner{"own", "eth0"}, "10.0.0.2", "fd00::2") })
	write(t, dir, "10.0.0.3", "reference\r\neth0")
	write(t, dir, "10.0.0.4", "restarted\r\neth0")
	write(t, dir, "10.0.0.5", "not for pods")
	useOn(t, dir, before, func(*Store) {})
	write(t, dir, "10.0.0.6", "late\r\neth0")

	// The node restarts. The reference is first to serve a container, one that has its id of before, and gives it the
	// address that it had before.
	check(t, os.Remove(filepath.Join(dir, "10.0.0.4")))
	write(t, dir, "10.0.0.4", "restarted\r\neth0")
	useOn(t, dir, after, func(s *Store) {
		wantAddrs(t, s, Owner{"own", "eth0"})
		wantAddrs(t, s, Owner{"reference", "eth0"})
		wantAddrs(t, s, Owner{"restarted", "eth0"}, "10.0.0.4")
		wantAddrs(t, s, Owner{"late", "eth0"}, "10.0.0.6") // nobody can know
		wantNext(t, s, addr("10.0.0.5"), "10.0.0.7")
		reserve(t, s, Owner{"new", "eth0"}, "10.0.0.2")
	})
	useOn(t, dir, after, func(s *Store) { wantAddrs(t, s, Owner{"new", "eth0"}, "10.0.0.2") })
	useOn(t, dir, Node{"boot-3", "node-1"}, func(s *Store) {
		wantAddrs(t, s, Owner{"late", "eth0"})
		wantNext(t, s, addr("10.0.0.2"), "10.0.0.2")
	})
}

// TestNotRebooted: reservations stay where another boot id is no sign of a reboot of this node.
func TestNotRebooted(t *testing.T) {
	for name, tt := range map[string]struct{ before, after Node }{
		"another node":          {Node{"boot-1", "node-1"}, Node{"boot-2", "node-2"}},
		"the boot is not known": {Node{"boot-1", "node-1"}, Node{"", "node-1"}},
		"nor was it before":     {Node{"", "node-1"}, Node{"boot-2", "node-1"}},
		"the same boot":         {Node{"boot-1", "node-1"}, Node{"boot-1", "node-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "blue")
			useOn(t, dir, tt.before, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
			for range 2 {
				useOn(t, dir, tt.after, func(s *Store) { wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
			}
		})
	}
}

// TestPowerFailure: any page of the index may be one of before, or none at all.
func TestPowerFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	for i := range 30 {
		useOn(t, dir, Node{"boot-1", "n"}, func(s *Store) {
			reserve(t, s, Owner{fmt.Sprint("c", i), "eth0"}, fmt.Sprint("10.0.0.", i+2))
		})
	}
	path := filepath.Join(dir, ".braid", "index")
	index := must2(os.ReadFile(path))(t)
	copy(index[2*pageSize:], make([]byte, 3*pageSize))
	index[6*pageSize+100] ^= 0xff
	check(t, os.WriteFile(path, index, 0o600))
	useOn(t, dir, Node{"boot-2", "n"}, func(s *Store) {
		n := must2(s.Count(first, last))(t)
		if n == 0 || n == 30 {
			t.Errorf("%d of 30 addresses are reserved; some pages could be read, some not", n)
		}
	})
	useOn(t, dir, Node{"boot-3", "n"}, func(s *Store) {
		if n := must2(s.Count(first, last))(t); n != 0 {
			t.Errorf("%d addresses are still reserved one boot later", n)
		}
	})
}

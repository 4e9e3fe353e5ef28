package store

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain has the tests run by processes that end, as it were, and then by one that stays.
func TestMain(m *testing.M) {
	code := m.Run()
	if flag.Lookup("test.bench").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		stop := Keep()
		code = max(code, m.Run())
		stop()
	}
	os.Exit(code)
}

// keep keeps folders open until the end of a test, if they are not anyway, and tells which are.
func keep(t *testing.T) (isKept func(dir string) bool) {
	t.Helper()
	if !kept.on {
		t.Cleanup(Keep())
	}
	return func(dir string) bool {
		kept.Lock()
		defer kept.Unlock()
		p := kept.places[dir]
		return p != nil && p.opened != nil
	}
}

// descriptors counts the open files below a folder.
func descriptors(t *testing.T, dir string) (n int) {
	t.Helper()
	for _, fd := range must2(os.ReadDir("/proc/self/fd"))(t) {
		if path, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(path, dir) {
			n++
		}
	}
	return n
}

func TestKeep(t *testing.T) {
	isKept := keep(t)
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
	if !isKept(dir) {
		t.Error("nothing is kept")
	}
	first := kept.places[dir].opened
	use(t, dir, func(s *Store) {
		if s.opened != first {
			t.Error("it is not used again")
		}
		wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.2")
		reserve(t, s, Owner{"c2", "eth0"}, "10.0.0.3")
	})
	// The lock is free, and others find an index that agrees with the folder.
	d := must2(openFolder(dir))(t)
	lock := must2(d.lock(t.Context()))(t)
	if x := must2(readIndex(must2(os.Open(filepath.Join(dir, ".braid", "index")))(t)))(t); x.Folder != must2(d.stamp())(t) {
		t.Error("the index does not agree with the folder")
	}
	check(t, unix.Close(lock))
	d.close()
}

// TestKeptIsNotBelieved: what others do to the folder between two uses is noticed.
func TestKeptIsNotBelieved(t *testing.T) {
	o, other := Owner{"c1", "eth0"}, Owner{"c2", "eth0"}
	for name, tt := range map[string]struct {
		meanwhile func(dir string) error
		held      string // by the owner
		next      string // after the cursor
	}{
		"nothing": {func(string) error { return nil }, "10.0.0.2", "10.0.0.3"},
		"another reservation": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "10.0.0.3"), []byte(other.content()), 0o600)
		}, "10.0.0.2", "10.0.0.4"},
		"the reservation is gone": {func(dir string) error { return os.Remove(filepath.Join(dir, "10.0.0.2")) }, "", "10.0.0.3"},
		"the cursor is written to": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "last_reserved_ip.0"), []byte("10.0.0.200"), 0o600)
		}, "10.0.0.2", "10.0.0.201"},
		"the cursor is another file": {func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "new"), []byte("10.0.0.100"), 0o600),
				os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "last_reserved_ip.0")))
		}, "10.0.0.2", "10.0.0.101"},
		"the cursor is gone":      {func(dir string) error { return os.Remove(filepath.Join(dir, "last_reserved_ip.0")) }, "10.0.0.2", "10.0.0.1"},
		"the lock is another one": {func(dir string) error { return os.Remove(filepath.Join(dir, "lock")) }, "10.0.0.2", "10.0.0.3"},
		"the index is gone":       {func(dir string) error { return os.Remove(filepath.Join(dir, ".braid", "index")) }, "10.0.0.2", "10.0.0.3"},
		"all but reservations":    {func(dir string) error { return os.RemoveAll(filepath.Join(dir, ".braid")) }, "10.0.0.2", "10.0.0.3"},
		"the folder is gone":      {os.RemoveAll, "", "10.0.0.1"},
		"the folder is another": {func(dir string) error {
			return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755),
				os.WriteFile(filepath.Join(dir, "10.0.0.1"), []byte(o.content()), 0o600))
		}, "10.0.0.1", "10.0.0.2"},
		"a folder above is": {func(dir string) error {
			above := filepath.Dir(dir)
			return errors.Join(os.Rename(above, above+".old"), os.Mkdir(above, 0o755))
		}, "", "10.0.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			keep(t)
			dir := filepath.Join(t.TempDir(), "networks", "blue")
			use(t, dir, func(s *Store) { reserve(t, s, o, "10.0.0.2") })
			check(t, tt.meanwhile(dir))
			for range 2 {
				use(t, dir, func(s *Store) {
					if tt.held != "" {
						wantAddrs(t, s, o, tt.held)
					} else {
						wantAddrs(t, s, o)
					}
					from := first
					if c := s.Cursor(0); c.IsValid() {
						from = c.Next()
					}
					wantNext(t, s, from, tt.next)
				})
			}
			use(t, dir, func(s *Store) { reserve(t, s, Owner{"c3", "eth0"}, tt.next) })
			if b, err := os.ReadFile(filepath.Join(dir, "last_reserved_ip.0")); err != nil || string(b) != tt.next {
				t.Errorf("the cursor is %q (%v), want %s", b, err, tt.next)
			}
			if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
				t.Errorf("nobody else could take the lock: %v", err)
			}
			use(t, dir, func(s *Store) { compare(t, s, o) })
		})
	}
}

// TestNotKept: on a file system that other nodes may write to nothing is kept, lest what this one has written is seen by them too late.
func TestNotKept(t *testing.T) {
	isKept := keep(t)
	dir := t.TempDir()
	check(t, unix.Mount("none", dir, "ramfs", 0, "")) // which is none of those that are known
	t.Cleanup(func() { check(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	for i := range 2 {
		use(t, dir, func(s *Store) { reserve(t, s, Owner{fmt.Sprint("c", i), "eth0"}, fmt.Sprint("10.0.0.", 2+i)) })
		if isKept(dir) || descriptors(t, dir) != 0 {
			t.Fatal("it is kept")
		}
	}
	use(t, dir, func(s *Store) { compare(t, s, Owner{"c1", "eth0"}) })
}

// TestManyCursors: however many range sets there are, few of their cursors are open, and all are moved, and moved back.
func TestManyCursors(t *testing.T) {
	keep(t)
	dir := t.TempDir()
	const sets = 5 * maxCursors
	pick := func(n int) (picks []Pick) {
		for i := range sets {
			picks = append(picks, Pick{addr(fmt.Sprintf("10.%d.0.%d", i, n)), i, true})
		}
		return picks
	}
	for n := 1; n <= 3; n++ {
		use(t, dir, func(s *Store) {
			for i := range sets {
				if c := s.Cursor(i); n > 1 && c != pick(n - 1)[i].Addr {
					t.Errorf("cursor %d is %s", i, c)
				}
			}
			check(t, s.Reserve(Owner{fmt.Sprint("c", n), "eth0"}, pick(n)))
			if err := s.Reserve(Owner{"late", "eth0"}, append(pick(100), Pick{Addr: pick(n)[0].Addr})); err == nil {
				t.Error("an address was reserved twice")
			}
			if open := descriptors(t, dir); open > maxCursors+5 {
				t.Errorf("%d descriptors are open", open)
			}
		})
	}
	use(t, dir, func(s *Store) {
		for i := range sets {
			if c := s.Cursor(i); c != pick(3)[i].Addr {
				t.Errorf("cursor %d is %s", i, c)
			}
		}
	})
}

// TestKeptIsBounded, in number and in time.
func TestKeptIsBounded(t *testing.T) {
	if kept.on { // what other tests have left is not counted
		defer func() { _ = Keep() }()
		Keep()()
	}
	stop := Keep()
	dir := t.TempDir()
	for i := range maxKept + 10 {
		use(t, filepath.Join(dir, fmt.Sprint(i)), func(*Store) {})
	}
	used := filepath.Join(dir, "1")
	use(t, used, func(s *Store) {
		for n := range 2 * maxPages { // each is of a chunk of its own, and so on a page of its own
			reserve(t, s, Owner{"c1", fmt.Sprint("net", n)}, fmt.Sprintf("10.%d.0.1", n))
		}
		if n := len(s.index.cached); n < 2*maxPages {
			t.Errorf("%d pages of the index are in use", n)
		}
	})
	if n := len(kept.places); n != maxKept {
		t.Errorf("%d folders are kept, want %d", n, maxKept)
	}
	if n := descriptors(t, dir); n < maxKept || n > 5*maxKept {
		t.Errorf("%d descriptors are open", n)
	}
	for _, p := range kept.places {
		if n := len(p.opened.index.cached); n > maxPages {
			t.Errorf("%d pages of an index are kept", n)
		}
	}
	kept.Lock()
	for path, p := range kept.places {
		if path != used {
			p.last = p.last.Add(-keepQuiet)
		}
	}
	tidy(time.Now().Add(-keepQuiet))
	if len(kept.places) != 1 || kept.places[used] == nil || kept.timer == nil {
		t.Errorf("%d folders are kept, want the one that was used", len(kept.places))
	}
	kept.Unlock()
	s := open(t, used)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := Open(ended, used, anyNode, true); !errors.Is(err, context.Canceled) { // it waits for its turn
		t.Errorf("found %v, want %v", err, context.Canceled)
	}
	stop()
	if kept.places[used] == nil {
		t.Error("a folder that is in use has no place, where others would wait")
	}
	s.Close()
	if n := descriptors(t, dir); n != 0 || kept.timer != nil && len(kept.places) > 0 {
		t.Errorf("%d descriptors are left open", n)
	}
}

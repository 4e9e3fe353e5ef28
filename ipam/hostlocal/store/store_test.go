package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var (
	anyNode = Node{Boot: "boot-1", ID: "node-1"}
	first   = addr("10.0.0.1")
	last    = addr("10.0.255.254")
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, anyNode, true)
	return must(t, s, err)
}

// use opens the store for one operation, as each process does.
func use(t testing.TB, dir string, do func(s *Store)) {
	t.Helper()
	s := open(t, dir)
	defer s.Close()
	do(s)
}

// die ends the use of a store like kill -9: the kernel closes the files, and nothing is noted.
func (s *Store) die() { s.unlock() }

func reserve(t testing.TB, s *Store, o Owner, addrs ...string) {
	t.Helper()
	var picks []Pick
	for i, a := range addrs {
		picks = append(picks, Pick{addr(a), i, true})
	}
	check(t, s.Reserve(o, picks))
}

// write puts a file into the folder as somebody else would.
func write(t testing.TB, dir, name, content string) {
	t.Helper()
	check(t, os.MkdirAll(dir, 0o755))
	check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
}

func wantAddrs(t testing.TB, s *Store, o Owner, want ...string) {
	t.Helper()
	var got []string
	for _, a := range must2(s.Of(o))(t) {
		got = append(got, a.String())
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s has %q, want %q", o, got, want)
	}
}

func must2[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T { t.Helper(); return must(t, v, err) }
}

func wantNext(t testing.TB, s *Store, from netip.Addr, want string) {
	t.Helper()
	if got := must2(s.NextFree(from, last))(t); got.String() != want {
		t.Errorf("next free address from %s is %s, want %s", from, got, want)
	}
}

func TestFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "blue")
	use(t, dir, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2", "fd00::a:2") })
	for name, want := range map[string]string{
		"10.0.0.2": "c1\r\neth0", "fd00::a:2": "c1\r\neth0", "last_reserved_ip.0": "10.0.0.2", "last_reserved_ip.1": "fd00::a:2", "lock": "",
	} {
		if got := must2(os.ReadFile(filepath.Join(dir, name)))(t); string(got) != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]fs.FileMode{
		"": 0o755 | fs.ModeDir, "10.0.0.2": 0o600, "last_reserved_ip.0": 0o600, "lock": 0o750, ".braid": 0o700 | fs.ModeDir, ".braid/index": 0o600,
	} {
		if got := must2(os.Stat(filepath.Join(dir, name)))(t).Mode(); got != want {
			t.Errorf("%q has the mode %s, want %s", name, got, want)
		}
	}
	if entries := must2(os.ReadDir(dir))(t); len(entries) != 6 {
		t.Errorf("the folder has %v", entries)
	}
}

// TestFollowsTheFolder has somebody else write to the folder between operations, at once, so that the clock of the file
// system has no time to go on. What the index says is compared with what a look at every file says.
func TestFollowsTheFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	random := rand.New(rand.NewPCG(1, 2))
	pick := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(2) * 63), byte(random.IntN(40))})
	}
	owner := func() Owner {
		return Owner{fmt.Sprintf("c%d", random.IntN(9)), []string{"", "eth0", "net1"}[random.IntN(3)]}
	}
	use(t, dir, func(*Store) {})
	for step := range 300 {
		a, o := pick(), owner()
		switch random.IntN(5) {
		case 0:
			if f, err := os.OpenFile(filepath.Join(dir, a.String()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err == nil {
				must2(f.WriteString(o.content()))(t)
				f.Close()
			}
		case 1:
			_ = os.Remove(filepath.Join(dir, a.String()))
		case 2:
			use(t, dir, func(s *Store) { check(t, s.Release(o)) })
		default:
			use(t, dir, func(s *Store) {
				if free := must2(s.NextFree(a, last))(t); o.IfName != "" {
					check(t, s.Reserve(o, []Pick{{Addr: free}}))
				}
			})
		}
		use(t, dir, func(s *Store) { compare(t, s, owner()) })
		if t.Failed() {
			t.Fatalf("after step %d", step)
		}
	}
}

// compare compares what a store says with the files.
func compare(t *testing.T, s *Store, o Owner) {
	t.Helper()
	var named, legacy, all []netip.Addr
	for _, name := range must2(s.dir.names())(t) {
		if a, ok := addressOf(name); ok {
			all = append(all, a)
			switch holder, _ := s.Holder(a); holder {
			case o:
				named = append(named, a)
			case Owner{ContainerID: o.ContainerID}:
				legacy = append(legacy, a)
			}
		}
	}
	if len(named) == 0 {
		named = legacy
	}
	got := must2(s.Of(o))(t)
	slices.SortFunc(got, netip.Addr.Compare)
	slices.SortFunc(named, netip.Addr.Compare)
	if !slices.Equal(got, named) {
		t.Errorf("%s has %v, the files say %v", o, got, named)
	}
	if n := must2(s.Count(first, last))(t); int(n) != len(slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Less(first) })) {
		t.Errorf("%d addresses are reserved, the files are %v", n, all)
	}
	free := first
	for slices.Contains(all, free) {
		free = free.Next()
	}
	wantNext(t, s, first, free.String())
}

// TestConstantWork: an operation does not look at more of the index the more there is, and not at the folder at all.
func TestConstantWork(t *testing.T) {
	for _, n := range []int{10, 20_000} {
		dir := filepath.Join(t.TempDir(), "blue")
		check(t, os.MkdirAll(dir, 0o755))
		a := addr("10.0.0.1")
		for i := range n {
			write(t, dir, a.String(), Owner{fmt.Sprintf("c%d", i), "eth0"}.content())
			a = a.Next()
		}
		use(t, dir, func(*Store) {})
		for range 20 {
			use(t, dir, func(s *Store) {
				kept := len(s.index.cached)
				free := must2(s.NextFree(first, last))(t)
				wantAddrs(t, s, Owner{"new", "eth0"})
				check(t, s.Reserve(Owner{"new", "eth0"}, []Pick{{free, 0, true}}))
				check(t, s.Release(Owner{"new", "eth0"}))
				if s.index.file == nil {
					t.Errorf("%d reservations: the index was made anew", n)
				}
				if pages := len(s.index.cached) - kept; pages > 8 {
					t.Errorf("%d reservations: %d pages were read", n, pages)
				}
			})
		}
	}
}

func TestGrows(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) {
		before := s.index.Owners.Buckets
		for i := range int(before)*bucketLoad + 1 {
			s.note(s.index.insert(entry{addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), owner: Owner{fmt.Sprint("c", i), "eth0"}, owned: true}))
		}
		if !s.index.full() {
			t.Errorf("%d records in %d pages are not too many", s.index.Records, before)
		}
		reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.1")
	})
	use(t, dir, func(s *Store) {
		if s.index.file != nil {
			t.Error("an index that is too small was kept")
		}
		wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.1")
	})
}

func TestManyOfOneOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	for i := range 3 * perPage {
		write(t, dir, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}).String(), "old")
	}
	use(t, dir, func(s *Store) {
		if held := must2(s.Of(Owner{"old", "eth0"}))(t); len(held) != 3*perPage {
			t.Errorf("%d addresses, want %d", len(held), 3*perPage)
		}
	})
	use(t, dir, func(s *Store) { check(t, s.Release(Owner{"old", "eth0"})) })
	use(t, dir, func(s *Store) {
		if n := must2(s.Count(first, last))(t); n != 0 {
			t.Errorf("%d addresses are still reserved", n)
		}
	})
}

func TestAllOrNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
	use(t, dir, func(s *Store) {
		write(t, dir, "10.0.0.9", "c9\r\neth0") // without the lock
		err := s.Reserve(Owner{"c2", "eth0"}, []Pick{{addr("10.0.0.3"), 0, true}, {addr("10.0.0.9"), 1, true}})
		if taken, ok := errors.AsType[*TakenError](err); !ok || taken.Addr != addr("10.0.0.9") {
			t.Errorf("error = %v", err)
		}
		wantNext(t, s, addr("10.0.0.2"), "10.0.0.3")
		wantNext(t, s, addr("10.0.0.9"), "10.0.0.10")
		if got := s.Cursor(0); got != addr("10.0.0.2") {
			t.Errorf("the cursor is %s", got)
		}
		if got := s.Cursor(1); got.IsValid() {
			t.Errorf("the cursor of the other set is %s", got)
		}
	})
	if left := must2(filepath.Glob(filepath.Join(dir, "*", "reservation")))(t); left != nil {
		t.Errorf("left: %q", left)
	}
}

// TestFileIsUsedAgain: what was freed becomes the next reservation, unless it has another name or was made by others.
func TestFileIsUsedAgain(t *testing.T) {
	o, next := Owner{"c-that-has-a-long-name", "eth0"}, Owner{"c2", "net1"}
	for name, tt := range map[string]struct {
		meanwhile func(dir, freed string) error
		again     bool
	}{
		"as it is":            {func(string, string) error { return nil }, true},
		"with another name":   {func(dir, freed string) error { return os.Link(freed, filepath.Join(dir, "backup")) }, false},
		"read by others":      {func(_, freed string) error { return os.Chmod(freed, 0o644) }, false},
		"of others":           {func(_, freed string) error { return os.Chown(freed, 65534, 65534) }, false},
		"a link":              {func(dir, freed string) error { return errors.Join(os.Remove(freed), os.Symlink("../lock", freed)) }, false},
		"taken away":          {func(_, freed string) error { return os.Remove(freed) }, false},
		"a pipe without ends": {func(_, freed string) error { return errors.Join(os.Remove(freed), unix.Mkfifo(freed, 0o600)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "blue")
			inode := func(name string) (ino uint64, content string) {
				t.Helper()
				f := must2(folder{fd: unix.AT_FDCWD}.read(filepath.Join(dir, name)))(t)
				return f.ino, f.content
			}
			use(t, dir, func(s *Store) { reserve(t, s, o, "10.0.0.2") })
			first, _ := inode("10.0.0.2")
			use(t, dir, func(s *Store) { check(t, s.Release(o)) })
			freed := filepath.Join(".braid", pendingName)
			if ino, content := inode(freed); ino != first || strings.Trim(content, "\x00") != "" {
				t.Errorf("what was freed has inode %d and %q: want %d, and zeros", ino, content, first)
			}
			if len(must2(os.ReadDir(dir))(t)) != 3 { // .braid, lock, last_reserved_ip.0
				t.Error("the reservation is still there")
			}
			check(t, tt.meanwhile(dir, filepath.Join(dir, freed)))
			use(t, dir, func(s *Store) { reserve(t, s, next, "10.0.0.3") })
			ino, content := inode("10.0.0.3")
			if tt.again && ino != first || content != next.content() {
				t.Errorf("the next one has inode %d and %q: want %d (%v), %q", ino, content, first, tt.again, next.content())
			}
			if info := must2(os.Lstat(filepath.Join(dir, "10.0.0.3")))(t); info.Mode() != 0o600 {
				t.Errorf("it has the mode %v", info.Mode())
			}
			for name, want := range map[string]string{"lock": "", "backup": strings.Repeat("\x00", len(o.content()))} {
				if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(b) != want {
					t.Errorf("%s has %q", name, b)
				}
			}
			use(t, dir, func(s *Store) { check(t, s.Release(next)) })
		})
	}
}

// TestKilled ends an operation at each of its steps.
func TestKilled(t *testing.T) {
	o := Owner{"c2", "eth0"}
	for name, steps := range map[string]struct {
		do       func(t *testing.T, s *Store)
		reserved bool
	}{
		"prepared":  {func(t *testing.T, s *Store) { must2(s.prepare(o))(t) }, false},
		"linked":    {func(t *testing.T, s *Store) { must2(s.prepare(o))(t); linkTo(t, s, "10.0.0.3") }, true},
		"listed":    {func(t *testing.T, s *Store) { must2(s.link(o, []Pick{{addr("10.0.0.3"), 0, true}}))(t) }, true},
		"noted":     {func(t *testing.T, s *Store) { reserve(t, s, o, "10.0.0.3") }, true},
		"pages":     {func(t *testing.T, s *Store) { reserve(t, s, o, "10.0.0.3"); check(t, s.index.flush(s.indexFile)) }, true},
		"stamped":   {func(t *testing.T, s *Store) { reserve(t, s, o, "10.0.0.3"); must2(s.dir.newStamp())(t) }, true},
		"whole":     {func(t *testing.T, s *Store) { reserve(t, s, o, "10.0.0.3"); check(t, s.writeIndex()) }, true},
		"new index": {func(t *testing.T, s *Store) { check(t, s.reindex(nil)); check(t, s.indexFile.Truncate(0)) }, false},
		"half index": {func(t *testing.T, s *Store) {
			check(t, s.reindex(nil))
			check(t, s.indexFile.Truncate(0))
			check(t, s.index.flush(s.indexFile))
		}, false},
		"released": {func(t *testing.T, s *Store) { reserve(t, s, o, "10.0.0.3"); check(t, s.Release(o)) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "blue")
			use(t, dir, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
			s := open(t, dir)
			steps.do(t, s)
			s.die()
			use(t, dir, func(s *Store) {
				if steps.reserved {
					wantAddrs(t, s, o, "10.0.0.3")
					wantNext(t, s, addr("10.0.0.2"), "10.0.0.4")
				} else {
					wantAddrs(t, s, o)
					wantNext(t, s, addr("10.0.0.2"), "10.0.0.3")
				}
				reserve(t, s, Owner{"c4", "eth0"}, "10.0.0.4")
				wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.2")
				if got, _ := s.Holder(addr("10.0.0.3")); steps.reserved && got != o {
					t.Errorf("10.0.0.3 is reserved for %q", got)
				}
			})
		})
	}
}

func linkTo(t testing.TB, s *Store, name string) {
	t.Helper()
	check(t, unix.Linkat(s.private.fd, pendingName, s.dir.fd, name, 0))
}

// TestForeign: what is in the folder besides whole reservations.
func TestForeign(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte("c1\r\neth0"), 0o600))
	for name, content := range map[string]string{
		"10.0.0.1": "", "10.0.0.2": " \r\n", "10.0.0.3": strings.Repeat("\x00", 70), // torn
		"10.0.0.4": "c1\r\neth0\n", "10.0.0.5": "\tc1\r\neth0 ", // white space
		"10.0.0.6": "not for pods", "10.0.0.7": "c1\neth0", "10.0.0.8": strings.Repeat("x", 2*maxContent) + "\r\n/", // somebody else's
		"010.0.0.13": "c1\r\neth0", "::ffff:10.0.0.14": "c1\r\neth0", "fd00::0001": "c1\r\neth0", "FD00::2": "c1\r\neth0", "10.0.0.15%eth0": "c1\r\neth0", // no names of addresses
	} {
		write(t, dir, name, content)
	}
	check(t, os.Symlink(secret, filepath.Join(dir, "10.0.0.9")))
	check(t, os.Symlink("/nowhere", filepath.Join(dir, "10.0.0.10")))
	check(t, os.Mkdir(filepath.Join(dir, "10.0.0.11"), 0o700))
	check(t, unix.Mkfifo(filepath.Join(dir, "10.0.0.12"), 0o600))
	use(t, dir, func(s *Store) {
		wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.4", "10.0.0.5")
		for i := 1; i <= 15; i++ {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			if got, want := must2(s.Reserved(a))(t), i > 3 && i < 13; got != want {
				t.Errorf("%s is reserved: %v, want %v", a, got, want)
			}
		}
		check(t, s.Release(Owner{"c1", "eth0"}))
		check(t, s.Retain(func(Owner) bool { return false }))
	})
	for _, i := range []int{6, 7, 8, 9, 10, 11, 12} {
		if _, err := os.Lstat(filepath.Join(dir, fmt.Sprint("10.0.0.", i))); err != nil {
			t.Errorf("somebody else's file was deleted: %v", err)
		}
	}
	if b, err := os.ReadFile(secret); err != nil || len(b) == 0 {
		t.Errorf("the target of a link was changed: %q, %v", b, err)
	}
}

func TestLinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	for name, prepare := range map[string]func(dir string) error{
		"the folder": func(dir string) error { return errors.Join(os.Remove(dir), os.Symlink(outside, dir)) },
		"the lock":   func(dir string) error { return os.Symlink(filepath.Join(outside, "lock"), filepath.Join(dir, "lock")) },
		"private":    func(dir string) error { return os.Symlink(outside, filepath.Join(dir, ".braid")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "blue")
			check(t, os.Mkdir(dir, 0o755))
			check(t, prepare(dir))
			s, err := Open(t.Context(), dir, anyNode, true)
			if err == nil {
				err = s.Reserve(Owner{"c1", "eth0"}, []Pick{{Addr: first}})
				s.Close()
			}
			if err == nil {
				t.Error("no error")
			}
			if entries := must2(os.ReadDir(outside))(t); len(entries) != 0 {
				t.Errorf("written outside: %v", entries)
			}
		})
	}
	t.Run("the cursor", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "blue")
		check(t, os.Mkdir(dir, 0o755))
		check(t, os.Symlink(filepath.Join(outside, "cursor"), filepath.Join(dir, "last_reserved_ip.0")))
		use(t, dir, func(s *Store) {
			if err := s.Reserve(Owner{"c1", "eth0"}, []Pick{{first, 0, true}}); err == nil {
				t.Error("no error")
			}
			wantAddrs(t, s, Owner{"c1", "eth0"})
		})
		if entries := must2(os.ReadDir(outside))(t); len(entries) != 0 {
			t.Errorf("written outside: %v", entries)
		}
	})
}

func TestNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{file + "/blue", "/nowhere/blue", "/" + strings.Repeat("x", 300), "/a\x00b"} {
		if _, err := Open(t.Context(), path, anyNode, false); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %q: %v", path, err)
		}
	}
}

func TestLockIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	holder := open(t, dir)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	go cancel(enough)
	if _, err := Open(ctx, dir, anyNode, true); !errors.Is(err, enough) {
		t.Errorf("error = %v", err)
	}
	holder.Close()
	use(t, dir, func(*Store) {}) // what gave up does not keep the lock
}

func TestCursor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	for content, want := range map[string]string{"": "invalid IP", "x": "invalid IP", "10.0.0.7": "10.0.0.7", "10.0.0.7\n": "10.0.0.7", "fd00::1": "fd00::1"} {
		write(t, dir, "last_reserved_ip.3", content)
		use(t, dir, func(s *Store) {
			if got := s.Cursor(3).String(); got != want {
				t.Errorf("%q: %s, want %s", content, got, want)
			}
		})
	}
	write(t, dir, "last_reserved_ip.0", "255.255.255.255") // is longer than the new one
	use(t, dir, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
	if got := must2(os.ReadFile(filepath.Join(dir, "last_reserved_ip.0")))(t); string(got) != "10.0.0.2" {
		t.Errorf("cursor file: %q", got)
	}
}

// TestSparse: ranges can be as large as IPv6 has them, wherever the addresses are that are in use.
func TestSparse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	end := addr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	use(t, dir, func(s *Store) {
		reserve(t, s, Owner{"c1", "eth0"}, "fd00::1", "fd00::3fff", "fd00::4000", "fd00:1::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "255.255.255.255")
		for from, want := range map[string]string{
			"fd00::1": "fd00::2", "fd00::3fff": "fd00::4001", "fd00:1::": "fd00:1::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "invalid IP", "::": "::",
		} {
			if got := must2(s.NextFree(addr(from), end))(t); got.String() != want {
				t.Errorf("next free address from %s is %s, want %s", from, got, want)
			}
		}
		if got := must2(s.NextFree(addr("255.255.255.255"), addr("255.255.255.255")))(t); got.IsValid() {
			t.Errorf("next free address at the end of IPv4 is %s", got)
		}
		if n := must2(s.Count(addr("::"), end))(t); n != 5 {
			t.Errorf("%d IPv6 addresses are reserved, want 5", n)
		}
		if n := must2(s.Count(addr("0.0.0.0"), addr("255.255.255.255")))(t); n != 1 {
			t.Errorf("%d IPv4 addresses are reserved, want 1", n)
		}
	})
}

func TestRetain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	write(t, dir, "10.0.0.7", "old")
	write(t, dir, "10.0.0.8", "older")
	use(t, dir, func(s *Store) {
		reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2", "fd00::2")
		reserve(t, s, Owner{"c1", "net1"}, "10.0.0.3")
		reserve(t, s, Owner{"c2", "eth0"}, "10.0.0.4", "fd00::4")
		keep := []Owner{{"c1", "eth0"}, {"old", ""}}
		check(t, s.Retain(func(o Owner) bool { return slices.Contains(keep, o) }))
		wantNext(t, s, addr("10.0.0.3"), "10.0.0.3")
	})
	use(t, dir, func(s *Store) {
		wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.2", "fd00::2")
		wantAddrs(t, s, Owner{"old", "eth0"}, "10.0.0.7")
		for _, o := range []Owner{{"c1", "net1"}, {"c2", "eth0"}, {"older", "eth0"}} {
			wantAddrs(t, s, o)
		}
	})
}

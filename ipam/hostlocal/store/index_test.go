package store

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// TestCorruptIndex damages each page in turn.
func TestCorruptIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) {
		for i := range 20 {
			reserve(t, s, Owner{fmt.Sprint("c", i), "eth0"}, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}).String())
		}
	})
	path := filepath.Join(dir, ".braid", "index")
	good := must2(os.ReadFile(path))(t)
	for no := range len(good) / pageSize {
		bad := append([]byte(nil), good...)
		bad[no*pageSize+200] ^= 1
		check(t, os.WriteFile(path, bad, 0o600))
		s := open(t, dir)
		for i := range 20 {
			wantAddrs(t, s, Owner{fmt.Sprint("c", i), "eth0"}, netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}).String())
		}
		wantNext(t, s, addr("10.0.0.2"), "10.0.0.22")
		s.die()
	}
}

// TestWrongIndex: an index that says an address is somebody else's takes it from nobody.
func TestWrongIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) {
		reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2")
		reserve(t, s, Owner{"c2", "eth0"}, "10.0.0.3")
		check(t, s.index.insert(entry{addr: addr("10.0.0.2"), owner: Owner{"c2", "eth0"}, owned: true}))
	})
	use(t, dir, func(s *Store) { check(t, s.Release(Owner{"c2", "eth0"})) })
	use(t, dir, func(s *Store) {
		wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.2")
		wantAddrs(t, s, Owner{"c2", "eth0"})
	})
}

func TestNoSpaceForTheIndex(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blue")
	use(t, dir, func(s *Store) { reserve(t, s, Owner{"c1", "eth0"}, "10.0.0.2") })
	index := filepath.Join(dir, ".braid", "index")
	check(t, os.Remove(index))
	check(t, os.Mkdir(index, 0o700))
	use(t, dir, func(s *Store) {
		wantAddrs(t, s, Owner{"c1", "eth0"}, "10.0.0.2")
		reserve(t, s, Owner{"c2", "eth0"}, "10.0.0.3")
	})
	use(t, dir, func(s *Store) { check(t, s.Release(Owner{"c1", "eth0"})) })
	use(t, dir, func(s *Store) {
		wantAddrs(t, s, Owner{"c1", "eth0"})
		wantAddrs(t, s, Owner{"c2", "eth0"}, "10.0.0.3")
	})
}

// FuzzIndex puts something into the index that its checksums hold for. No answer panics or takes for ever, and no
// address is taken from anybody.
func FuzzIndex(f *testing.F) {
	f.Add(uint16(1), uint16(4), []byte{0xff, 0xff, 0xff, 0xff})
	f.Add(uint16(1), uint16(8), []byte{1, 0, 0, 0}) // a ring
	f.Add(uint16(0), uint16(16), []byte("braid reserved 1"))
	f.Add(uint16(0), uint16(200), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	dir := filepath.Join(f.TempDir(), "blue")
	use(f, dir, func(s *Store) { reserve(f, s, Owner{"c1", "eth0"}, "10.0.0.2", "fd00::2") })
	path := filepath.Join(dir, ".braid", "index")
	good, err := os.ReadFile(path)
	check(f, err)
	f.Fuzz(func(t *testing.T, no, at uint16, patch []byte) {
		bad := append([]byte(nil), good...)
		p := (*page)(bad[int(no)%(len(bad)/pageSize)*pageSize:])
		copy(p[4+int(at)%(pageSize-4):], patch)
		p.seal()
		if x, err := readIndex(bytes.NewReader(bad)); err == nil && x.Boot != hash(anyNode.Boot) {
			return // that of an earlier boot, which may take away addresses
		}
		check(t, os.WriteFile(path, bad, 0o600))
		s := open(t, dir)
		defer s.die()
		for _, o := range []Owner{{"c1", "eth0"}, {"c2", "eth0"}} {
			_, _ = s.Of(o)
		}
		_, _ = s.NextFree(first, last)
		_, _ = s.NextFree(addr("::"), addr("ffff::"))
		_, _ = s.Count(first, last)
		check(t, s.Release(Owner{"c2", "eth0"}))
		if o, _ := s.Holder(addr("10.0.0.2")); o != (Owner{"c1", "eth0"}) {
			t.Fatal("lost its address")
		}
	})
}

// FuzzFolder: whatever is in the folder, nothing panics, what is reserved stays so, and what is free is found.
func FuzzFolder(f *testing.F) {
	f.Add("10.0.0.2", "c2\r\neth0")
	f.Add("10.0.0.2", "")
	f.Add("::ffff:10.0.0.2", "c1")
	f.Add("last_reserved_ip.0", "10.0.0.2")
	f.Add(".braid", "x")
	f.Add("lock", "x")
	f.Fuzz(func(t *testing.T, name, content string) {
		dir := filepath.Join(t.TempDir(), "blue")
		check(t, os.Mkdir(dir, 0o755))
		if filepath.Base(name) != name || os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600) != nil {
			return
		}
		s, err := Open(t.Context(), dir, anyNode, true)
		if err != nil {
			return
		}
		defer s.Close()
		a := must2(s.NextFree(addr("10.0.0.2"), last))(t)
		if blocked := name == "10.0.0.2" && !torn(content); blocked == (a == addr("10.0.0.2")) {
			t.Errorf("%q with %q: the next free address is %s", name, content, a)
		}
		_ = s.Cursor(0)
		o, ok := parseOwner(content)
		if ok && name == "10.0.0.2" {
			wantAddrs(t, s, o, name)
		}
		if err := s.Reserve(Owner{"c9", "eth0"}, []Pick{{a, 0, true}}); err != nil && s.privateErr == nil {
			t.Error(err)
		}
	})
}

func TestPageLayout(t *testing.T) {
	whole := header{
		Boot: hash("b"), Node: hash("n"), Salt: [16]byte{1, 15: 2}, Folder: stamp{1, 2, 3, 1 << 63},
		Pages: 5, Records: 6, Owners: table{7, 8}, Chunks: table{9, 1<<32 - 1},
	}
	b := whole.encode()
	var again header
	if len(b) != headerSize || !again.decode(b) || again != whole {
		t.Errorf("the header has %d bytes, and becomes %+v: want %d, %+v", len(b), again, headerSize, whole)
	}
	for i := range b {
		b[i] ^= 0x80
		if again.decode(b) {
			t.Errorf("byte %d of the header does not matter", i)
		}
		b[i] ^= 0x80
	}
	if pageHead+perPage*recordSize > pageSize || bitmapAt < pageHead {
		t.Error("a page does not hold what it should")
	}
}

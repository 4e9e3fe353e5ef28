package hostlocal_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/ipam/hostlocal"
)

// BenchmarkAllocate is one ADD and DEL while a /16 has n reservations: ours, the same in a worker, and the reference's own
// allocator and store. Neither has to start a process, and neither syncs to the disk.
func BenchmarkAllocate(b *testing.B) {
	const ranges = `[[{"subnet":"10.0.0.0/16"}]]`
	for _, n := range []int{10, 1000, 10_000, 60_000} {
		allocation := func(b *testing.B) {
			dir := b.TempDir()
			conf := config(dir, ranges)
			populate(b, dir, n)
			req := request(strings.Repeat("f", 64), conf)
			allocate := func() {
				if _, err := (hostlocal.Plugin{}).Add(b.Context(), req); err != nil {
					b.Fatal(err)
				}
				if err := (hostlocal.Plugin{}).Del(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
			allocate() // makes the index
			for b.Loop() {
				allocate()
			}
		}
		b.Run(fmt.Sprintf("braid/%d", n), allocation)
		b.Run(fmt.Sprintf("worker/%d", n), func(b *testing.B) {
			defer hostlocal.Keep()()
			allocation(b)
		})
		b.Run(fmt.Sprintf("reference/%d", n), func(b *testing.B) {
			dir := b.TempDir()
			populate(b, dir, n)
			l := newLibrary(b, dir, config(dir, ranges))
			for b.Loop() {
				if _, err := l.add(strings.Repeat("f", 64), nil); err != nil {
					b.Fatal(err)
				}
				l.del(strings.Repeat("f", 64))
			}
		})
	}
}

// BenchmarkReindex is what the first ADD costs after somebody else has changed the folder.
func BenchmarkReindex(b *testing.B) {
	dir := b.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/16"}]]`)
	populate(b, dir, 60_000)
	index := filepath.Join(dir, "blue", ".braid", "index")
	for b.Loop() {
		_ = os.Remove(index)
		if err := (hostlocal.Plugin{}).Status(b.Context(), request("", conf)); err != nil {
			b.Fatal(err)
		}
	}
}

// populate makes n reservations, the first addresses of 10.0.0.0/16, as the reference would.
func populate(b *testing.B, dir string, n int) {
	b.Helper()
	folder := filepath.Join(dir, "blue")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		b.Fatal(err)
	}
	a := netip.MustParseAddr("10.0.0.2")
	for i := range n {
		if err := os.WriteFile(filepath.Join(folder, a.String()), fmt.Appendf(nil, "%064d\r\neth0", i), 0o600); err != nil {
			b.Fatal(err)
		}
		a = a.Next()
	}
	if err := os.WriteFile(filepath.Join(folder, "last_reserved_ip.0"), []byte("10.0.0.1"), 0o600); err != nil {
		b.Fatal(err)
	}
}

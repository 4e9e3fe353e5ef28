// Package stock takes stock of a node: it lists all that pods have there, so that a test can compare what is left with what
// was before.
package stock

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/netdev"
)

// A Stock has an entry for each thing, with how often it is there.
type Stock map[string]int

// Add adds a thing.
func (s Stock) Add(format string, args ...any) { s[fmt.Sprintf(format, args...)]++ }

// Minus returns what is in the one and not in the other, sorted.
func (s Stock) Minus(other Stock) (things []string) {
	for _, thing := range slices.Sorted(maps.Keys(s)) {
		for range s[thing] - other[thing] {
			things = append(things, thing)
		}
	}
	return things
}

// Kernel adds the links of a namespace, with their addresses, the routes and the rules of routing.
func (s Stock) Kernel(t testing.TB, ns *nettest.NS) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := ns.Handle()
	links, err := netdev.Dump(h.LinkList)
	must(err)
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		s.Add("link %s %s master %q alias %q", l.Type(), a.Name, names[a.MasterIndex], a.Alias)
	}
	addrs, err := netdev.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	must(err)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() { // the kernel's own, which takes its time
			s.Add("address %s of %s", a.IPNet, names[a.LinkIndex])
		}
	}
	routes, err := netdev.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	must(err)
	for _, r := range routes {
		if !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
			s.Add("route %s via %v dev %s table %d", r.Dst, r.Gw, names[r.LinkIndex], r.Table)
		}
	}
	rules, err := netdev.Dump(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_ALL) })
	must(err)
	for _, r := range rules {
		s.Add("rule %s", r)
	}
}

// Rules adds the nftables rule set of the namespace that the caller runs in, word by word: in what order a set has its
// elements says nothing.
func (s Stock) Rules(t testing.TB) {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" ,\t\n", r) }) {
		s.Add("nft %s", word)
	}
}

// Files adds every file below the folders of dir, but what there may always be: locks, the cursors and the index of a
// network, and what an ADD has prepared and the next one replaces.
func (s Stock) Files(t testing.TB, dir string, folders ...string) {
	t.Helper()
	for _, folder := range folders {
		if _, err := os.Stat(filepath.Join(dir, folder)); err != nil {
			t.Fatal(err)
		}
		err := filepath.WalkDir(filepath.Join(dir, folder), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) { // removed meanwhile
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			name := d.Name()
			if name != "lock" && !strings.HasPrefix(name, "last_reserved_ip.") && filepath.Base(filepath.Dir(path)) != ".braid" {
				s.Add("file %s", strings.TrimPrefix(path, dir+"/"))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

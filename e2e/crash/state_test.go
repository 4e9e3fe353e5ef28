//go:build crash && linux && amd64

package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
)

// A state is all that pods have on a node, one entry for each thing, with how often it is there.
type state map[string]int

func (s state) add(format string, args ...any) { s[fmt.Sprintf(format, args...)]++ }

// minus returns what is in the one and not in the other.
func (s state) minus(other state) (things []string) {
	for _, thing := range slices.Sorted(maps.Keys(s)) {
		for range s[thing] - other[thing] {
			things = append(things, thing)
		}
	}
	return things
}

// state takes stock.
func (w *world) state() state {
	w.Helper()
	s := make(state)
	w.kernel(s)
	w.rules(s)
	w.files(s)
	return s
}

func (w *world) kernel(s state) {
	h := w.node.Handle()
	links, err := netdev.Dump(h.LinkList)
	w.must(err)
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		s.add("link %s %s master %q alias %q", l.Type(), a.Name, names[a.MasterIndex], a.Alias)
	}
	addrs, err := netdev.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	w.must(err)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() { // the kernel's own, which takes its time
			s.add("address %s of %s", a.IPNet, names[a.LinkIndex])
		}
	}
	routes, err := netdev.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	w.must(err)
	for _, r := range routes {
		if !r.Dst.IP.IsLinkLocalUnicast() && !r.Dst.IP.IsMulticast() {
			s.add("route %s via %v dev %s table %d", r.Dst, r.Gw, names[r.LinkIndex], r.Table)
		}
	}
	rules, err := netdev.Dump(func() ([]netlink.Rule, error) { return h.RuleList(netlink.FAMILY_ALL) })
	w.must(err)
	for _, r := range rules {
		s.add("rule %s", r)
	}
}

// rules takes the rule set apart: in what order a set has its elements says nothing.
func (w *world) rules(s state) {
	out, err := exec.Command("nft", "list", "ruleset").Output()
	w.must(err)
	for _, word := range strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" ,\t\n", r) }) {
		s.add("nft %s", word)
	}
}

// files lists everything that is kept on disk, but what there may always be: locks, the cursors and the index of a
// network, and what an ADD has prepared and the next one replaces.
func (w *world) files(s state) {
	for _, dir := range []string{"ipam", "braid", "dhcp.leases", "marks"} {
		if _, err := os.Stat(filepath.Join(w.dir, dir)); err != nil {
			w.Fatal(err)
		}
		err := filepath.WalkDir(filepath.Join(w.dir, dir), func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) { // removed meanwhile
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			name := d.Name()
			if name != "lock" && !strings.HasPrefix(name, "last_reserved_ip.") && filepath.Base(filepath.Dir(path)) != ".braid" {
				s.add("file %s", strings.TrimPrefix(path, w.dir+"/"))
			}
			return nil
		})
		w.must(err)
	}
}

// serverLeases are what the DHCP server thinks to be in use.
func (w *world) serverLeases() state {
	b, err := os.ReadFile(w.leases)
	if err != nil && !os.IsNotExist(err) {
		w.Fatal(err)
	}
	s := make(state)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 5 {
			s.add("lease of %s for %s", f[2], f[1])
		}
	}
	return s
}

// wrong says what is there that should not be, and what is missing.
func (w *world) wrong(want state) string {
	have := w.state()
	var lines []string
	for _, thing := range have.minus(want) {
		if w.ignored[thing] == 0 {
			lines = append(lines, "left: "+thing)
		}
	}
	for _, thing := range want.minus(have) {
		if w.ignored[thing] == 0 {
			lines = append(lines, "missing: "+thing)
		}
	}
	return strings.Join(lines, "\n")
}

// tolerate has nobody complain again of what is wrong now.
func (w *world) tolerate() {
	if w.ignored == nil {
		w.ignored = make(state)
	}
	have := w.state()
	for _, thing := range slices.Concat(have.minus(w.baseline), w.baseline.minus(have)) {
		w.ignored[thing]++
	}
}

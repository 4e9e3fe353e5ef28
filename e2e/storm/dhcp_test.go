//go:build storm && linux

package storm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/braid-cni/braid/e2e/stock"
)

// lease starts a DHCP server on the LAN, and the lease keeper.
func (w *world) lease() (leases string) {
	w.Helper()
	leases = filepath.Join(w.dir, "dnsmasq.leases")
	w.nic.LAN.Do(w, func() {
		w.background(exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--port=0",
			"--user=root", "--no-ping", "--interface="+w.nic.Port, "--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative",
			"--dhcp-leasefile="+leases, "--dhcp-lease-max=100000", "--pid-file="+filepath.Join(w.dir, "dnsmasq.pid"),
			"--dhcp-range=10.99.1.0,10.99.250.0,255.255.0.0,2h"))
	})
	socket := filepath.Join(w.dir, "dhcp.sock")
	w.background(exec.Command(binary("braidd"), "dhcp", "--socket", socket, "--cni-dir", filepath.Join(w.dir, "braid")))
	if complaint := wait(func() string {
		if _, err := os.Stat(socket); err != nil {
			return err.Error()
		}
		return ""
	}); complaint != "" {
		w.Fatalf("the lease keeper does not listen: %s", complaint)
	}
	return leases
}

// leased says whether an address is one of the DHCP server's, and so of no pool on the node.
func leased(address string) bool { return strings.HasPrefix(address, "10.99.") }

// leases are the addresses that the DHCP server thinks to be in use.
func (w *world) leases(file string) stock.Stock {
	b, err := os.ReadFile(file)
	w.must(err)
	s := make(stock.Stock)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 5 {
			s.Add("%s", f[2])
		}
	}
	return s
}

// TestDHCP has one more network for each pod, with a lease: the keeper gets all of them at once, and gives all of them back
// at once. Some of the ADDs race a DEL.
func TestDHCP(t *testing.T) {
	const n = 60
	w := newWorld(t, withDHCP)
	file := w.lease()
	w.begin()
	// released fails the test unless the server has one lease for each of the pods, and no other.
	released := func(pods ...*pod) {
		t.Helper()
		want := make(stock.Stock)
		for _, p := range pods {
			for _, a := range p.byResult() {
				if address, _, _ := strings.Cut(a, "/"); leased(address) {
					want.Add("%s", address)
				}
			}
		}
		if complaint := wait(func() string {
			have := w.leases(file)
			if more, less := have.Minus(want), want.Minus(have); len(more)+len(less) > 0 {
				return fmt.Sprintf("the DHCP server has %q too many, and %q is missing", more, less)
			}
			return ""
		}); complaint != "" {
			t.Error(complaint)
		}
	}
	for range rounds(1) {
		pods := w.newPods(n)
		w.all(pods, (*pod).startAdd)
		w.right(pods...)
		released(append(pods, w.witness)...)
		w.all(pods, (*pod).startDel)
		for _, p := range pods {
			p.gone()
			p.ns.Remove(t)
		}
		w.clean()
		released(w.witness)
	}
	var races sync.WaitGroup
	for range 8 {
		p := w.pod()
		races.Go(func() {
			for range rounds(4) {
				made := p.race(1, 1)
				if p.record() != nil {
					p.stands(made)
				}
				p.result = nil
				w.check0(p.del())
				p.gone()
			}
		})
	}
	races.Wait()
	released(w.witness)
	w.end()
	released()
	w.note("leases got in storms of 60", n*rounds(1))
	w.note("races of calls for one container", 8*rounds(4))
}

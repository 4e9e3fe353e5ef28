package dhcp_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/dhcp"
)

// A thousand leases in one keeper: what they cost while they are held, and that they are renewed.
func TestManyLeases(t *testing.T) {
	count := 1000
	if testing.Short() {
		count = 100
	}
	w := newWorld(t)
	pid, kill := w.keeperProcess()
	// T1 is far away; every server of a node with that many pods would see to that.
	s := w.server()
	s.set(func(s *fakeServer) {
		s.next = netip.MustParseAddr("198.18.0.1")
		s.options = append(s.options, dhcpv4.OptSubnetMask([]byte{255, 255, 0, 0}))
	})
	if err := w.lan.Handle().RouteAdd(&netlink.Route{LinkIndex: w.lan.Link(t, w.nic.Port).Attrs().Index, Dst: cidr(t, "198.18.0.0/16")}); err != nil {
		t.Fatal(err)
	}
	s.answerByUnicast()
	before := usageOf(t, pid)
	p := w.pod("")
	w.interfaces(p, count)
	start := time.Now()
	each(count, func(i int) {
		req := *p.req
		req.IfName = fmt.Sprintf("n%d", i)
		if _, err := (dhcp.Plugin{}).Add(context.Background(), &req); err != nil {
			t.Errorf("ADD %d: %v", i, err)
		}
	})
	took := time.Since(start)
	var now usage
	w.eventually("the keeper is idle", func() bool { now = usageOf(t, pid); return now.fds <= before.fds+2 })
	t.Logf("%d leases in %s; the keeper has %d KiB, before %d KiB: %.1f KiB for each; %d threads, %d descriptors",
		count, took.Round(time.Millisecond), now.kib, before.kib, float64(now.kib-before.kib)/float64(count), now.threads, now.fds)
	// Threads wait for the disk, of the leases that are got at once: 61 were seen beside other work on the disk, 35 without.
	if now.threads > 100 {
		t.Errorf("%d threads for %d leases", now.threads, count)
	}
	if perLease := (now.kib - before.kib) / count; perLease > 256 { // the race detector takes most of that
		t.Errorf("%d KiB for each lease", perLease)
	}

	kill()
	w.killableKeeper()
	w.eventually("all leases are taken up again", func() bool {
		return len(s.received(dhcpv4.MessageTypeRequest)) >= 2*count
	})
	start = time.Now()
	each(count, func(i int) {
		req := *p.req
		req.IfName = fmt.Sprintf("n%d", i)
		if err := (dhcp.Plugin{}).Del(context.Background(), &req); err != nil {
			t.Errorf("DEL %d: %v", i, err)
		}
	})
	t.Logf("released in %s", time.Since(start).Round(time.Millisecond))
	w.eventually("all leases are released", func() bool { return s.clients() == 0 })
}

// interfaces makes many of them, in one namespace, which cannot hear each other's broadcasts.
func (w *world) interfaces(p *pod, count int) {
	w.Helper()
	node := nettest.Node(w)
	parent := node.Link(w, w.nic.Name).Attrs().Index
	ns, err := os.Open(p.ns.Path())
	if err != nil {
		w.Fatal(err)
	}
	defer ns.Close()
	for i := range count {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.Namespace = fmt.Sprintf("n%d", i), parent, netlink.NsFd(ns.Fd())
		attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
		if err := node.Handle().LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PRIVATE}); err != nil {
			w.Fatal(err)
		}
	}
}

// each calls do for all numbers below count, several at a time.
func each(count int, do func(int)) {
	numbers := make(chan int)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for i := range numbers {
				do(i)
			}
		})
	}
	for i := range count {
		numbers <- i
	}
	close(numbers)
	all.Wait()
}

// usage is what a process takes.
type usage struct{ kib, threads, fds int }

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		fields := strings.Fields(line)
		switch fields[0] {
		case "VmRSS:":
			u.kib, _ = strconv.Atoi(fields[1])
		case "Threads:":
			u.threads, _ = strconv.Atoi(fields[1])
		}
	}
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	u.fds = len(fds)
	return u
}

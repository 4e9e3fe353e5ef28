package nettest

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A NIC stands for a physical network card of a node and for what is at the other end of its cable. It is one end of
// a veth pair: a device that every kernel has, and that macvlan and ipvlan accept as their parent.
type NIC struct {
	Name string // of the card, in the node
	LAN  *NS    // the other end of the cable: a namespace for routers, DHCP servers and other hosts
	Port string // the interface of the LAN that the cable ends at
}

// Parent plugs a NIC into the namespace, usually [Node]. Both ends are up. The NIC is removed when the test ends.
func Parent(t testing.TB, ns *NS) *NIC {
	t.Helper()
	NeedRoot(t)
	nic := &NIC{Name: Name("nic"), LAN: NewNS(t), Port: "lan0"}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nic.Port, PeerNamespace: netlink.NsFd(nic.LAN.fd)}
	veth.Name = nic.Name
	veth.NumTxQueues, veth.NumRxQueues = 1, 1
	if err := ns.handle.LinkAdd(veth); err != nil {
		t.Fatalf("make the NIC %s: %v", nic.Name, err)
	}
	t.Cleanup(func() {
		if ns.removed {
			return
		}
		if err := ns.handle.LinkDel(veth); err != nil && !errors.Is(err, unix.ENODEV) {
			t.Errorf("delete the NIC %s: %v", nic.Name, err)
		}
	})
	if err := errors.Join(ns.handle.LinkSetUp(veth), nic.LAN.handle.LinkSetUp(nic.LAN.Link(t, nic.Port))); err != nil {
		t.Fatalf("set the NIC %s up: %v", nic.Name, err)
	}
	// A card has been up for long when a pod comes. The kernel takes a moment to tell IPv6 of the carrier; whoever asks for
	// duplicate addresses meanwhile gets no answer.
	for _, end := range []struct {
		ns   *NS
		name string
	}{{ns, nic.Name}, {nic.LAN, nic.Port}} {
		for deadline := time.Now().Add(10 * time.Second); end.ns.Link(t, end.name).Attrs().OperState != netlink.OperUp; {
			if time.Now().After(deadline) {
				t.Fatalf("%s has no carrier", end.name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nic
}

// Name returns an interface name that no other test uses: the prefix and eight hexadecimal digits.
func Name(prefix string) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

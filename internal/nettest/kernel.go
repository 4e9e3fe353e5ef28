package nettest

import (
	"errors"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

// A Feature is something that not every kernel has.
type Feature struct {
	name  string
	probe func(h *netlink.Handle) error // in a namespace of its own, which nobody has to tidy up
}

// The features that tests ask for.
var (
	Macvlan = Feature{"macvlan", onParent(func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}
	})}
	IPVLAN = Feature{"ipvlan", onParent(func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.IPVlan{LinkAttrs: a, Mode: netlink.IPVLAN_MODE_L2}
	})}
	VLAN = Feature{"802.1q vlan", onParent(func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.Vlan{LinkAttrs: a, VlanId: 100}
	})}
	Dummy = Feature{"dummy", alone(func(a netlink.LinkAttrs) netlink.Link { return &netlink.Dummy{LinkAttrs: a} })}
	Bond  = Feature{"bond", alone(func(a netlink.LinkAttrs) netlink.Link {
		bond := netlink.NewLinkBond(a)
		bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
		return bond
	})}
	VRF = Feature{"vrf", alone(func(a netlink.LinkAttrs) netlink.Link {
		return &netlink.Vrf{LinkAttrs: a, Table: 100}
	})}
	BridgeVLANFiltering = Feature{"bridge vlan_filtering", probeVLANFiltering}
)

// NeedKernel skips the test, with the kernel's reason, if one of the features is missing. With
// BRAID_TEST_FULL_KERNEL=1, on a kernel that is known to have them all, a missing feature fails the test.
func NeedKernel(t testing.TB, features ...Feature) {
	t.Helper()
	for _, f := range features {
		err := f.probe(NewNS(t).Handle())
		switch {
		case err == nil:
		case os.Getenv("BRAID_TEST_FULL_KERNEL") == "1":
			t.Fatalf("this kernel has no %s: %v", f.name, err)
		default:
			t.Skipf("this kernel has no %s: %v", f.name, err)
		}
	}
}

func alone(device func(netlink.LinkAttrs) netlink.Link) func(*netlink.Handle) error {
	return func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "probe"
		return h.LinkAdd(device(attrs))
	}
}

func onParent(device func(netlink.LinkAttrs) netlink.Link) func(*netlink.Handle) error {
	return func(h *netlink.Handle) error {
		parent := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
		parent.Name = "parent"
		if err := h.LinkAdd(parent); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = "probe", parent.Index
		return h.LinkAdd(device(attrs))
	}
}

// probeVLANFiltering reads back what it asked for: a kernel without it ignores the attribute.
func probeVLANFiltering(h *netlink.Handle) error {
	on := true
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}, VlanFiltering: &on}); err != nil {
		return err
	}
	link, err := h.LinkByName("probe")
	if err != nil {
		return err
	}
	if br, ok := link.(*netlink.Bridge); !ok || br.VlanFiltering == nil || !*br.VlanFiltering {
		return errors.New("the attribute is ignored")
	}
	return nil
}

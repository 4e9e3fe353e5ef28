package e2e

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

const defaultLAN = `"delegates": [{"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "master": "$NIC",
	"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.30.0.0/24"}}]`

// recable makes the network card of the node again, as if its driver had been loaded anew.
func (n *node) recable() {
	n.t.Helper()
	lan := nettest.NewNS(n.t)
	f, err := os.Open(lan.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "lan0", PeerNamespace: netlink.NsFd(f.Fd())}
	veth.Name, veth.Flags = n.nic, net.FlagUp
	if err := n.ns.Handle().LinkAdd(veth); err != nil {
		n.t.Fatal(err)
	}
	if err := lan.Handle().LinkSetUp(lan.Link(n.t, "lan0")); err != nil {
		n.t.Fatal(err)
	}
}

// TestParentComesAndGoes: whatever becomes of the network card under running pods, CHECK says it, DEL works without it, an
// ADD and STATUS say what is missing, and when it is back all is as before.
func TestParentComesAndGoes(t *testing.T) {
	for _, tt := range []struct {
		name, lose, back   string
		check, add, status string // what they say
		survives           bool   // pods that have been there are well again when it is back
	}{
		{"deleted", "ip link del $NIC", "", "deleted with its parent, and that is missing: master: no such parent interface: $NIC",
			"master: no such parent interface: $NIC", "master: no such parent interface: $NIC", false},
		{"down", "ip link set $NIC down", "ip link set $NIC up", "the parent $NIC of eth0 is down",
			"the parent interface $NIC is down", "the parent interface $NIC is down", true},
		{"renamed", "ip link set $NIC down; ip link set $NIC name renamed0; ip link set renamed0 up",
			"ip link set renamed0 down; ip link set renamed0 name $NIC; ip link set $NIC up",
			"eth0 is stacked on renamed0: master: no such parent interface: $NIC", "no such parent interface: $NIC", "no such parent interface: $NIC", true},
		{"renamed, and another has its name", "ip link set $NIC down; ip link set $NIC name renamed0; ip link set renamed0 up; ip link add $NIC type bridge; ip link set $NIC up",
			"ip link del $NIC; ip link set renamed0 down; ip link set renamed0 name $NIC; ip link set $NIC up",
			"eth0 is stacked on renamed0, want $NIC", "", "", true},
		{"moved away", "ip link set $NIC netns $AWAY", "", "has been moved to another network namespace",
			"no such parent interface: $NIC", "no such parent interface: $NIC", false},
		{"moved away, and another has its index", "ip link set $NIC netns $AWAY; ip link add other0 index $INDEX type bridge; ip link set other0 up",
			"ip link del other0", "has been moved to another network namespace", "no such parent interface: $NIC", "no such parent interface: $NIC", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.keys += ", " + defaultLAN
			away := nettest.NewNS(t)
			expand := strings.NewReplacer("$NIC", n.nic, "$AWAY", away.Path(), "$INDEX", strconv.Itoa(n.ns.Link(t, n.nic).Attrs().Index)).Replace
			web, db, gone := n.pod("web", ""), n.pod("db", ""), n.pod("gone", "")
			web.mustAdd()
			gone.mustAdd()
			status := func() error { return web.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")) }
			if err := status(); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			n.shell(expand(tt.lose))
			wantError(t, "CHECK", web.check(), expand(tt.check))
			if tt.add != "" {
				_, err := db.add()
				wantError(t, "ADD", err, expand(tt.add))
				wantError(t, "STATUS", status(), expand(tt.status))
				if left := n.has("10.30.0.4"); len(left) > 0 {
					t.Errorf("the failed ADD left %q", left)
				}
			}
			gone.mustDel()
			if left := n.has("10.30.0.3"); len(left) > 0 {
				t.Errorf("DEL left %q", left)
			}
			if tt.back != "" {
				n.shell(expand(tt.back))
			}
			if !tt.survives {
				n.recable()
			}
			if err := status(); err != nil {
				t.Errorf("STATUS when it is back: %v", err)
			}
			db.mustAdd()
			if err := db.check(); err != nil {
				t.Errorf("CHECK of a new pod: %v", err)
			}
			switch err := web.check(); {
			case tt.survives && err != nil:
				t.Errorf("CHECK of the pod that has been there: %v", err)
			case tt.survives:
				nettest.Reach(t, web.ns, db.ns, "10.30.0.4")
			case err == nil:
				t.Error("CHECK of the pod that has been there finds nothing")
			}
			web.mustDel()
			db.mustDel()
			n.left()
		})
	}
}

package bridge_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// TestFirstPacket: what is said of a port is in effect before it is set up, as no packet can pass before.
func TestFirstPacket(t *testing.T) {
	for _, keys := range []string{`"mtu": 1400`, `"hairpinMode": true`, `"portIsolation": true`, `"vlan": 7`, `"vlanTrunk": [{"id": 7}]`} {
		t.Run(keys, func(t *testing.T) {
			if strings.Contains(keys, "vlan") {
				nettest.NeedKernel(t, nettest.BridgeVLANFiltering)
			}
			w := newWorld(t)
			w.attached(keys) // the first port changes the bridge, and the bridge all of its ports
			news := w.news()
			p := w.attached(keys)
			before, after := "not set up", ""
			for _, n := range news() {
				if n.index != p.port().Attrs().Index || n.family != unix.AF_BRIDGE {
					continue
				}
				if !n.up {
					before = n.properties
				}
				after = n.properties
			}
			if before != after {
				t.Errorf("set up with the properties %s, which then are %s", before, after)
			}
		})
	}
}

// TestFirstPacketIsChecked: where its source cannot be checked, no packet passes.
func TestFirstPacketIsChecked(t *testing.T) {
	w := newWorld(t)
	w.attached("")
	c, err := nftables.New()
	must(t, err)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "braid"})
	must(t, c.AddSet(&nftables.Set{Table: table, Name: "ports", KeyType: nftables.TypeMark}, nil))
	must(t, c.Flush())
	news := w.news()
	p := w.pod(`"macspoofchk": true`)
	if p.add() == nil {
		t.Error("ADD passes")
	}
	seen := false
	for _, n := range news() {
		isPort := n.family == unix.AF_BRIDGE && n.index != w.br().Index
		seen = seen || isPort
		if isPort && n.up {
			t.Errorf("port %d has been set up", n.index)
		}
	}
	if !seen {
		t.Error("there has been no port")
	}
	c.DelTable(table)
	must(t, c.Flush())
}

// A notice is what the kernel tells of an interface that changes. Of a port of a bridge it tells some by the family AF_BRIDGE.
type notice struct {
	family     uint8
	index      int
	up         bool
	properties string
}

// news returns a function that returns what the kernel has told of the node's interfaces since.
func (w *world) news() func() []notice {
	w.Helper()
	var s *nl.NetlinkSocket
	w.node.Do(w, func() {
		var err error
		s, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
		must(w, err)
	})
	w.Cleanup(s.Close)
	return func() (list []notice) {
		buffer := make([]byte, 64<<10)
		for {
			n, _, err := unix.Recvfrom(s.GetFd(), buffer, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				return list
			}
			must(w, err)
			messages, err := syscall.ParseNetlinkMessage(buffer[:n])
			must(w, err)
			for _, m := range messages {
				list = append(list, noticeOf(w, m))
			}
		}
	}
}

func noticeOf(w *world, m syscall.NetlinkMessage) notice {
	header := nl.DeserializeIfInfomsg(m.Data)
	n := notice{family: header.Family, index: int(header.Index), up: header.Flags&unix.IFF_UP != 0}
	attrs, err := nl.ParseRouteAttr(m.Data[header.Len():])
	must(w, err)
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_PROTINFO | unix.NLA_F_NESTED:
			port, err := nl.ParseRouteAttr(a.Value)
			must(w, err)
			for _, of := range port {
				if of.Attr.Type == nl.IFLA_BRPORT_MODE || of.Attr.Type == nl.IFLA_BRPORT_ISOLATED {
					n.properties += fmt.Sprintf("%d: %d; ", of.Attr.Type, of.Value[0])
				}
			}
		case unix.IFLA_AF_SPEC:
			vlans, err := nl.ParseRouteAttr(a.Value)
			must(w, err)
			for _, v := range vlans {
				n.properties += fmt.Sprintf("VLAN %d with flags %d; ", nl.NativeEndian().Uint16(v.Value[2:]), nl.NativeEndian().Uint16(v.Value))
			}
		}
	}
	return n
}

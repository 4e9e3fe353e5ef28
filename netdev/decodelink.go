package netdev

import (
	"encoding/binary"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// skipStatistics is RTEXT_FILTER_SKIP_STATS. A kernel before 4.4 does not know it, and tells them all the same.
const skipStatistics = 1 << 3

// withoutStatistics keeps the kernel from adding up, for all its processors, what an interface has sent and received.
func withoutStatistics() nl.NetlinkRequestData {
	return nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStatistics))
}

// decodeLink reads of an interface what plugins look at. Most of a message is something else, which the library would decode
// as well; that takes it longer than all the rest.
func decodeLink(message []byte) (netlink.Link, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return nil, unix.EBADMSG
	}
	kept := append(make([]byte, 0, min(len(message), 512)), message[:unix.SizeofIfInfomsg]...)
	err := attributes(message[unix.SizeofIfInfomsg:], func(kind uint16, attribute []byte) (err error) {
		switch kind {
		case unix.IFLA_IFNAME, unix.IFLA_PROP_LIST, unix.IFLA_IFALIAS, unix.IFLA_ADDRESS, unix.IFLA_MTU, unix.IFLA_OPERSTATE,
			unix.IFLA_LINK, unix.IFLA_LINK_NETNSID, unix.IFLA_MASTER, unix.IFLA_GROUP:
			kept = append(kept, attribute...)
		case unix.IFLA_LINKINFO:
			kept, err = nest(kept, attribute, keepInfo)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return netlink.LinkDeserialize(nil, kept)
}

// keepInfo appends what is particular to the kind of the interface, and not to that of a bridge of which it is a port.
func keepInfo(kept, info []byte) ([]byte, error) {
	isBridge := false
	err := attributes(info, func(kind uint16, attribute []byte) (err error) {
		switch kind {
		case nl.IFLA_INFO_KIND:
			isBridge = string(attribute[unix.SizeofRtAttr:]) == "bridge\x00\x00" // the last is to fill up
			kept = append(kept, attribute...)
		case nl.IFLA_INFO_DATA:
			if isBridge {
				kept, err = nest(kept, attribute, keepBridge)
			} else {
				kept = append(kept, attribute...)
			}
		}
		return err
	})
	return kept, err
}

// keepBridge appends those of half a hundred settings of a bridge that the library knows too.
func keepBridge(kept, data []byte) ([]byte, error) {
	err := attributes(data, func(kind uint16, attribute []byte) error {
		switch kind {
		case nl.IFLA_BR_AGEING_TIME, nl.IFLA_BR_HELLO_TIME, nl.IFLA_BR_MCAST_SNOOPING, nl.IFLA_BR_VLAN_FILTERING,
			nl.IFLA_BR_VLAN_DEFAULT_PVID, nl.IFLA_BR_GROUP_FWD_MASK:
			kept = append(kept, attribute...)
		}
		return nil
	})
	return kept, err
}

// attributes calls do for each attribute, given with its header and what fills it up.
func attributes(list []byte, do func(kind uint16, attribute []byte) error) error {
	for len(list) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(list))
		size := (length + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		if length < unix.SizeofRtAttr || size > len(list) {
			return unix.EBADMSG
		}
		if err := do(binary.NativeEndian.Uint16(list[2:])&^unix.NLA_F_NESTED, list[:size]); err != nil {
			return err
		}
		list = list[size:]
	}
	return nil
}

// nest appends an attribute of attributes, with those that keep appends of them.
func nest(kept, attribute []byte, keep func(kept, list []byte) ([]byte, error)) ([]byte, error) {
	at := len(kept)
	kept, err := keep(append(kept, attribute[:unix.SizeofRtAttr]...), attribute[unix.SizeofRtAttr:])
	binary.NativeEndian.PutUint16(kept[at:], uint16(len(kept)-at))
	return kept, err
}

package netdev

import (
	"encoding/binary"
	"errors"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A namespace can be asked about another one that it has a number for (nsid). So what is made there is looked at by the datagram
// that makes it, and what comes of a pair of interfaces at both of its ends.

// LinkIn has an interface of another namespace looked up, as [Namespace.Link] does it there. It is left nil if there is none, or if
// the kernel cannot be asked this way: that is no error.
func (b *Batch) LinkIn(other *Namespace, name string, into *netlink.Link) {
	if other == b.ns {
		b.Link(name, into)
		b.tolerate(ErrNotFound)
		return
	}
	number, err := b.ns.numberOf(other)
	if err != nil {
		return
	}
	b.add(unix.RTM_GETLINK, 0, func(messages [][]byte, err error) error {
		// A kernel before 4.15 does not see the number, and tells of its own interface of the name.
		if err != nil || len(messages) != 1 || len(messages[0]) < unix.SizeofIfInfomsg {
			return nil
		}
		if about, ok := numberIn(messages[0][unix.SizeofIfInfomsg:], unix.IFLA_TARGET_NETNSID); ok && about == number {
			*into, _ = decodeLink(messages[0])
		}
		return nil
	}, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(number))), withoutStatistics())
}

// numberIn returns an attribute that is a number.
func numberIn(list []byte, which uint16) (n int32, ok bool) {
	_ = attributes(list, func(kind uint16, attribute []byte) error {
		if kind == which && len(attribute) == unix.SizeofRtAttr+4 {
			n, ok = int32(binary.NativeEndian.Uint32(attribute[unix.SizeofRtAttr:])), true
		}
		return nil
	})
	return n, ok
}

// numbered is the number that a namespace was last asked for.
type numbered struct {
	by     *Namespace
	number int32
}

// numberOf returns the number by which the namespace knows another one, and gives it one if need be. The kernel does that too, as
// soon as an interface of the one has its other end in the other.
func (ns *Namespace) numberOf(other *Namespace) (int32, error) {
	other.numbering.Lock()
	defer other.numbering.Unlock()
	if other.numbered.by == ns {
		return other.numbered.number, nil
	}
	header := nl.NewRtGenMsg()
	which := nl.NewRtAttr(netlink.NETNSA_FD, nl.Uint32Attr(uint32(other.FD())))
	number := int32(-1)
	b := ns.Batch()
	b.add(unix.RTM_NEWNSID, unix.NLM_F_ACK, plainError, header, nl.NewRtAttr(netlink.NETNSA_NSID, nl.Uint32Attr(^uint32(0))), which)
	b.tolerate(unix.EEXIST)
	b.add(unix.RTM_GETNSID, 0, func(messages [][]byte, err error) error {
		if err == nil && len(messages) == 1 && len(messages[0]) > header.Len() {
			number, _ = numberIn(messages[0][header.Len():], netlink.NETNSA_NSID)
		}
		return err
	}, header, which)
	err := b.Send()
	if err == nil && number < 0 {
		err = errors.New("the kernel gives the namespace no number")
	}
	if err != nil {
		return 0, err
	}
	other.numbered = numbered{ns, number}
	return number, nil
}

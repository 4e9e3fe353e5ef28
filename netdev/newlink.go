package netdev

import (
	"cmp"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A NewLink is an interface that is to be made. What is zero is left to the kernel.
type NewLink struct {
	Kind, Name string
	In         *Namespace // where it is to be, if that is not the namespace that is asked
	Up         bool
	MTU        int
	MAC        net.HardwareAddr
	Parent     int // index of the interface that it is stacked on
	TxQueues   int
	RxQueues   int
	Peer       *NewLink     // the other end of a veth pair
	Data       []*nl.RtAttr // what only its kind has
}

// ErrExists is that an interface could not be made, since there is one that has its name, or that of its peer.
var ErrExists = fmt.Errorf("the name of the interface is taken: %w", unix.EEXIST)

// NewLink makes an interface and returns what it has become; nil if that has to be asked where it is. The error wraps
// [ErrExists], or is the kernel's.
func (ns *Namespace) NewLink(l *NewLink) (made netlink.Link, err error) {
	b := ns.Batch()
	b.NewLink(l)
	b.LinkIn(cmp.Or(l.In, ns), l.Name, &made)
	return made, b.Send()
}

// NewLink has an interface made, where it is to be and with all that is said of it. The error wraps [ErrExists], or is the
// kernel's.
func (b *Batch) NewLink(l *NewLink) {
	data := []nl.NetlinkRequestData{l.header()}
	for _, a := range l.attributes() {
		data = append(data, a)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(l.Kind))
	own := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for _, a := range l.Data {
		own.AddChild(a)
	}
	if l.Peer != nil {
		peer := own.AddRtAttr(nl.VETH_INFO_PEER, nil)
		peer.AddChild(l.Peer.header())
		for _, a := range l.Peer.attributes() {
			peer.AddChild(a)
		}
	}
	b.add(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, func(_ [][]byte, err error) error {
		if errors.Is(err, unix.EEXIST) {
			return ErrExists
		}
		return err
	}, append(data, info)...)
}

func (l *NewLink) header() *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	if l.Up {
		m.Flags, m.Change = unix.IFF_UP, unix.IFF_UP
	}
	return m
}

func (l *NewLink) attributes() []*nl.RtAttr {
	attributes := []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(l.Name))}
	for _, a := range []struct{ kind, value int }{
		{unix.IFLA_LINK, l.Parent}, {unix.IFLA_MTU, l.MTU},
		{unix.IFLA_NUM_TX_QUEUES, l.TxQueues}, {unix.IFLA_NUM_RX_QUEUES, l.RxQueues},
	} {
		if a.value != 0 {
			attributes = append(attributes, nl.NewRtAttr(a.kind, nl.Uint32Attr(uint32(a.value))))
		}
	}
	if l.MAC != nil {
		attributes = append(attributes, nl.NewRtAttr(unix.IFLA_ADDRESS, l.MAC))
	}
	if l.In != nil {
		attributes = append(attributes, nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(l.In.FD()))))
	}
	return attributes
}

package netdev

import (
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

// NewLink makes an interface. The error is the kernel's.
func (ns *Namespace) NewLink(l *NewLink) error {
	b := ns.Batch()
	b.NewLink(l)
	return b.Send()
}

// NewLinkHere makes an interface in the namespace that is asked, of a pair the end that is there, and returns what it has become. The
// error is the kernel's.
func (ns *Namespace) NewLinkHere(l *NewLink) (made netlink.Link, err error) {
	b := ns.Batch()
	b.newLink(l, unix.NLM_F_ECHO, func(messages [][]byte, err error) error {
		if err == nil && len(messages) > 0 {
			made, err = decodeLink(messages[0])
		}
		return err
	})
	if err = b.Send(); err != nil || made != nil {
		return made, err
	}
	return ns.Link(l.Name) // a kernel before 6.2 knows no echo
}

// NewLink has an interface made, where it is to be and with all that is said of it. The error is the kernel's. Of one that is made
// elsewhere the kernel's echo would tell nothing.
func (b *Batch) NewLink(l *NewLink) { b.newLink(l, 0, plainError) }

func (b *Batch) newLink(l *NewLink, flags int, judge func([][]byte, error) error) {
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
	b.add(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK|flags, judge, append(data, info)...)
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

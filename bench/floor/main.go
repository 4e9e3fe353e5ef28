// Command floor is the least that can be: one process that attaches a pod with the netlink requests that are necessary,
// several in one datagram, and nothing else. It checks nothing, asks nobody, keeps no reservation and takes nothing back.
// The benchmarks measure plugins against it. It is called as a CNI plugin.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A config says all that the driver knows already.
type config struct {
	CNIVersion  string `json:"cniVersion"`
	Attachments []attachment
	// Journal is a folder. If it is given, a record is written there durably before and after the ADD, as a plugin does
	// that survives kill -9 and the loss of power.
	Journal string
}

type attachment struct {
	IfName  string
	Parent  string   // the bridge, or the parent of a macvlan interface
	Macvlan bool     // or else a port of a bridge
	IPs     []string // in CIDR notation
	Gateway string   // of the default route; may be empty
}

// group is that of all links of a pod, so that one request deletes them.
const group = 0xb1a1d

func main() {
	runtime.LockOSThread()
	var c config
	err := json.NewDecoder(os.Stdin).Decode(&c)
	if err == nil {
		switch os.Getenv("CNI_COMMAND") {
		case "ADD":
			err = add(&c)
		case "DEL":
			err = del(&c)
		default:
			err = errors.New("ADD and DEL only")
		}
	}
	if err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": c.CNIVersion, "code": 999, "msg": err.Error()})
		os.Exit(1)
	}
}

func add(c *config) error {
	if err := c.record(false); err != nil {
		return err
	}
	pod, err := unix.Open(os.Getenv("CNI_NETNS"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	node, err := dial()
	if err != nil {
		return err
	}
	var lookups, links [][]byte
	for _, a := range c.Attachments {
		lookups = append(lookups, lookup(a.Parent))
	}
	parents, err := node.links(lookups)
	if err != nil {
		return err
	}
	for i, a := range c.Attachments {
		links = append(links, newLink(&a, parents[i], pod, fmt.Sprintf("fl%05x%d", os.Getpid(), i)))
	}
	if err := node.do(links); err != nil {
		return fmt.Errorf("make links: %w", err)
	}
	if err := unix.Setns(pod, unix.CLONE_NEWNET); err != nil {
		return err
	}
	inside, err := dial()
	if err != nil {
		return err
	}
	lookups = nil
	for _, a := range c.Attachments {
		lookups = append(lookups, lookup(a.IfName))
	}
	indexes, err := inside.links(lookups)
	if err != nil {
		return err
	}
	var configure [][]byte
	for i, a := range c.Attachments {
		configure = append(configure, configured(&a, indexes[i])...)
	}
	if err := inside.do(configure); err != nil {
		return fmt.Errorf("configure links: %w", err)
	}
	if err := c.record(true); err != nil {
		return err
	}
	var interfaces, ips []map[string]any
	for i, a := range c.Attachments {
		interfaces = append(interfaces, map[string]any{"name": a.IfName, "sandbox": os.Getenv("CNI_NETNS")})
		for _, ip := range a.IPs {
			ips = append(ips, map[string]any{"address": ip, "interface": i})
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"cniVersion": c.CNIVersion, "interfaces": interfaces, "ips": ips})
}

func del(c *config) error {
	pod, err := unix.Open(os.Getenv("CNI_NETNS"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Setns(pod, unix.CLONE_NEWNET); err != nil {
		return err
	}
	inside, err := dial()
	if err != nil {
		return err
	}
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if err := inside.do([][]byte{r.Serialize()}); err != nil {
		return err
	}
	if c.Journal != "" {
		return os.Remove(c.path())
	}
	return nil
}

func (c *config) path() string { return filepath.Join(c.Journal, os.Getenv("CNI_CONTAINERID")) }

func (c *config) record(done bool) error {
	if c.Journal == "" {
		return nil
	}
	b, err := json.Marshal(map[string]any{"done": done, "record": c})
	if err != nil {
		return err
	}
	f, err := os.Create(c.path() + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), c.path()); err != nil {
		return err
	}
	d, err := os.Open(c.Journal)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func lookup(name string) []byte {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	return r.Serialize()
}

// newLink makes a link in its place: directly in the pod, under its final name.
func newLink(a *attachment, parent int32, pod int, host string) []byte {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	inPod := func(add func(attribute int, data []byte)) {
		add(unix.IFLA_IFNAME, nl.ZeroTerminated(a.IfName))
		add(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(pod)))
		add(unix.IFLA_GROUP, nl.Uint32Attr(group))
	}
	top := func(attribute int, data []byte) { r.AddData(nl.NewRtAttr(attribute, data)) }
	if a.Macvlan {
		r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		inPod(top)
		top(unix.IFLA_LINK, nl.Uint32Attr(uint32(parent)))
		info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("macvlan"))
		info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(nl.MACVLAN_MODE_BRIDGE))
		r.AddData(info)
		return r.Serialize()
	}
	up := nl.NewIfInfomsg(unix.AF_UNSPEC)
	up.Flags, up.Change = unix.IFF_UP, unix.IFF_UP
	r.AddData(up)
	top(unix.IFLA_IFNAME, nl.ZeroTerminated(host))
	top(unix.IFLA_MASTER, nl.Uint32Attr(uint32(parent)))
	// By default there is one queue for each CPU, and the kernel waits for an RCU grace period to take them away again.
	top(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1))
	top(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1))
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	inPod(func(attribute int, data []byte) { peer.AddRtAttr(attribute, data) })
	peer.AddRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1))
	peer.AddRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1))
	r.AddData(info)
	return r.Serialize()
}

// configured sets a link up, with addresses and the default route.
func configured(a *attachment, index int32) (messages [][]byte) {
	r := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	up := nl.NewIfInfomsg(unix.AF_UNSPEC)
	up.Index, up.Flags, up.Change = index, unix.IFF_UP, unix.IFF_UP
	r.AddData(up)
	messages = append(messages, r.Serialize())
	for _, cidr := range a.IPs {
		ip, network, err := net.ParseCIDR(cidr)
		if err != nil {
			continue
		}
		family, raw := unix.AF_INET6, []byte(ip)
		if v4 := ip.To4(); v4 != nil {
			family, raw = unix.AF_INET, v4
		}
		ones, _ := network.Mask.Size()
		r := nl.NewNetlinkRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		m := nl.NewIfAddrmsg(family)
		m.Prefixlen, m.Index = uint8(ones), uint32(index)
		if family == unix.AF_INET6 {
			m.IfAddrmsg.Flags = unix.IFA_F_NODAD
		}
		r.AddData(m)
		r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, raw))
		r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, raw))
		messages = append(messages, r.Serialize())
	}
	if gw := net.ParseIP(a.Gateway).To4(); gw != nil {
		r := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		m := nl.NewRtMsg()
		m.Family = unix.AF_INET
		r.AddData(m)
		r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, gw))
		r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
		messages = append(messages, r.Serialize())
	}
	return messages
}

// A socket speaks rtnetlink in the namespace that it was opened in.
type socket struct{ fd int }

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &socket{fd}, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// do sends all messages in one datagram, and returns the first error.
func (s *socket) do(messages [][]byte) error {
	_, err := s.links(messages)
	return err
}

// links is do; it returns the interface indexes of the answers, in order.
func (s *socket) links(messages [][]byte) (indexes []int32, err error) {
	var datagram []byte
	for _, m := range messages {
		datagram = append(datagram, m...)
	}
	if err := unix.Sendto(s.fd, datagram, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	b := make([]byte, 64<<10)
	for acks := 0; acks < len(messages); {
		n, _, err := unix.Recvfrom(s.fd, b, 0)
		if err != nil {
			return nil, err
		}
		answers, err := syscall.ParseNetlinkMessage(b[:n])
		if err != nil {
			return nil, err
		}
		for _, m := range answers {
			switch m.Header.Type {
			case unix.NLMSG_ERROR:
				acks++
				if errno := int32(nl.NativeEndian().Uint32(m.Data[0:4])); errno != 0 {
					return nil, unix.Errno(-errno)
				}
			case unix.RTM_NEWLINK:
				indexes = append(indexes, nl.DeserializeIfInfomsg(m.Data).Index)
			}
		}
	}
	return indexes, nil
}

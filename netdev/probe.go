package netdev

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
)

// A Probe says how others on the link are asked for addresses before an interface uses them: how many times, and how
// long is listened after each. The zero Probe asks nobody.
//
// As JSON it is true, false, or an object with the keys "count" and "interval", either of which can be left out.
type Probe struct {
	Count    int
	Interval time.Duration
}

// defaultProbe is far quicker than RFC 5227, whose four to seven seconds are meant for links on which an answer can
// take one: "PROBE_NUM 3", "PROBE_MIN 1 second". In an Ethernet it takes less than a millisecond.
var defaultProbe = Probe{Count: 3, Interval: 50 * time.Millisecond}

// Bounds of a Probe; the interval's upper one is that of the RFC: "PROBE_MAX 2 seconds".
const (
	maxProbes        = 10
	minProbeInterval = time.Millisecond
	maxProbeInterval = 2 * time.Second
)

// Enabled tells whether anybody is asked.
func (p Probe) Enabled() bool { return p.Count > 0 }

// UnmarshalJSON implements [json.Unmarshaler]. The error, of code 7, names the key "probe".
func (p *Probe) UnmarshalJSON(doc []byte) error {
	var on bool
	if json.Unmarshal(doc, &on) == nil {
		*p = Probe{}
		if on {
			*p = defaultProbe
		}
		return nil
	}
	conf := struct {
		Count    int    `json:"count"`
		Interval string `json:"interval"`
	}{defaultProbe.Count, defaultProbe.Interval.String()}
	strict := json.NewDecoder(bytes.NewReader(doc))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&conf); err != nil {
		return invalidProbe("", `want true, false, or an object like {"count": 3, "interval": "50ms"}: %v`, err)
	}
	if conf.Count < 1 || conf.Count > maxProbes {
		return invalidProbe(".count", "found %d, want 1 to %d", conf.Count, maxProbes)
	}
	interval, err := time.ParseDuration(conf.Interval)
	if err != nil || interval < minProbeInterval || interval > maxProbeInterval {
		return invalidProbe(".interval", `found %q, want a duration like "50ms", from %s to %s`, conf.Interval, minProbeInterval, maxProbeInterval)
	}
	*p = Probe{conf.Count, interval}
	return nil
}

func invalidProbe(key, format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "probe"+key+": "+fmt.Sprintf(format, args...), "")
}

// Taken asks everybody on the link of an interface, which must be up, whether they have one of the addresses: by ARP probes for IPv4 (RFC 5227, section 2.1) and by the solicitations of duplicate address detection for IPv6 (RFC
// 4862, section 5.4). It returns those that are taken, each with the MAC that has it.
//
// All addresses are asked for at once, so it takes Count times Interval however many there are. It is over at the end
// of the first interval in which somebody answers. Then the kernel closes its packet sockets, which takes it 10 to 30
// ms for the first one of a process, and longer on a busy node.
//
// It fails if the interface has no carrier, since nothing is known then, and if it has no neighbours (ipvlan in its L3
// modes).
func (ns *Namespace) Taken(ctx context.Context, ifName string, addrs []netip.Addr, how Probe) (taken map[netip.Addr]net.HardwareAddr, err error) {
	if !how.Enabled() || len(addrs) == 0 {
		return nil, nil
	}
	link, err := ns.readyToProbe(ctx, ifName)
	if err != nil {
		return nil, err
	}
	p := &prober{taken: map[netip.Addr]net.HardwareAddr{}}
	defer p.close()
	if err := ns.Do(func() error { return p.open(link, addrs) }); err != nil {
		return nil, fmt.Errorf("probe addresses on %s: %w", ifName, err)
	}
	p.listen()
	for range how.Count {
		if err := p.ask(); err != nil {
			return nil, fmt.Errorf("probe addresses on %s: %w", ifName, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("probe addresses on %s: %w", ifName, context.Cause(ctx))
		case <-time.After(how.Interval):
		}
		if p.answered() {
			break
		}
	}
	p.close()
	return p.taken, nil
}

func (ns *Namespace) readyToProbe(ctx context.Context, ifName string) (netlink.Link, error) {
	link, err := ns.Link(ifName)
	if err != nil {
		return nil, err
	}
	if !hasNeighbours(link) {
		return nil, fmt.Errorf("probe addresses on %s: the interface has no neighbours that could be asked", ifName)
	}
	ctx, cancel := context.WithTimeout(ctx, carrierPatience)
	defer cancel()
	if err := ns.WaitCarrier(ctx, ifName); err != nil {
		return nil, fmt.Errorf("probe addresses: %w", err)
	}
	return link, nil
}

// A prober asks for the addresses of both families by a socket of each.
type prober struct {
	questions []question
	readers   sync.WaitGroup

	mu    sync.Mutex
	taken map[netip.Addr]net.HardwareAddr
}

// A question is about the addresses of one family.
type question struct {
	socket *os.File
	frames [][]byte
	// claim reads a frame, and returns the address that its sender has, or is about to take, if there is such.
	claim  func(frame []byte) (netip.Addr, net.HardwareAddr)
	wanted map[netip.Addr]bool
}

// open opens the sockets in the namespace of the thread.
func (p *prober) open(link netlink.Link, addrs []netip.Addr) error {
	var v4, v6 []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	for _, family := range []struct {
		addrs []netip.Addr
		of    func(netlink.Link, []netip.Addr) (question, error)
	}{{v4, arpQuestion}, {v6, ndpQuestion}} {
		if len(family.addrs) == 0 {
			continue
		}
		q, err := family.of(link, family.addrs)
		if err != nil {
			return err
		}
		q.wanted = map[netip.Addr]bool{}
		for _, a := range family.addrs {
			q.wanted[a] = true
		}
		p.questions = append(p.questions, q)
	}
	return nil
}

// listen notes answers until close.
func (p *prober) listen() {
	for _, q := range p.questions {
		p.readers.Go(func() {
			frame := make([]byte, maxFrame)
			for {
				n, err := q.socket.Read(frame)
				if err != nil {
					return
				}
				if addr, mac := q.claim(frame[:n]); q.wanted[addr] {
					p.note(addr, mac)
				}
			}
		})
	}
}

func (p *prober) note(addr netip.Addr, mac net.HardwareAddr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[addr] = bytes.Clone(mac)
}

func (p *prober) answered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken) > 0
}

func (p *prober) ask() error {
	for _, q := range p.questions {
		for _, frame := range q.frames {
			if _, err := q.socket.Write(frame); err != nil {
				return err
			}
		}
	}
	return nil
}

// close ends the listening. Doing it twice is no error.
func (p *prober) close() {
	var closing sync.WaitGroup
	for _, q := range p.questions {
		closing.Go(func() { _ = q.socket.Close() }) // both at once, as the kernel takes its time for each
	}
	closing.Wait()
	p.readers.Wait()
}

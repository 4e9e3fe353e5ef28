package hostlocal

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
)

const defaultDataDir = "/var/lib/cni/networks"

// A config is what the plugin reads of a network configuration, checked.
type config struct {
	network    string
	dataDir    string
	resolvConf string
	routes     []*types.Route
	sets       []set        // one address of each
	requested  []netip.Addr // addresses that the attachment must get
}

// A set is a list of ranges of one IP family that an address is taken from.
type set []addressRange

// An addressRange is what addresses of one subnet are given out.
type addressRange struct {
	subnet     netip.Prefix
	start, end netip.Addr // both included
	gateway    netip.Addr // never given out
}

func (r addressRange) contains(a netip.Addr) bool {
	return r.start.Compare(a) <= 0 && a.Compare(r.end) <= 0
}

// find returns the range of a set that an address belongs to.
func (s set) find(a netip.Addr) (addressRange, bool) {
	for _, r := range s {
		if r.contains(a) {
			return r, true
		}
	}
	return addressRange{}, false
}

func (s set) String() string {
	var names []string
	for _, r := range s {
		names = append(names, r.start.String()+"-"+r.end.String())
	}
	return strings.Join(names, ", ")
}

// jsonRange is a range as it is written.
type jsonRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

type jsonConfig struct {
	Name string `json:"name"`
	IPAM *struct {
		jsonRange                 // the first set, in the form of old configurations
		Ranges     [][]jsonRange  `json:"ranges"`
		DataDir    string         `json:"dataDir"`
		ResolvConf string         `json:"resolvConf"`
		Routes     []*types.Route `json:"routes"`
	} `json:"ipam"`
	RuntimeConfig struct {
		IPs      []string      `json:"ips"`
		IPRanges [][]jsonRange `json:"ipRanges"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

// storeOf reads where the reservations of a network are, which is all that DEL and GC need: they work with ranges that
// are no longer valid.
func storeOf(req *cni.Request) (*store, error) {
	j, err := decode(req.Config)
	if err != nil {
		return nil, err
	}
	return &store{dir: j.storeDir()}, nil
}

func decode(b []byte) (*jsonConfig, error) {
	j := new(jsonConfig)
	if err := json.Unmarshal(b, j); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode host-local configuration: %v", err), "")
	}
	if j.Name == "" || j.Name == "." || j.Name == ".." || strings.ContainsAny(j.Name, "/\\\x00") {
		return nil, invalid("name is %q: want the name of a network", j.Name)
	}
	return j, nil
}

func (j *jsonConfig) storeDir() string {
	dir := defaultDataDir
	if j.IPAM != nil && j.IPAM.DataDir != "" {
		dir = j.IPAM.DataDir
	}
	return dir + "/" + j.Name
}

// parse reads and checks a configuration. All complaints are joined; each names its key.
func parse(req *cni.Request) (*config, error) {
	j, err := decode(req.Config)
	if err != nil {
		return nil, err
	}
	if j.IPAM == nil {
		return nil, invalid("key \"ipam\" is missing")
	}
	c := &config{network: j.Name, dataDir: j.storeDir(), resolvConf: j.IPAM.ResolvConf, routes: j.IPAM.Routes}
	var errs []error
	sets := func(key string, lists [][]jsonRange) {
		for i, ranges := range lists {
			s, err := parseSet(fmt.Sprintf("%s[%d]", key, i), ranges)
			c.sets, errs = append(c.sets, s), append(errs, err)
		}
	}
	sets("runtimeConfig.ipRanges", j.RuntimeConfig.IPRanges)
	if j.IPAM.Subnet != "" {
		sets("ipam", [][]jsonRange{{j.IPAM.jsonRange}})
	}
	sets("ipam.ranges", j.IPAM.Ranges)
	if len(c.sets) == 0 {
		errs = append(errs, invalid(`ipam.ranges is missing: want a list of range sets like [[{"subnet": "10.1.0.0/16"}]]`))
	}
	errs = append(errs, disjoint(c.sets), c.readRequested(j, req.Attachment))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// readRequested reads the addresses that were asked for. Conventions of CNI: where "args" or a capability says so, "the
// plugin must ignore the CNI_ARGS Field".
func (c *config) readRequested(j *jsonConfig, at cni.Attachment) error {
	key, list := "runtimeConfig.ips", j.RuntimeConfig.IPs
	if len(list) == 0 {
		key, list = "args.cni.ips", j.Args.CNI.IPs
	}
	if ip, ok := at.Arg("IP"); ok && len(list) == 0 && ip != "" {
		key, list = "IP of CNI_ARGS", strings.Split(ip, ",")
	}
	for _, s := range list {
		a, err := netip.ParseAddr(s)
		if p, prefixErr := netip.ParsePrefix(s); prefixErr == nil {
			a, err = p.Addr(), nil
		}
		if err != nil {
			return invalid("%s has %q: want an address like 10.1.0.9 or 10.1.0.9/16", key, s)
		}
		c.requested = append(c.requested, a.Unmap())
	}
	return nil
}

func parseSet(key string, ranges []jsonRange) (s set, err error) {
	if len(ranges) == 0 {
		return nil, invalid("%s is empty: want one range at least", key)
	}
	var errs []error
	for i, j := range ranges {
		at := fmt.Sprintf("%s[%d]", key, i)
		if key == "ipam" {
			at = key
		}
		r, err := parseRange(at, j)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(s) > 0 && s[0].start.Is4() != r.start.Is4() {
			errs = append(errs, invalid("%s.subnet is %s: want all ranges of a set to be of one IP family", at, r.subnet))
		}
		s = append(s, r)
	}
	return s, errors.Join(errs...)
}

func parseRange(key string, j jsonRange) (r addressRange, err error) {
	if r.subnet, err = netip.ParsePrefix(j.Subnet); err != nil {
		return r, invalid("%s.subnet is %q: want a subnet like 10.1.0.0/16", key, j.Subnet)
	}
	if r.subnet != r.subnet.Masked() {
		return r, invalid("%s.subnet is %s, an address within %s: want the subnet", key, j.Subnet, r.subnet.Masked())
	}
	if r.subnet.Addr().BitLen()-r.subnet.Bits() < 2 {
		return r, invalid("%s.subnet is %s: it is too small to give out addresses of", key, j.Subnet)
	}
	last := lastOf(r.subnet)
	if last.Is4() {
		last = last.Prev() // the broadcast address
	}
	r.start, r.end, r.gateway = r.subnet.Addr().Next(), last, r.subnet.Addr().Next()
	for _, member := range []struct {
		name, value string
		into        *netip.Addr
	}{
		{"rangeStart", j.RangeStart, &r.start}, {"rangeEnd", j.RangeEnd, &r.end}, {"gateway", j.Gateway, &r.gateway},
	} {
		if member.value == "" {
			continue
		}
		a, err := netip.ParseAddr(member.value)
		if err != nil || !r.subnet.Contains(a) {
			return r, invalid("%s.%s is %q: want an address of %s", key, member.name, member.value, r.subnet)
		}
		*member.into = a
	}
	if r.end.Compare(r.start) < 0 {
		return r, invalid("%s.rangeStart is %s, after rangeEnd %s", key, r.start, r.end)
	}
	return r, nil
}

// disjoint refuses ranges that have addresses in common, which would be given out twice or never.
func disjoint(sets []set) error {
	var all []addressRange
	for _, s := range sets {
		for _, r := range s {
			for _, other := range all {
				if r.contains(other.start) || other.contains(r.start) {
					return invalid("ranges %s-%s and %s-%s overlap", other.start, other.end, r.start, r.end)
				}
			}
			all = append(all, r)
		}
	}
	return nil
}

// lastOf returns the last address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// ipNet returns an address with the prefix length of its subnet.
func (r addressRange) ipNet(a netip.Addr) net.IPNet {
	return net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(r.subnet.Bits(), a.BitLen())}
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

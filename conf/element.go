package conf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// parseSelection decodes an element of the JSON format. Unknown keys are left to later versions of the standard and,
// with a period, to others:
//
// "All key names that do not include a period character are reserved"
func parseSelection(element json.RawMessage, path, namespace string, c *complaints) (s Selection) {
	o, ok := openObject(element, path, c)
	if !ok {
		return s
	}
	o.readName("name", &s.Name, isSubdomain, wantSubdomain)
	if o.read("namespace", &s.Namespace, wantLabel); s.Namespace == "" {
		s.Namespace = namespace
	}
	if !isLabel(s.Namespace) {
		o.mismatch(o.path+"namespace", s.Namespace, wantLabel)
	}
	s.IfName = o.readIfName()
	s.IPs = o.readIPs()
	s.MAC = o.readMAC()
	s.InfinibandGUID = o.readGUID()
	s.DefaultRoute = o.readGateways()
	s.PortMappings = o.readPortMappings()
	s.Bandwidth = o.readBandwidth()
	o.read("cni-args", &s.CNIArgs, "an object")
	o.readOptional("ipam-claim-reference", &s.IPAMClaim, isSubdomain, wantSubdomain)
	o.readOptional("deviceID", &s.DeviceID, isFileName, "the identifier of a device, without '/'")
	if len(s.IPs) > 0 && s.IPAMClaim != "" {
		// "Attempting to configure both a static IP request - via the `ips` key - and an `ipam-claim-reference` in the
		// same network selection element will result in an error."
		o.addf(o.path+"ips", `found also "ipam-claim-reference", want one of the two`)
	}
	o.misspelt()
	return s
}

// readIfName reads "interface", and "interfaceRequest", which is its name in old versions of Multus.
//
// "This key's value must be a valid Linux kernel interface name."
func (o *object) readIfName() (name string) {
	for _, key := range []string{"interfaceRequest", "interface"} {
		var s string
		if !o.read(key, &s, wantIfName) {
			continue
		}
		if !isIfName(s) {
			o.mismatch(o.path+key, s, wantIfName)
		} else if name != "" && name != s {
			o.addf(o.path+key, `found %s, but "interfaceRequest" is %s, want only "interface"`, quote(s), quote(name))
		}
		name = s
	}
	return name
}

// readIPs keeps "This key's value must contain at least one array element and each element must be a valid IPv4 or IPv6
// address with an optional network prefix length".
func (o *object) readIPs() (ips []string) {
	const want = "a list of addresses like [\"10.1.1.9/24\", \"fd00::9\"]"
	if o.read("ips", &ips, want) && len(ips) == 0 {
		o.mismatch(o.path+"ips", json.RawMessage("[]"), want)
	}
	if len(ips) > maxIPs {
		o.addf(o.path+"ips", "found %d addresses, want %d at most", len(ips), maxIPs)
		return nil
	}
	for i, ip := range ips {
		prefix, err := netip.ParsePrefix(ip)
		addr := prefix.Addr()
		if err != nil {
			addr, err = netip.ParseAddr(ip)
		}
		if err != nil || !isUnicast(addr) {
			o.mismatch(fmt.Sprintf("%sips[%d]", o.path, i), ip, `a unicast address like "10.1.1.9", "10.1.1.9/24" or "fd00::9/64"`)
		}
	}
	return ips
}

// isUnicast tells if a pod or a gateway can have the address. A zone names an interface of another namespace.
func isUnicast(a netip.Addr) bool {
	return a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// readMAC keeps "This key's value must contain a valid 6-byte Ethernet MAC address."
func (o *object) readMAC() string {
	const want = `a 6-byte unicast address like "02:00:00:00:00:01"`
	return o.readHardwareAddr("mac", want, func(a net.HardwareAddr) bool { return len(a) == 6 && a[0]&1 == 0 })
}

// readGUID keeps "This key's value must contain a valid 8-byte Infiniband GUID address".
func (o *object) readGUID() string {
	const want = `an 8-byte GUID like "02:00:00:00:00:00:00:01"`
	return o.readHardwareAddr("infiniband-guid", want, func(a net.HardwareAddr) bool { return len(a) == 8 })
}

func (o *object) readHardwareAddr(key, want string, valid func(net.HardwareAddr) bool) string {
	var s string
	if !o.read(key, &s, want) {
		return ""
	}
	addr, err := net.ParseMAC(s)
	if err != nil || !valid(addr) || bytes.Count(addr, []byte{0}) == len(addr) {
		o.mismatch(o.path+key, s, want)
	}
	return addr.String()
}

// readGateways reads "default-route". The result is nil only if the key is absent: "This list may be empty."
func (o *object) readGateways() (gateways []netip.Addr) {
	var list []string
	if !o.read("default-route", &list, `a list of gateways like ["10.1.1.1", "fd00::1"], which may be empty`) {
		return nil
	}
	gateways = make([]netip.Addr, 0, len(list))
	families := map[bool]bool{} // by Is4
	for i, s := range list {
		addr, err := netip.ParseAddr(s)
		addr = addr.Unmap()
		if err != nil || !isUnicast(addr) {
			o.mismatch(fmt.Sprintf("%sdefault-route[%d]", o.path, i), s, `the address of a gateway like "10.1.1.1"`)
			continue
		}
		if families[addr.Is4()] {
			o.mismatch(fmt.Sprintf("%sdefault-route[%d]", o.path, i), s, "one gateway of each family at most")
		}
		families[addr.Is4()] = true
		gateways = append(gateways, addr)
	}
	return gateways
}

// readPortMappings keeps "This key's value must contain at least one array element and each element must be a valid
// dict".
func (o *object) readPortMappings() (mappings []PortMapping) {
	const want = `a list like [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}]`
	var list []json.RawMessage
	if o.read("portMappings", &list, want) && len(list) == 0 {
		o.mismatch(o.path+"portMappings", json.RawMessage("[]"), want)
	}
	if len(list) > maxPorts {
		o.addf(o.path+"portMappings", "found %d, want %d at most", len(list), maxPorts)
		return nil
	}
	for i, raw := range list {
		m, ok := openObject(raw, fmt.Sprintf("%sportMappings[%d]", o.path, i), o.complaints)
		if ok {
			mappings = append(mappings, m.portMapping())
			m.misspelt()
		}
	}
	return mappings
}

func (o *object) portMapping() (m PortMapping) {
	m.HostPort = o.readPort("hostPort")
	m.ContainerPort = o.readPort("containerPort")
	// "must contain one of "UDP", "TCP", or "SCTP". [...] If not specified, this value defaults to "TCP"." Small letters
	// are accepted too: with Multus they are the ones that work.
	m.Protocol = "tcp"
	const want = `"TCP", "UDP" or "SCTP"`
	if o.read("protocol", &m.Protocol, want) {
		found := m.Protocol
		switch m.Protocol = strings.ToLower(found); m.Protocol {
		case "tcp", "udp", "sctp":
		default:
			o.mismatch(o.path+"protocol", found, want)
		}
	}
	if o.read("hostIP", &m.HostIP, "an address of the host") && m.HostIP != "" {
		if addr, err := netip.ParseAddr(m.HostIP); err != nil || addr.Zone() != "" {
			o.mismatch(o.path+"hostIP", m.HostIP, "an address of the host")
		}
	}
	return m
}

// readPort keeps "this required key of type integer must contain a value between 1 and 65535 inclusive".
func (o *object) readPort(key string) (port int) {
	const want = "an integer from 1 to 65535"
	if _, ok := o.raw(key); !ok {
		o.addf(o.path+key, "missing, want %s", want)
	} else if o.read(key, &port, want) && (port < 1 || port > 65535) {
		o.mismatch(o.path+key, port, want)
	}
	return port
}

// readBandwidth keeps "This key's value must contain at least one dict element".
func (o *object) readBandwidth() *Bandwidth {
	raw, ok := o.raw("bandwidth")
	if !ok {
		return nil
	}
	b, ok := openObject(raw, o.path+"bandwidth", o.complaints)
	if !ok {
		return nil
	}
	var bw Bandwidth
	found := b.readLimit("ingressRate", &bw.IngressRate)
	found = b.readLimit("egressRate", &bw.EgressRate) || found
	found = b.readBurst("ingressBurst", &bw.IngressBurst, "ingressRate") || found
	found = b.readBurst("egressBurst", &bw.EgressBurst, "egressRate") || found
	if b.misspelt(); !found {
		o.mismatch(o.path+"bandwidth", raw, `a limit like {"ingressRate": 1000000, "egressRate": 1000000}, in bits per second`)
	}
	return &bw
}

// readLimit keeps "this optional key of type integer must contain a non-zero value".
func (o *object) readLimit(key string, limit *uint64) (found bool) {
	const want = "a positive integer"
	if _, found = o.raw(key); found && o.read(key, limit, want) && *limit == 0 {
		o.mismatch(o.path+key, *limit, want)
	}
	return found
}

// readBurst keeps "If "ingressBurst" is present, "ingressRate" must also be present".
func (o *object) readBurst(key string, burst *uint64, rate string) (found bool) {
	if found = o.readLimit(key, burst); found {
		if _, ok := o.raw(rate); !ok {
			o.addf(o.path+key, "found without %q, want both", rate)
		}
	}
	return found
}

package static

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam"
)

// config is a configuration as it is written.
type config struct {
	CNIVersion string `json:"cniVersion"`
	IPAM       *struct {
		Addresses []struct {
			Address string `json:"address"`
			Gateway string `json:"gateway"`
		} `json:"addresses"`
		Routes []json.RawMessage `json:"routes"`
		DNS    types.DNS         `json:"dns"`
	} `json:"ipam"`
	RuntimeConfig struct {
		IPs []string `json:"ips"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

// An address with the gateway of its subnet, if there is one.
type address struct {
	netip.Prefix
	gateway netip.Addr
}

// parse returns what a configuration gives an attachment. All complaints are joined; each names its key.
func parse(req *cni.Request) (*types100.Result, error) {
	var c config
	if err := ipam.Decode(req.Config, &c); err != nil {
		return nil, err
	}
	if c.IPAM == nil {
		return nil, invalid(`key "ipam" is missing`)
	}
	routes, err := ipam.ParseRoutes(c.IPAM.Routes)
	addrs, addrErr := c.addresses(req.Attachment)
	if err := errors.Join(err, addrErr, c.accepts(addrs)); err != nil {
		return nil, err
	}
	res := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Routes: routes, DNS: c.IPAM.DNS}
	for _, a := range addrs {
		ip := &types100.IPConfig{Address: net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.gateway.IsValid() {
			ip.Gateway = a.gateway.AsSlice()
		}
		res.IPs = append(res.IPs, ip)
	}
	return res, nil
}

// addresses returns the addresses of an attachment: those of runtimeConfig, or else those of args, or else the
// configured ones and those of CNI_ARGS. Requested ones get the gateways of the configured ones.
//
// Conventions of CNI: where "args" are given, "the plugin must ignore the CNI_ARGS Field".
func (c *config) addresses(at cni.Attachment) (addrs []address, err error) {
	configured, err := c.configured()
	if err != nil {
		return nil, err
	}
	if list := c.RuntimeConfig.IPs; len(list) > 0 {
		return requested("runtimeConfig.ips", list, configured)
	}
	if list := c.Args.CNI.IPs; len(list) > 0 {
		return requested("args.cni.ips", list, configured)
	}
	more, err := requested("IP of CNI_ARGS", split(at, "IP"), configured)
	if err != nil {
		return nil, err
	}
	addrs = append(configured, more...)
	return addrs, setGateways(addrs, split(at, "GATEWAY"))
}

// maxAddresses bounds the addresses of a configuration or a request: each is a call of the kernel.
const maxAddresses = 256

func tooMany(key string, n int) error {
	if n > maxAddresses {
		return invalid("%s has %d addresses: want %d at most", key, n, maxAddresses)
	}
	return nil
}

func (c *config) configured() (addrs []address, err error) {
	if err := tooMany("ipam.addresses", len(c.IPAM.Addresses)); err != nil {
		return nil, err
	}
	var errs []error
	for i, j := range c.IPAM.Addresses {
		a, err := parseAddress(j.Address)
		if err != nil {
			errs = append(errs, invalid("ipam.addresses[%d].address is %q: %v", i, j.Address, err))
		}
		if j.Gateway != "" {
			a.gateway, err = netip.ParseAddr(j.Gateway)
			if a.gateway = a.gateway.Unmap(); err != nil || a.IsValid() && a.gateway.Is4() != a.Addr().Is4() {
				errs = append(errs, invalid("ipam.addresses[%d].gateway is %q: want an address of the IP family of the address", i, j.Gateway))
			}
		}
		addrs = append(addrs, a)
	}
	return addrs, errors.Join(errs...)
}

// requested reads a list of addresses that were asked for, and gives them the gateways of configured ones in whose
// subnet they are.
func requested(key string, list []string, configured []address) (addrs []address, err error) {
	if err := tooMany(key, len(list)); err != nil {
		return nil, err
	}
	var errs []error
	for i, s := range list {
		a, err := parseAddress(strings.TrimSpace(s))
		if err != nil {
			errs = append(errs, invalid("%s[%d] is %q: %v", key, i, s, err))
			continue
		}
		for _, other := range configured {
			if other.gateway.IsValid() && a.Contains(other.gateway) {
				a.gateway = other.gateway
			}
		}
		addrs = append(addrs, a)
	}
	return addrs, errors.Join(errs...)
}

// setGateways sets the gateway of the addresses in whose subnet it is.
func setGateways(addrs []address, list []string) error {
	var errs []error
	for _, s := range list {
		gateway, err := netip.ParseAddr(strings.TrimSpace(s))
		gateway = gateway.Unmap()
		used := false
		for i := range addrs {
			if err == nil && addrs[i].Contains(gateway) {
				addrs[i].gateway, used = gateway, true
			}
		}
		if !used {
			errs = append(errs, invalid("GATEWAY of CNI_ARGS has %q: want an address of the subnet of an address", s))
		}
	}
	return errors.Join(errs...)
}

// parseAddress reads an address of an interface. The error says what is wrong with it.
func parseAddress(s string) (address, error) {
	p, err := netip.ParsePrefix(s)
	switch a := p.Addr(); {
	case err != nil || a.Is4In6():
		return address{}, errors.New("want an address with a prefix length, like 192.0.2.10/24")
	case a.IsUnspecified() || a.IsMulticast():
		return address{}, errors.New("no interface can have this address")
	}
	return address{Prefix: p}, nil
}

// accepts refuses an address that is there twice, and more addresses than results of old CNI versions can have.
func (c *config) accepts(addrs []address) error {
	seen := map[netip.Addr]bool{}
	families := map[int]int{}
	for _, a := range addrs {
		if seen[a.Addr()] {
			return invalid("address %s is there twice", a.Addr())
		}
		seen[a.Addr()] = true
		families[a.Addr().BitLen()]++
	}
	if ok, _ := version.GreaterThanOrEqualTo(c.CNIVersion, "0.3.0"); !ok && (families[32] > 1 || families[128] > 1) {
		return invalid("cniVersion is %q, which allows one address per IP family, but there are %d IPv4 and %d IPv6 addresses: "+
			"want cniVersion 0.3.0 or later", c.CNIVersion, families[32], families[128])
	}
	return nil
}

// split returns the values of a key of CNI_ARGS.
func split(at cni.Attachment, key string) []string {
	value, _ := at.Arg(key)
	if value == "" {
		return nil
	}
	return strings.Split(value, ",")
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

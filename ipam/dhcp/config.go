package dhcp

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A config is what the plugin reads of a network configuration.
type config struct {
	Name string `json:"name"`
	MTU  int    `json:"mtu"`
	IPAM struct {
		Socket   string          `json:"daemonSocketPath"`
		IPv4     *bool           `json:"ipv4"` // true if it is not there
		IPv6     string          `json:"ipv6"`
		Provide  []provideOption `json:"provide"`
		Request  []requestOption `json:"request"`
		Priority int             `json:"priority"`
		Probe    bool            `json:"probe"`
	} `json:"ipam"`
}

type provideOption struct {
	Option  string `json:"option"`
	Value   string `json:"value"`
	FromArg string `json:"fromArg"`
}

type requestOption struct {
	Option      string `json:"option"`
	SkipDefault bool   `json:"skipDefault"`
}

// Values of ipam.ipv6.
const (
	stateful = "stateful"
	slaac    = "slaac"
)

// parse reads a configuration. Errors name the key; they have code 7, and 6 if it is no JSON.
func parse(doc []byte) (*config, error) {
	c := new(config)
	err := json.Unmarshal(doc, c)
	var mismatch *json.UnmarshalTypeError
	switch {
	case errors.As(err, &mismatch) && mismatch.Field != "":
		return nil, invalid(mismatch.Field, "found %s, want %s", mismatch.Value, mismatch.Type)
	case err != nil:
		return nil, types.NewError(types.ErrDecodingFailure, "decode configuration: "+err.Error(), "")
	}
	if c.IPAM.Socket == "" {
		c.IPAM.Socket = lease.DefaultSocket
	}
	return c, c.check()
}

func (c *config) check() error {
	switch {
	case !filepath.IsAbs(c.IPAM.Socket) || filepath.Clean(c.IPAM.Socket) != c.IPAM.Socket || len(c.IPAM.Socket) > maxSocket:
		return invalid("ipam.daemonSocketPath", "found %q, want an absolute path of at most %d bytes, without . and ..",
			c.IPAM.Socket, maxSocket)
	case !slices.Contains([]string{"", stateful, slaac}, c.IPAM.IPv6):
		return invalid("ipam.ipv6", "found %q, want %q, %q, or nothing for no IPv6", c.IPAM.IPv6, stateful, slaac)
	case !c.ipv4() && c.IPAM.IPv6 == "":
		return invalid("ipam.ipv4", "found false without ipam.ipv6; no address would be asked for")
	case c.IPAM.Priority < 0:
		return invalid("ipam.priority", "found %d, want the metric of the routes, 0 or more", c.IPAM.Priority)
	}
	return nil
}

// maxSocket is what fits into the address of a unix socket.
const maxSocket = 107

func (c *config) ipv4() bool { return c.IPAM.IPv4 == nil || *c.IPAM.IPv4 }

// leased tells whether the network has leases, which takes the keeper. What routers advertise does not.
func (c *config) leased() bool { return c.ipv4() || c.IPAM.IPv6 == stateful }

func (c *config) key(req *cni.Request) lease.Key {
	return lease.Key{ContainerID: req.ContainerID, Network: c.Name, IfName: req.IfName}
}

// spec makes of a request what the keeper is asked for.
func (c *config) spec(req *cni.Request) (*lease.Spec, error) {
	netns, err := filepath.Abs(req.Netns)
	if err != nil {
		return nil, err
	}
	s := &lease.Spec{
		Key:      c.key(req),
		Netns:    netns,
		IPv4:     c.ipv4(),
		IPv6:     c.IPAM.IPv6 == stateful,
		Priority: c.IPAM.Priority,
		Probe:    c.IPAM.Probe,
		KeepMTU:  c.MTU != 0,
	}
	if s.Provide, err = c.provide(req.Attachment); err != nil {
		return nil, err
	}
	s.Request, err = c.request()
	return s, err
}

// provide returns the options to be sent. A value of CNI_ARGS wins; an option without any value is left out, as by
// the reference.
func (c *config) provide(at cni.Attachment) (options []lease.Option, err error) {
	size := 0
	for i, p := range c.IPAM.Provide {
		key := fmt.Sprintf("ipam.provide[%d].", i)
		code, err := optionCode(key, p.Option)
		if err != nil {
			return nil, err
		}
		if slices.Contains(reserved, code) {
			return nil, invalid(key+"option", "found %q; this option the client sets itself", p.Option)
		}
		value := p.Value
		if arg, ok := at.Arg(p.FromArg); ok && p.FromArg != "" {
			key, value = key+"fromArg", arg
		} else {
			key += "value"
		}
		if size += len(value); len(value) > 255 || size > lease.MaxOptionBytes {
			return nil, invalid(key, "found %d bytes; an option has at most 255, all together at most %d",
				len(value), lease.MaxOptionBytes)
		}
		if value != "" {
			options = append(options, lease.Option{Code: code, Value: []byte(value)})
		}
	}
	return options, nil
}

// request returns the options that the server is asked for.
func (c *config) request() (codes []uint8, err error) {
	skip := false
	for i, r := range c.IPAM.Request {
		skip = skip || r.SkipDefault
		if r.Option == "" {
			continue
		}
		code, err := optionCode(fmt.Sprintf("ipam.request[%d].", i), r.Option)
		if err != nil {
			return nil, err
		}
		codes = add(codes, code)
	}
	if !skip {
		codes = add(codes, defaultRequest...)
	}
	return codes, nil
}

func add(codes []uint8, more ...uint8) []uint8 {
	for _, code := range more {
		if !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
	}
	return codes
}

// optionCode reads a name as in the manual dhcp-options(5), of those that the reference knows, or a number.
func optionCode(key, option string) (uint8, error) {
	if code, ok := optionNames[option]; ok {
		return code, nil
	}
	n, err := strconv.ParseUint(option, 10, 8)
	if err != nil || n == 0 || n == 255 {
		return 0, invalid(key+"option", "found %q, want a number from 1 to 254, or one of %v", option, sorted(optionNames))
	}
	return uint8(n), nil
}

var optionNames = map[string]uint8{
	"dhcp-client-identifier":  dhcpv4.OptionClientIdentifier.Code(),
	"subnet-mask":             dhcpv4.OptionSubnetMask.Code(),
	"routers":                 dhcpv4.OptionRouter.Code(),
	"host-name":               dhcpv4.OptionHostName.Code(),
	"user-class":              dhcpv4.OptionUserClassInformation.Code(),
	"vendor-class-identifier": dhcpv4.OptionClassIdentifier.Code(),
}

// reserved options are about the exchange of messages itself.
var reserved = []uint8{
	dhcpv4.OptionRequestedIPAddress.Code(),
	dhcpv4.OptionOptionOverload.Code(),
	dhcpv4.OptionDHCPMessageType.Code(),
	dhcpv4.OptionServerIdentifier.Code(),
	dhcpv4.OptionParameterRequestList.Code(),
	dhcpv4.OptionMaximumDHCPMessageSize.Code(),
}

// defaultRequest is what the client can make use of.
//
// "The classless static routes option code MUST appear in the parameter request list prior to both the router option
// code and the static routes option code, if present." (RFC 3442)
var defaultRequest = []uint8{
	dhcpv4.OptionSubnetMask.Code(),
	dhcpv4.OptionClasslessStaticRoute.Code(),
	dhcpv4.OptionRouter.Code(),
	dhcpv4.OptionStaticRoutingTable.Code(),
	249, // as 121, of Microsoft's servers
	dhcpv4.OptionDomainNameServer.Code(),
	dhcpv4.OptionDomainName.Code(),
	dhcpv4.OptionDNSDomainSearchList.Code(),
	dhcpv4.OptionInterfaceMTU.Code(),
	dhcpv4.OptionNTPServers.Code(),
	dhcpv4.OptionRenewTimeValue.Code(),
	dhcpv4.OptionRebindingTimeValue.Code(),
}

func invalid(key, format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(key+": "+format, args...), "")
}

package bridge

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

// config is what the plugin reads of its configuration. README.md says what the keys mean.
type config struct {
	essentials
	ForceAddress         bool             `json:"forceAddress"`
	IPMasq               bool             `json:"ipMasq"`
	IPMasqBackend        string           `json:"ipMasqBackend"`
	MTU                  int              `json:"mtu"`
	Hairpin              bool             `json:"hairpinMode"`
	Promisc              bool             `json:"promiscMode"`
	VLANTrunk            []trunk          `json:"vlanTrunk"`
	PreserveDefaultVLAN  bool             `json:"preserveDefaultVlan"`
	MACSpoofCheck        bool             `json:"macspoofchk"`
	Detection            netdev.Detection `json:"enabledad"`
	NoContainerInterface bool             `json:"disableContainerInterface"`
	PortIsolation        bool             `json:"portIsolation"`
	Probe                netdev.Probe     `json:"probe"`
	DNS                  types.DNS        `json:"dns"`
	IPAM                 struct {
		Type string `json:"type"`
	} `json:"ipam"`
}

// essentials are what DEL and GC read of a configuration, which may be invalid otherwise.
type essentials struct {
	Network          string `json:"name"`
	Bridge           string `json:"bridge"`
	VLAN             int    `json:"vlan"`
	IsGateway        bool   `json:"isGateway"`
	IsDefaultGateway bool   `json:"isDefaultGateway"`
	SourceRouting    bool   `json:"sourceRouting"`
}

// trunk is an element of vlanTrunk.
type trunk struct {
	MinID *int `json:"minID"`
	MaxID *int `json:"maxID"`
	ID    *int `json:"id"`
}

const (
	defaultBridge = "cni0"
	maxVLAN       = 4094
	minMTU        = 68 // RFC 791: "Every internet module must be able to forward a datagram of 68 octets"
	maxMTU        = 65535
)

// parse reads a configuration of which everything must be right.
func parse(doc []byte) (*config, error) {
	c := &config{Detection: netdev.Skipped}
	if err := stacked.Decode(doc, c); err != nil {
		return nil, err
	}
	c.complete()
	return c, c.validate()
}

// parseEssentials reads as much as is right. Only the name of the network must be.
func parseEssentials(doc []byte) (*essentials, error) {
	e := &essentials{}
	if err := stacked.Decode(doc, e); e.Network == "" {
		return nil, errors.Join(err, stacked.Invalid("name", "it is missing"))
	}
	e.complete()
	return e, nil
}

// complete sets what follows from what is there.
func (e *essentials) complete() {
	if e.Bridge == "" {
		e.Bridge = defaultBridge
	}
	e.IsGateway = e.IsGateway || e.IsDefaultGateway
}

// validate returns all complaints.
func (c *config) validate() error {
	var errs []error
	complain := func(key, format string, args ...any) {
		errs = append(errs, stacked.Invalid(key, format, args...))
	}
	if err := validateName(c.Bridge); err != nil {
		complain("bridge", "found %q, want the name of an interface: %v", c.Bridge, err)
	} else if gateway := c.vlanGateway(); c.servesVLAN() && validateName(gateway) != nil {
		complain("bridge", "found %q, want a shorter name: the gateway of the VLAN is to be called %q, of 15 characters at most", c.Bridge, gateway)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		complain("mtu", "found %d, want %d to %d, or 0 for the kernel's default", c.MTU, minMTU, maxMTU)
	}
	if c.Hairpin && c.Promisc {
		complain("hairpinMode", "found true, and promiscMode is true as well: each sends a packet back, so only one of them can be on")
	}
	if c.NoContainerInterface && c.IPAM.Type != "" {
		complain("disableContainerInterface", "found true, and ipam.type is %q: an interface that is down cannot use an address", c.IPAM.Type)
	}
	switch c.IPMasqBackend {
	case "", "iptables", "nftables":
	default:
		complain("ipMasqBackend", "found %q, want %q or %q", c.IPMasqBackend, "nftables", "iptables")
	}
	if c.VLAN < 0 || c.VLAN > maxVLAN {
		complain("vlan", "found %d, want 1 to %d, or 0 for none", c.VLAN, maxVLAN)
	}
	for i, t := range c.VLANTrunk {
		if err := t.validate(); err != nil {
			complain(fmt.Sprintf("vlanTrunk[%d]", i), "%v", err)
		}
	}
	return errors.Join(errs...)
}

func validateName(name string) error {
	if err := utils.ValidateInterfaceName(name); err != nil {
		return errors.New(err.Msg)
	}
	if strings.Contains(name, "%") {
		return errors.New("the kernel takes a % for a pattern")
	}
	return nil
}

func (t trunk) validate() error {
	for _, id := range []struct {
		key   string
		value *int
	}{{"minID", t.MinID}, {"maxID", t.MaxID}, {"id", t.ID}} {
		if id.value != nil && (*id.value < 1 || *id.value > maxVLAN) {
			return fmt.Errorf("found %s %d, want 1 to %d", id.key, *id.value, maxVLAN)
		}
	}
	switch {
	case t.MinID == nil && t.MaxID == nil && t.ID == nil:
		return errors.New(`found nothing, want "id", or "minID" and "maxID"`)
	case (t.MinID == nil) != (t.MaxID == nil):
		return errors.New(`found one of "minID" and "maxID", want both, or "id"`)
	case t.MinID != nil && *t.MinID > *t.MaxID:
		return fmt.Errorf("found minID %d and maxID %d, want the lower one first", *t.MinID, *t.MaxID)
	}
	return nil
}

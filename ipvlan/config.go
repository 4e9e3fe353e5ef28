package ipvlan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/netdev/stacked"
)

// config is what the plugin reads of its configuration. README.md says what the keys mean.
type config struct {
	stacked.Config
	Mode string `json:"mode"`
	Flag string `json:"flag"`

	mode netlink.IPVlanMode
	flag netlink.IPVlanFlag
}

var modes = map[string]netlink.IPVlanMode{
	"":    netlink.IPVLAN_MODE_L2,
	"l2":  netlink.IPVLAN_MODE_L2,
	"l3":  netlink.IPVLAN_MODE_L3,
	"l3s": netlink.IPVLAN_MODE_L3S,
}

var flags = map[string]netlink.IPVlanFlag{
	"":        netlink.IPVLAN_FLAG_BRIDGE,
	"bridge":  netlink.IPVLAN_FLAG_BRIDGE,
	"private": netlink.IPVLAN_FLAG_PRIVATE,
	"vepa":    netlink.IPVLAN_FLAG_VEPA,
}

func parse(doc []byte) (c *config, err error) {
	c = &config{}
	if err := stacked.Decode(doc, c); err != nil {
		return nil, err
	}
	if c.mode, err = lookUp("mode", c.Mode, modes); err != nil {
		return nil, err
	}
	if c.flag, err = lookUp("flag", c.Flag, flags); err != nil {
		return nil, err
	}
	if c.Probe.Enabled() && c.mode != netlink.IPVLAN_MODE_L2 {
		return nil, stacked.Invalid("probe", "it needs mode %q, found %q, in which there are no neighbours that could be asked", "l2", c.Mode)
	}
	return c, c.Config.Check()
}

// lookUp fails with code 2: "The error message must contain the key and value of the unsupported field."
func lookUp[T any](key, value string, known map[string]T) (T, error) {
	found, ok := known[value]
	if !ok {
		names := slices.DeleteFunc(slices.Sorted(maps.Keys(known)), func(name string) bool { return name == "" })
		return found, types.NewError(types.ErrUnsupportedField,
			fmt.Sprintf("%s: found %q, want one of %s", key, value, strings.Join(names, ", ")), "")
	}
	return found, nil
}

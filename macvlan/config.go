package macvlan

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

// config is what the plugin reads of its configuration. README.md says what the keys mean.
type config struct {
	stacked.Config
	Network    string   `json:"name"`
	Mode       string   `json:"mode"`
	SourceMACs []string `json:"sourceMACs"`
	BCQueueLen uint32   `json:"bcqueuelen"`
	HostAccess bool     `json:"hostAccess"`

	mode    netlink.MacvlanMode
	sources []net.HardwareAddr
}

// essentials are what DEL reads of a configuration, which may be invalid otherwise.
type essentials struct {
	Network    string `json:"name"`
	HostAccess bool   `json:"hostAccess"`
}

func parseEssentials(doc []byte) (e essentials, err error) {
	err = stacked.Decode(doc, &e)
	return e, err
}

const defaultMode = "bridge"

var modes = map[string]netlink.MacvlanMode{
	"bridge":   netlink.MACVLAN_MODE_BRIDGE,
	"private":  netlink.MACVLAN_MODE_PRIVATE,
	"vepa":     netlink.MACVLAN_MODE_VEPA,
	"passthru": netlink.MACVLAN_MODE_PASSTHRU,
	"source":   netlink.MACVLAN_MODE_SOURCE,
}

// maxSources bounds what one NetworkAttachmentDefinition can make the kernel compare every packet with.
const maxSources = 256

func parse(doc []byte) (*config, error) {
	c := &config{}
	if err := stacked.Decode(doc, c); err != nil {
		return nil, err
	}
	if c.Mode == "" {
		c.Mode = defaultMode
	}
	mode, ok := modes[c.Mode]
	if !ok {
		known := strings.Join(slices.Sorted(maps.Keys(modes)), ", ")
		return nil, types.NewError(types.ErrUnsupportedField, fmt.Sprintf("mode: found %q, want one of %s", c.Mode, known), "")
	}
	c.mode = mode
	if err := c.Config.Check(); err != nil {
		return nil, err
	}
	if err := c.checkHostAccess(); err != nil {
		return nil, err
	}
	return c, c.parseSources()
}

func (c *config) checkHostAccess() error {
	switch {
	case !c.HostAccess:
	case c.Mode != defaultMode:
		return stacked.Invalid("hostAccess", "it needs mode %q, found %q: in the others the interfaces of one parent do not reach each other",
			defaultMode, c.Mode)
	case c.InContainer:
		return stacked.Invalid("hostAccess", `it needs a parent of the node, but "linkInContainer" is true`)
	}
	return nil
}

func (c *config) parseSources() error {
	if (c.Mode == "source") != (len(c.SourceMACs) > 0) {
		return stacked.Invalid("sourceMACs", `found %d addresses with mode %q; the list belongs to mode "source", and is needed there`,
			len(c.SourceMACs), c.Mode)
	}
	if len(c.SourceMACs) > maxSources {
		return stacked.Invalid("sourceMACs", "found %d addresses, want at most %d", len(c.SourceMACs), maxSources)
	}
	for i, s := range c.SourceMACs {
		mac, err := netdev.ParseMAC(s)
		if err != nil {
			return stacked.Invalid(fmt.Sprintf("sourceMACs[%d]", i), "%q %v", s, err)
		}
		c.sources = append(c.sources, mac)
	}
	return nil
}

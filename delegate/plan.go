package delegate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// A Planned is one attachment that an ADD will make.
type Planned struct {
	Name         string // "namespace/name" of the NetworkAttachmentDefinition, or the network's name
	IfName       string
	Default      bool // the cluster-wide default network
	Network      *conf.Network
	Capabilities map[string]any // requested of the plugins that declare them
	Selection    conf.Selection // what the pod wishes; zero if the operator chose the network

	device device // of a device plugin, that the attachment gets
}

// NewPlan says which attachments a pod gets, in the order in which they are made: a pure function of the entry
// configuration and of what was found in the cluster, but for networks whose configuration lies in files. Taken are
// the interfaces that exist in the pod. All complaints are joined.
func NewPlan(c *conf.Config, pod *resolve.Answer, ifName string, taken []string) ([]Planned, error) {
	choices, err := choose(c, pod)
	if err != nil {
		return nil, err
	}
	var found map[string]resolve.Network
	if pod != nil {
		found = pod.Networks
	}
	networks, err := loadAll(c, choices, found)
	if err != nil {
		return nil, err
	}
	own := ownNetworks(c, choices, networks, found)
	if err := own.foreignNames(choices, networks); err != nil {
		return nil, err
	}
	return plan(c, choices, networks, pod, ifName, taken, &own)
}

// An operator is what belongs to the networks of the operator.
type operator struct {
	names   []string
	bridges []string
	nads    []resolve.NetworkName
}

// ownNetworks are looked at if the pod selects any: those that it has replaced too. The networks are those of the choices.
func ownNetworks(c *conf.Config, choices []choice, networks []*conf.Network, found map[string]resolve.Network) (own operator) {
	if !slices.ContainsFunc(choices, func(o choice) bool { return o.selection.Name != "" }) {
		return own
	}
	own.names = []string{c.Name}
	for _, o := range operatorChoices(c, nil) {
		nad := o.nad
		var network *conf.Network
		var err error
		isSame := func(other choice) bool { return o.named != "" && other.named == o.named }
		if i := slices.IndexFunc(choices, isSame); i >= 0 {
			network = networks[i]
		} else {
			network, err = o.load(c, found)
		}
		if err == nil {
			own.names = append(own.names, network.Name)
			own.bridges = append(own.bridges, network.Bridges(c.Memory)...)
		}
		if nad != nil {
			own.nads = append(own.nads, *nad)
		}
	}
	return own
}

// foreignNames refuses networks that a pod selects and that have the name of one of the operator's: plugins keep what
// belongs to a network, such as reservations of addresses, by its name. One whose configuration lies on the node, because the
// NetworkAttachmentDefinition has none, is the operator's own, and still no network to have many times; it can be the pod's
// default network.
func (own *operator) foreignNames(choices []choice, networks []*conf.Network) error {
	var errs []error
	for i, o := range choices {
		if name := networks[i].Name; (o.tenant || o.selection.Name != "" && !o.isDefault) && slices.Contains(own.names, name) && !slices.Contains(own.nads, *o.nad) {
			errs = append(errs, invalid("%s: NetworkAttachmentDefinition %s: name %q is that of a network of the operator: choose another", o.by, o.nad, name))
		}
	}
	return errors.Join(errs...)
}

func plan(c *conf.Config, choices []choice, networks []*conf.Network, pod *resolve.Answer, ifName string, taken []string, own *operator) ([]Planned, error) {
	names, err := ifNames(choices, ifName, taken)
	devices, deviceErr := shareDevices(c, choices, pod)
	errs := []error{err, deviceErr}
	planned := make([]Planned, len(choices))
	for i := range choices {
		o := &choices[i]
		planned[i] = Planned{Name: o.name(networks[i]), IfName: names[i], Default: o.isDefault, Selection: o.selection, device: devices[i]}
		if err := planned[i].render(c, o, networks[i], own); err != nil {
			errs = append(errs, fmt.Errorf("%s: network %s: %w", o.by, planned[i].Name, err))
		}
	}
	return planned, errors.Join(errs...)
}

// render matches what the pod wishes with what the network can do.
func (p *Planned) render(c *conf.Config, o *choice, network *conf.Network, own *operator) (err error) {
	if p.Network, err = network.WithCNIArgs(o.selection.CNIArgs); err != nil {
		return err
	}
	if o.selection.Name != "" {
		use := conf.Use{
			Namespace: o.nad.Namespace, Pod: o.podNamespace, Default: o.isDefault,
			HostPorts: o.selection.PortMappings, IPs: o.selection.IPs, CNIArgs: slices.Sorted(maps.Keys(o.selection.CNIArgs)),
		}
		if !slices.Contains(own.nads, *o.nad) {
			use.Bridges = own.bridges
		}
		if err := c.CheckPolicy(use, p.Network, !o.tenant); err != nil {
			return err
		}
	}
	if i := slices.IndexFunc(network.Plugins, func(plugin conf.Plugin) bool { return c.IsSelf(plugin.Type) }); i >= 0 {
		return invalid("type %q: the plugin can not be its own delegate; choose another type", network.Plugins[i].Type)
	}
	requested := o.selection.Capabilities()
	var missing []string
	for _, capability := range slices.Sorted(maps.Keys(requested)) {
		if capability == "deviceID" && p.device.Resource != "" {
			continue // every plugin of the network is told
		}
		if !network.Supports(capability) {
			missing = append(missing, capability)
		}
	}
	if len(missing) > 0 {
		// Network CRD specification (4.1.2.1.3.2, and alike for every key): "If no plugin has the "ips" capability
		// set to true the entire attachment request must fail."
		return invalid(`no plugin takes the requested %s: add "capabilities": {"%s": true} to a plugin that supports it, or drop the request`,
			strings.Join(missing, ", "), strings.Join(missing, `": true, "`))
	}
	if p.device.Resource != "" {
		if p.Network, err = p.Network.WithDevice(p.device.ID); err != nil {
			return err
		}
		requested["deviceID"] = p.device.ID
	}
	p.Capabilities = requested
	if !o.isDefault {
		return nil
	}
	// Network CRD specification (7.5): what the runtime passes "must not be passed to or applied by network attachments other than the
	// cluster-wide default network"; what the pod asks of that network comes before it.
	p.Capabilities = make(map[string]any)
	for name, value := range c.RuntimeConfig {
		if network.Supports(name) { // the annotations of a pod can be long, and the journal keeps what is here
			p.Capabilities[name] = value
		}
	}
	maps.Copy(p.Capabilities, requested)
	return nil
}

// ifNames gives every choice its interface name: the default network gets the one that the runtime wants, a selection
// the one it requests, the others net1, net2, … by their place in the list, and the next free number where that is
// taken.
//
// Network CRD specification (4.1.2.1.5): "If the requested interface name is already used by a previous network
// attachment, the implementation must fail the current network attachment."
func ifNames(choices []choice, ifName string, taken []string) ([]string, error) {
	names := make([]string, len(choices))
	user := make(map[string]string) // who uses a name
	for _, name := range taken {
		user[name] = "an interface that exists in the pod already"
	}
	var errs []error
	claim := func(i int, name string) {
		if by, used := user[name]; used {
			errs = append(errs, invalid("%s: interface name %q is used by %s: choose another", choices[i].by, name, by))
		}
		names[i], user[name] = name, choices[i].by
	}
	for i, o := range choices {
		switch requested := o.selection.IfName; {
		case o.isDefault && requested != "" && requested != ifName:
			errs = append(errs, invalid("%s: interface name %q: the default network's interface is %q, as the runtime wants it", o.by, requested, ifName))
		case o.isDefault:
			claim(i, ifName)
		case requested != "":
			claim(i, requested)
		}
	}
	first := 0 // the number of the first choice: that of the default network is not used
	if len(choices) > 0 && !choices[0].isDefault {
		first = 1
	}
	for i := range choices {
		if names[i] == "" && !choices[i].isDefault {
			claim(i, free(user, first+i))
		}
	}
	return names, errors.Join(errs...)
}

// free returns the first of netN, netN+1, … that nobody uses.
func free(user map[string]string, n int) string {
	for ; ; n++ {
		name := fmt.Sprintf("net%d", n)
		if _, used := user[name]; !used {
			return name
		}
	}
}

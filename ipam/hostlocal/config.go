package hostlocal

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam"
)

// maxRanges bounds the ranges of a configuration, all sets together. Each is compared with each.
const maxRanges = 1024

// A config is what the plugin reads of a request, checked.
type config struct {
	*written
	folder    string       // of the reservations
	requested []netip.Addr // by set; invalid where any address will do
	pod       string       // whose addresses are to be remembered; empty if they are not
}

// written is what the plugin reads of a network configuration, checked. It can be that of other requests too.
type written struct {
	names
	resolvConf              string
	routes                  []*types.Route
	sets                    []set // one address of each
	sticky                  bool
	avoid                   map[netip.Addr]bool
	inArgs, inRuntimeConfig []string // addresses that "args" and "runtimeConfig" ask for
}

// names are what the folder of the reservations is called by: the name of the network is one that a folder can have.
type names struct{ network, dataDir string }

func newNames(network, dataDir string) (names, error) {
	if err := utils.ValidateNetworkName(network); err != nil {
		return names{}, invalid("name is %q: want the name of a network, which a folder can have", network)
	}
	return names{network, dataDir}, nil
}

// jsonConfig is a configuration as it is written.
type jsonConfig struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	IPAM       *struct {
		jsonRange                    // the first set, in the form of old configurations
		Ranges     [][]jsonRange     `json:"ranges"`
		DataDir    string            `json:"dataDir"`
		ResolvConf string            `json:"resolvConf"`
		Routes     []json.RawMessage `json:"routes"`
		Sticky     bool              `json:"sticky"`
	} `json:"ipam"`
	Capabilities struct {
		IPRanges bool `json:"ipRanges"`
	} `json:"capabilities"`
	RuntimeConfig struct {
		IPs      []string      `json:"ips"`
		IPRanges [][]jsonRange `json:"ipRanges"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
		Avoid []netip.Addr `json:"braid-cni.io/avoid"` // see ipam.AvoidKey
	} `json:"args"`
}

// withoutRanges says that the ranges of the configuration come with each ADD.
func (j *jsonConfig) withoutRanges() bool {
	return j.Capabilities.IPRanges && j.IPAM.Subnet == "" && len(j.IPAM.Ranges)+len(j.RuntimeConfig.IPRanges) == 0
}

// folderOf reads where the reservations of a network are, which is all that DEL and GC need: they work with a
// configuration that is no longer valid. A dataDir that is no string has never been used.
func (p Plugin) folderOf(req *cni.Request) (string, error) {
	n, err := cni.DecodeCommon(req, decodeNames)
	return p.folder(n), err
}

func decodeNames(config []byte) (names, error) {
	var j struct {
		Name string `json:"name"`
		IPAM struct {
			DataDir string `json:"dataDir"`
		} `json:"ipam"`
	}
	if err := json.Unmarshal(config, &j); err != nil {
		if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
			return names{}, ipam.Decode(config, &j)
		}
	}
	return newNames(j.Name, j.IPAM.DataDir)
}

func (p Plugin) folder(n names) string {
	return filepath.Join(cmp.Or(n.dataDir, p.DataDir, "/var/lib/cni/networks"), n.network)
}

// parse reads and checks a request. All complaints are joined; each names its key.
func (p Plugin) parse(req *cni.Request) (*config, error) {
	w, err := cni.Decode(req, decodeWritten)
	if err != nil {
		return nil, err
	}
	c := &config{written: w, folder: p.folder(w.names)}
	if err := c.readRequested(req.Attachment); err != nil {
		return nil, err
	}
	if w.sticky {
		c.pod = podOf(req.Attachment)
	}
	return c, nil
}

func decodeWritten(doc []byte) (*written, error) {
	j, err := decode(doc)
	if err != nil {
		return nil, err
	}
	w := &written{
		resolvConf: j.IPAM.ResolvConf, sticky: j.IPAM.Sticky, inArgs: j.Args.CNI.IPs, inRuntimeConfig: j.RuntimeConfig.IPs,
	}
	if len(j.Args.Avoid) > 0 {
		w.avoid = make(map[netip.Addr]bool)
	}
	for _, a := range j.Args.Avoid {
		w.avoid[a] = true
	}
	var namesErr, routesErr error
	w.names, namesErr = newNames(j.Name, j.IPAM.DataDir)
	w.routes, routesErr = ipam.ParseRoutes(j.IPAM.Routes)
	err = errors.Join(namesErr, routesErr, absolute("ipam.dataDir", j.IPAM.DataDir), absolute("ipam.resolvConf", w.resolvConf), w.readSets(j))
	if err != nil { // requests can be judged by ranges that are right only
		return nil, err
	}
	return w, nil
}

func decode(config []byte) (*jsonConfig, error) {
	j := new(jsonConfig)
	if err := ipam.Decode(config, j); err != nil {
		return nil, err
	}
	if j.IPAM == nil {
		return nil, invalid(`key "ipam" is missing`)
	}
	return j, nil
}

func absolute(key, path string) error {
	if path == "" || filepath.IsAbs(path) && !strings.Contains(path, "\x00") {
		return nil
	}
	return invalid("%s is %q: want an absolute path", key, path)
}

// readSets reads the range sets in the order in which they are numbered: those of the runtime first.
func (c *written) readSets(j *jsonConfig) error {
	lists := slices.Concat(j.RuntimeConfig.IPRanges, j.IPAM.Ranges)
	total := 0
	for _, ranges := range lists {
		total += len(ranges)
	}
	if total > maxRanges || len(lists) > maxRanges {
		return invalid("ipam.ranges has %d ranges in %d sets: want %d at most", total, len(lists), maxRanges)
	}
	var errs []error
	add := func(key string, ranges []jsonRange, keyOf func(i int) string) {
		s, err := parseSet(key, ranges, keyOf)
		c.sets, errs = append(c.sets, s), append(errs, err)
	}
	addAll := func(key string, lists [][]jsonRange) {
		for i, ranges := range lists {
			key := fmt.Sprintf("%s[%d]", key, i)
			add(key, ranges, func(i int) string { return fmt.Sprintf("%s[%d]", key, i) })
		}
	}
	addAll("runtimeConfig.ipRanges", j.RuntimeConfig.IPRanges)
	if j.IPAM.Subnet != "" {
		add("ipam", []jsonRange{j.IPAM.jsonRange}, func(int) string { return "ipam" })
	}
	addAll("ipam.ranges", j.IPAM.Ranges)
	if len(c.sets) == 0 {
		return invalid(`ipam.ranges is missing: want a list of range sets like [[{"subnet": "10.1.0.0/16"}]]`)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return errors.Join(disjoint(c.sets), c.fitsVersion(j.CNIVersion))
}

// fitsVersion refuses more addresses than results of old CNI versions can have.
func (c *written) fitsVersion(cniVersion string) error {
	if ok, _ := version.GreaterThanOrEqualTo(cniVersion, "0.3.0"); ok {
		return nil
	}
	v4, v6 := 0, 0
	for _, s := range c.sets {
		if s.is4() {
			v4++
		} else {
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		return invalid("cniVersion is %q, which allows one address per IP family, but there are range sets for %d IPv4 and %d IPv6 addresses: "+
			"want cniVersion 0.3.0 or later", cniVersion, v4, v6)
	}
	return nil
}

// readRequested reads the addresses that were asked for, and finds the set of each.
//
// Conventions of CNI: where "args" are given, "the plugin must ignore the CNI_ARGS Field".
func (c *config) readRequested(at cni.Attachment) error {
	c.requested = make([]netip.Addr, len(c.sets))
	var errs []error
	request := func(key string, list []string) {
		if len(list) > maxRanges {
			errs = append(errs, invalid("%s has %d addresses: want one per range set at most, %d", key, len(list), len(c.sets)))
			return
		}
		for _, s := range list {
			if err := c.request(s); err != nil {
				errs = append(errs, invalid("%s has %q: %v", key, s, err))
			}
		}
	}
	request("args.cni.ips", c.inArgs)
	request("runtimeConfig.ips", c.inRuntimeConfig)
	if ip, _ := at.Arg("IP"); ip != "" && len(c.inArgs)+len(c.inRuntimeConfig) == 0 {
		request("IP of CNI_ARGS", strings.Split(ip, ","))
	}
	return errors.Join(errs...)
}

// request notes one address that was asked for. The error says what is wrong with it.
func (c *config) request(s string) error {
	a, err := parseRequested(s)
	if err != nil {
		return errors.New("want an address like 10.1.0.9 or 10.1.0.9/16")
	}
	for i, set := range c.sets {
		if _, in := set.find(a); !in {
			continue
		}
		if c.isGateway(a) {
			return errors.New("it is the gateway's")
		}
		if other := c.requested[i]; other.IsValid() && other != a {
			return fmt.Errorf("one address only can be had of %s, and %s is requested too", set.key, other)
		}
		c.requested[i] = a
		return nil
	}
	return fmt.Errorf("it is in none of the ranges %s", c.sets)
}

// parseRequested reads an address. A prefix length is taken for that of the subnet.
func parseRequested(s string) (netip.Addr, error) {
	s = strings.TrimSpace(s)
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err
}

// isGateway says whether an address is that of a gateway, which is never given out.
func (c *written) isGateway(a netip.Addr) bool {
	return slices.ContainsFunc(c.sets, func(s set) bool {
		return slices.ContainsFunc(s.ranges, func(r addressRange) bool { return r.gateway == a })
	})
}

// usable says whether an address that is not reserved can be given out.
func (c *written) usable(a netip.Addr) bool { return !c.isGateway(a) && !c.avoid[a] }

// podOf names the pod's interface in the memory of addresses; empty if the runtime names no pod.
func podOf(at cni.Attachment) string {
	namespace, _ := at.Arg("K8S_POD_NAMESPACE")
	name, _ := at.Arg("K8S_POD_NAME")
	if name == "" {
		return ""
	}
	return namespace + "/" + name + "/" + at.IfName
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

package delegate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
)

// multusDir is the cniDir of Multus, if its configuration names no other. What it has made of a pod is in there: in the
// folder "results", a file of libcni for each attachment, with its network, what was asked for and what came of it. Pods
// that Multus has made outlive it, and their DEL comes to Braid.
const multusDir = "/var/lib/cni/multus"

// leftovers returns what the cache of Multus has of a container, in the order in which it was made, or of all containers if
// none is named. A file that cannot be read as such is passed over: it is of no use to anybody.
func (c *call) leftovers(containerID string) (list []leftover) {
	for _, dir := range slices.Compact([]string{multusDir, c.conf.CNIDir}) {
		entries, err := os.ReadDir(filepath.Join(dir, "results"))
		if err != nil {
			continue // there is no cache
		}
		for _, e := range entries {
			if !e.Type().IsRegular() || !strings.Contains(e.Name(), "-"+containerID) {
				continue
			}
			l, err := readLeftover(filepath.Join(dir, "results", e.Name()))
			if err != nil {
				c.log.Warn("what Multus has kept of an attachment cannot be read", "err", err)
			} else if l != nil && (containerID == "" || l.at.ContainerID == containerID) {
				list = append(list, *l)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b leftover) int {
		if a.isDefault(c) != b.isDefault(c) {
			if a.isDefault(c) {
				return -1
			}
			return 1
		}
		return cmp.Or(a.made.Compare(b.made), cmp.Compare(a.path, b.path))
	})
	return list
}

// A leftover is an attachment that Multus has made.
type leftover struct {
	path         string
	made         time.Time
	at           cni.Attachment
	network      *conf.Network
	capabilities map[string]any
	result       *types100.Result // nil if it cannot be read
}

func (l *leftover) isDefault(c *call) bool { return l.at.IfName == c.req.IfName }

// maxLeftover is more than such a file has.
const maxLeftover = 4 << 20

// readLeftover reads a file of libcni. It is nil if the file is none, or one of a meta-plugin's own attachment.
func readLeftover(path string) (*leftover, error) {
	st, err := os.Stat(path)
	if err != nil || st.Size() > maxLeftover {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Kind           string          `json:"kind"`
		ContainerID    string          `json:"containerId"`
		Config         []byte          `json:"config"`
		IfName         string          `json:"ifName"`
		NetworkName    string          `json:"networkName"`
		Netns          string          `json:"netns"`
		Args           [][2]string     `json:"cniArgs"`
		CapabilityArgs map[string]any  `json:"capabilityArgs"`
		Result         json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if file.Kind != "cniCacheV1" || file.ContainerID == "" || file.IfName == "" {
		return nil, nil
	}
	network, err := conf.ParseNetwork(file.Config, file.NetworkName)
	if err != nil {
		return nil, fmt.Errorf("%s: config: %w", path, err)
	}
	if slices.ContainsFunc(network.Plugins, func(p conf.Plugin) bool { return conf.IsMetaPlugin(p.Type) }) {
		return nil, nil
	}
	l := &leftover{path: path, made: st.ModTime(), network: network, capabilities: file.CapabilityArgs}
	l.at = cni.Attachment{ContainerID: file.ContainerID, Netns: file.Netns, IfName: file.IfName}
	var args []string
	for _, pair := range file.Args {
		args = append(args, pair[0]+"="+pair[1])
	}
	l.at.Args = strings.Join(args, ";")
	l.result, _ = cni.ParseResult(file.Result, network.CNIVersion) // DEL works without
	return l, nil
}

// delLeftovers undoes what Multus has made of the container, last attachment first, and takes it out of the cache. Found
// says whether the interface of the request was among it.
func (c *call) delLeftovers(ctx context.Context) (found bool, err error) {
	list := c.leftovers(c.req.ContainerID)
	var errs []error
	for _, l := range slices.Backward(list) {
		found = found || l.isDefault(c)
		c.log.Info("undo what Multus has made", "network", l.network.Name, "interface", l.at.IfName)
		l.at.Netns = c.req.Netns
		err := chain.Lenient(l.network, c.path, c.findBinary).Del(ctx, l.at, l.capabilities, l.result)
		if err == nil {
			err = os.Remove(l.path)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %s, which Multus has made: %w", l.network.Name, l.at.IfName, err))
		}
	}
	if len(list) > 0 && errors.Join(errs...) == nil {
		for _, dir := range []string{multusDir, c.conf.CNIDir} { // its list of the pod's networks
			_ = os.Remove(filepath.Join(dir, c.req.ContainerID))
		}
	}
	return found, errors.Join(errs...)
}

package install

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/braid-cni/braid/conf"
)

// runtimeTime is how long the API server has to say which container runtime the node has.
const runtimeTime = 10 * time.Second

// A Cluster asks the API server about a node, with the kubeconfig that was written.
type Cluster interface {
	// PodCIDRs waits for those of the node.
	PodCIDRs(ctx context.Context, kubeconfig, node string) ([]string, error)
	// Runtime returns the container runtime and its version, as "containerd://2.4.2".
	Runtime(ctx context.Context, kubeconfig, node string) (string, error)
}

// Install puts Braid on the node, or brings what is there up to date. It can be interrupted at any moment and run again.
func Install(ctx context.Context, o Options, cluster Cluster, log *slog.Logger) error {
	if err := o.validate(); err != nil {
		return err
	}
	unlock, err := lock(ctx, o.CNIDir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := begin(o)
	if err != nil {
		return err
	}
	if err := s.putBinaries(log); err != nil {
		return err
	}
	if err := s.putKubeconfig(); err != nil {
		return err
	}
	if err := s.choosePrimary(ctx, cluster, log); err != nil {
		return err
	}
	s.chooseResult(ctx, cluster, log)
	// The configuration comes last: as soon as it is there the runtime calls the plugin.
	path, err := s.putConf(log)
	if err != nil {
		return err
	}
	if err := s.save(); err != nil {
		return err
	}
	log.Info("installed", "configuration", path, "network", s.Network, "clusterNetwork", s.Primary, "binaries", o.BinDir)
	return nil
}

// begin takes up what was installed before, with new options.
func begin(o Options) (*state, error) {
	s, err := load(o.CNIDir)
	if errors.Is(err, ErrNotInstalled) {
		s, err = new(state), nil
	}
	if err != nil {
		return nil, err
	}
	old := s.Options
	s.Options, s.Removing = o, false
	for _, dir := range []string{o.BinDir, o.ConfDir, o.NetworksDir} {
		if err := s.mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.removeInterrupted(); err != nil {
		return nil, err
	}
	if err := s.save(); err != nil {
		return nil, err
	}
	return s, s.moved(&old)
}

// moved takes away what lies in folders that are not used any more.
func (s *state) moved(old *Options) error {
	now := s.Options.dirs()
	for _, f := range slices.Clone(s.Files) {
		if dir := filepath.Dir(f.Path); slices.Contains(old.dirs(), dir) && !slices.Contains(now, dir) {
			if err := s.takeAway(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// choosePrimary decides what the default network is, and writes the configuration of Braid's own bridge if it is that.
func (s *state) choosePrimary(ctx context.Context, cluster Cluster, log *slog.Logger) error {
	o := &s.Options
	if o.ClusterNetwork == Bridge {
		return s.useBridge(ctx, cluster)
	}
	if o.ClusterNetwork != Auto {
		return s.usePath(log)
	}
	deadline := time.Now().Add(o.PrimaryWait)
	for {
		path, n, skipped, err := findPrimary(o.ConfDir)
		switch {
		case err != nil:
			return err
		case s.keepsPrimary(path):
			log.Warn("the cluster's network is not ready; pods wait for it", "path", s.Primary)
			s.use(s.Primary, s.Network)
			return s.save()
		case path != "":
			s.use(path, n.Name)
			return s.save()
		}
		if s.Primary != "" && exists(s.Primary) || time.Now().After(deadline) {
			for _, err := range skipped {
				log.Warn("configuration passed over", "err", err)
			}
			break // it was decided before, or nobody has come
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return s.useBridge(ctx, cluster)
}

// keepsPrimary tells if the default network is what it was, though its configuration is not there, or not valid: that of a
// CNI that is being restarted or upgraded. Found is what there is otherwise; what comes before it is taken at once, what
// comes after it by the guard, after a while.
func (s *state) keepsPrimary(found string) bool {
	return filepath.Dir(s.Primary) == s.Options.ConfDir && (found == "" || found > s.Primary)
}

// use notes the default network. The name that the runtime knows stays as it is once there was one.
func (s *state) use(primary, name string) {
	s.Primary = primary
	switch {
	case s.Options.Name != "":
		s.Network = s.Options.Name
	case s.Network == "":
		s.Network = name
	}
}

// usePath takes the configuration that the operator names. It need not be there yet: until it is, pods wait.
func (s *state) usePath(log *slog.Logger) error {
	path, name := s.Options.ClusterNetwork, bridgeNetwork
	switch n, err := readPrimary(path); {
	case err == nil:
		name = n.Name
	case errors.Is(err, errNotPrimary):
		return fmt.Errorf("--cluster-network: %w", err)
	default:
		log.Warn("the cluster's network is not ready; pods wait for it", "err", err)
	}
	s.use(path, name)
	return s.save()
}

func (s *state) useBridge(ctx context.Context, cluster Cluster) error {
	o := &s.Options
	switch {
	case len(o.PodCIDRs) > 0:
		s.PodCIDRs = o.PodCIDRs
	case len(s.PodCIDRs) > 0: // a node starts without an API server, too
	case o.NodeName == "":
		return fmt.Errorf("the default network is to be a bridge of Braid, since there is no configuration of another CNI in %s, but neither --pod-cidr nor --node-name is given", o.ConfDir)
	default:
		var err error
		if s.PodCIDRs, err = cluster.PodCIDRs(ctx, o.kubeconfig(), o.NodeName); err != nil {
			return fmt.Errorf("find the pod CIDR for Braid's own bridge: %w", err)
		}
	}
	content, err := o.composeBridge(ctx, s.PodCIDRs)
	if err != nil {
		return err
	}
	if err := s.putBytes(o.bridgeConf(), 0o644, content); err != nil {
		return err
	}
	s.use(o.bridgeConf(), bridgeNetwork)
	return s.save()
}

// putConf writes the configuration under the name that comes first, then removes it under any other.
func (s *state) putConf(log *slog.Logger) (path string, err error) {
	content, err := s.compose()
	if err != nil {
		return "", err
	}
	names, err := confFiles(s.Options.ConfDir)
	if err != nil {
		return "", err
	}
	own, first := placeFor(names)
	if first != "" {
		log.Warn("a configuration of another CNI sorts before Braid's", "its", first, "braid's", own, "first", own < first)
	}
	path = filepath.Join(s.Options.ConfDir, own)
	if err := s.mkdir(s.Options.ConfDir, 0o755); err != nil {
		return "", err
	}
	if s.find(path) == nil { // somebody else's, from before there was an installation
		if err := s.giveWay(path); err != nil {
			return "", err
		}
	}
	if err := s.putBytes(path, 0o644, content); err != nil {
		return "", err
	}
	other := filepath.Join(s.Options.ConfDir, otherName(own))
	return path, s.vacate(other)
}

// vacate removes what is at a path of ours that is not used now.
func (s *state) vacate(path string) error {
	f := s.find(path)
	if f == nil && !exists(path) {
		return nil
	}
	if f == nil {
		if err := s.giveWay(path); err != nil {
			return err
		}
		f = s.find(path)
	}
	if err := remove(path); err != nil {
		return err
	}
	if f.Backup != "" {
		return nil // it is for the uninstall
	}
	s.forget(f)
	return s.save()
}

// chooseResult decides what ADD answers. containerd takes the addresses of eth0 for those of the pod; CRI-O takes all, so
// that a pod could be known by an address of one of its other networks. Where the runtime cannot be told, the answer is the
// one that is right for both.
func (s *state) chooseResult(ctx context.Context, cluster Cluster, log *slog.Logger) {
	o := &s.Options
	ctx, cancel := context.WithTimeout(ctx, runtimeTime)
	defer cancel()
	runtime, err := cluster.Runtime(ctx, o.kubeconfig(), o.NodeName)
	switch {
	case err == nil && strings.HasPrefix(runtime, "containerd://"):
		s.Result = conf.ResultMerged
	case err == nil || s.Result == "":
		s.Result = conf.ResultDefault
	}
	if err != nil {
		log.Warn("the container runtime is not known; ADD answers with the default network's result", "result", s.Result, "err", err)
	}
}

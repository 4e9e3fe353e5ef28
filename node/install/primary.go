package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/confdir"
)

// errNotPrimary says why a configuration is not one of a cluster's network.
var errNotPrimary = errors.New("no network of a cluster")

// confFiles lists what a runtime reads in a folder, in the order in which it does: "sorted by file name".
func confFiles(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".conflist" || ext == ".conf" || ext == ".json") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// readPrimary reads a configuration and decides if it can be that of the default network.
func readPrimary(path string) (*conf.Network, error) {
	n, err := confdir.FromPath(nil, path)
	if err != nil {
		return nil, err
	}
	for _, p := range n.Plugins {
		// A pod would get each of its networks twice, and a configuration that names the other's would never end.
		if conf.IsMetaPlugin(p.Type) {
			return nil, fmt.Errorf("%s: %w: %q attaches pods to networks itself", path, errNotPrimary, p.Type)
		}
	}
	if !slices.ContainsFunc(n.Plugins, func(p conf.Plugin) bool { return p.Type != "loopback" }) {
		return nil, fmt.Errorf("%s: %w: it is for the loopback interface alone", path, errNotPrimary)
	}
	return n, nil
}

// findPrimary returns the configuration that a runtime would use if Braid were not there: the first of the folder. One
// that is broken, Braid's own or that of another plugin of its kind is passed over; skipped says why.
func findPrimary(dir string) (path string, n *conf.Network, skipped []error, err error) {
	names, err := confFiles(dir)
	if err != nil {
		return "", nil, nil, err
	}
	for _, name := range names {
		if isOwnName(name) {
			continue
		}
		candidate := filepath.Join(dir, name)
		if n, err := readPrimary(candidate); err == nil {
			return candidate, n, skipped, nil
		} else {
			skipped = append(skipped, err)
		}
	}
	return "", nil, skipped, nil
}

// confName is the configuration's name. A name that sorts before all of letters and digits is taken while a file of
// somebody else would come before it.
const (
	confName  = "00-braid.conflist"
	earlyName = "+00-braid.conflist"
)

func isOwnName(name string) bool { return name == confName || name == earlyName }

// otherName is the one of our names that is not given.
func otherName(own string) string {
	if own == confName {
		return earlyName
	}
	return confName
}

// placeFor returns the first of our names that comes before everybody else's; and, if that is not the usual one, who is
// in the way. If none comes before, it is the usual one.
func placeFor(names []string) (own, first string) {
	for _, name := range names {
		if !isOwnName(name) {
			first = name
			break
		}
	}
	switch {
	case first == "" || confName < first:
		return confName, ""
	case earlyName < first:
		return earlyName, first
	}
	return confName, first
}

// renamedOwn returns what another CNI has renamed our configuration to: cilium, for one, puts an extension to whatever it finds.
func renamedOwn(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		for _, own := range []string{confName, earlyName} {
			if strings.HasPrefix(e.Name(), own+".") && e.Type().IsRegular() {
				paths = append(paths, filepath.Join(dir, e.Name()))
			}
		}
	}
	return paths, nil
}

package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

// The node as it was before: byte for byte, with modes and times, plugins that gave way included.
func TestUninstallRestores(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("opt/cni/bin/bridge", "the reference bridge", 0o755)
	n.write("opt/cni/bin/portmap", "#!/bin/sh\nexit 1\n", 0o755)
	n.write("opt/cni/bin/braid", "put there by hand", 0o700)
	n.write("opt/cni/bin/multi", "all in one", 0o755)
	must(t, os.Symlink("multi", n.path("opt/cni/bin/macvlan")))
	n.conf("10-calico.conflist", calico)
	n.conf(confName, `{"cniVersion": "1.0.0", "name": "by-hand", "plugins": [{"type": "braid", "clusterNetwork": "x"}]}`)
	past := time.Now().Add(-1000 * time.Hour).Truncate(time.Second)
	for _, name := range []string{"opt/cni/bin/bridge", "opt/cni/bin/braid"} {
		must(t, os.Chtimes(n.path(name), past, past))
	}
	before := n.tree()

	n.Plugins = []string{AllPlugins}
	n.install()
	if n.read("opt/cni/bin/bridge") != "the reference bridge" || exists(n.path("opt/cni/bin/ipvlan")) == false {
		t.Error("want the reference plugin untouched, and a link where there was none")
	}
	n.Overwrite = true
	n.install()
	if got := n.read("opt/cni/bin/bridge"); got != "first braid" {
		t.Errorf("bridge: found %q, want Braid's", got)
	}
	if got := n.read("opt/cni/bin/multi"); got != "all in one" {
		t.Errorf("what a link led to was changed: %q", got)
	}
	n.write("image/braid", "an upgrade", 0o755)
	n.install()
	for _, session := range []string{"session", "session.tmp"} {
		must(t, os.WriteFile(filepath.Join(n.CNIDir, session), []byte("of an ADD"), 0o600))
	}
	must(t, n.uninstall(false))
	n.write("image/braid", "first braid", 0o755)
	if diff := cmp.Diff(without(before, "image"), without(n.tree(), "image")); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
	must(t, n.uninstall(false))
}

func without(tree map[string]string, prefix string) map[string]string {
	kept := map[string]string{}
	for name, what := range tree {
		if !strings.HasPrefix(name, prefix) && name != "." {
			kept[name] = what
		}
	}
	return kept
}

func TestUninstallEmptyNode(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.tree()
	n.install()
	must(t, n.uninstall(false))
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
	if s, err := load(n.CNIDir); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("found %v, %v", s, err)
	}
}

// What others have put in the place of ours is theirs.
func TestUninstallLeavesOthers(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("opt/cni/bin/bridge", "reference 1", 0o755)
	n.Plugins, n.Overwrite = []string{"bridge", "loopback"}, true
	n.install()
	n.remove("opt/cni/bin/bridge")
	n.write("opt/cni/bin/bridge", "reference 2", 0o755)
	n.rename(ours, ours+".cilium_bak")
	must(t, n.uninstall(false))
	if got := n.read("opt/cni/bin/bridge"); got != "reference 2" {
		t.Errorf("bridge: found %q, want what its owner has put there since", got)
	}
	for _, name := range []string{"opt/cni/bin/loopback", ours, ours + ".cilium_bak", "etc/cni/net.d/braid.d"} {
		if exists(n.path(name)) {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestUninstallInUse(t *testing.T) {
	t.Parallel()
	record := func(pod string, attachments ...journal.Attachment) *journal.Record {
		return &journal.Record{ContainerID: pod, IfName: "eth0", Pod: "default/" + pod, Done: true, Attachments: attachments}
	}
	network := func(name string) *conf.Network {
		kind := "calico"
		if name == bridgeNetwork {
			kind = "bridge"
		}
		c, err := conf.ParseNetwork(fmt.Appendf(nil, `{"cniVersion": "1.0.0", "type": %q}`, kind), name)
		must(t, err)
		return c
	}
	eth0 := func(name string) journal.Attachment {
		return journal.Attachment{Name: name, IfName: "eth0", Default: true, Network: network(name)}
	}
	net1 := journal.Attachment{Name: "default/storage", IfName: "net1", Network: network("storage")}

	n := newNode(t)
	n.conf("10-calico.conflist", calico)
	n.install()
	j, err := journal.Open(filepath.Join(n.CNIDir, "attachments"))
	must(t, err)
	must(t, j.Put(record("plain", eth0("k8s-pod-network"))))
	must(t, j.Put(record("web", eth0("k8s-pod-network"), net1)))
	before := n.tree()
	err = n.uninstall(false)
	used, ok := errors.AsType[*InUseError](err)
	if !ok || cmp.Diff([]string{"default/web: k8s-pod-network@eth0, default/storage@net1"}, used.Pods) != "" {
		t.Fatalf("found %v, want web and its networks", err)
	}
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("an uninstall that was refused has changed something (-before +after):\n%s", diff)
	}
	must(t, n.uninstall(true))
	if records, err := j.All(); err != nil || len(records) != 1 || records[0].Pod != "default/web" {
		t.Errorf("found records %v, %v, want that of web, which nobody has undone", records, err)
	}

	// Of Braid's own bridge every pod needs Braid.
	n = newNode(t)
	n.install()
	j, err = journal.Open(filepath.Join(n.CNIDir, "attachments"))
	must(t, err)
	must(t, j.Put(record("plain", eth0(bridgeNetwork))))
	if err := n.uninstall(false); err == nil || !strings.Contains(err.Error(), "default/plain: cluster@eth0") {
		t.Errorf("found %v, want plain", err)
	}
	must(t, j.Remove("plain", "eth0"))
	must(t, n.uninstall(false))
	if exists(filepath.Join(n.CNIDir, "attachments")) {
		t.Error("the empty journal is still there")
	}
}

// An uninstall that was interrupted is finished by the next one, and a guard does not bring back what is gone.
func TestUninstallInterrupted(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before := n.tree()
	n.install()
	s := n.state()
	s.Removing = true
	must(t, s.save())
	must(t, s.removeConf())
	g := n.guard(nil)
	g.check(context.Background(), &watcher{})
	if exists(n.path(ours)) {
		t.Error("the guard has put the configuration back")
	}
	must(t, n.uninstall(false))
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("after uninstall (-before +after):\n%s", diff)
	}
}

func TestMovedFolders(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.install()
	n.BinDir, n.ConfDir = n.path("k3s/bin"), n.path("k3s/net.d")
	n.install()
	for _, name := range []string{ours, "opt/cni/bin/braid", "opt/cni/bin/loopback"} {
		if exists(n.path(name)) {
			t.Errorf("%s is still there", name)
		}
	}
	if !exists(n.path("k3s/net.d/"+confName)) || !exists(n.path("k3s/bin/braid")) || !exists(n.path("k3s/net.d/braid.d/token")) {
		t.Error("it is not in the new folders")
	}
	must(t, n.uninstall(false))
}

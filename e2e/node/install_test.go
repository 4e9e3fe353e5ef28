//go:build node

package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/refplugins"
)

// testInstall installs Braid as its manifests do it, on a node that has no network yet and no plugin but portmap.
func testInstall(t *testing.T, n *Node) {
	copyPlugins(t, "portmap")
	n.importBraid("dev")
	n.install(t)
	n.WaitNodeReady(t, 30*time.Second, true)
	n.WaitNADs(t)
	n.Apply(t, networks)

	var conf struct {
		Name    string
		Plugins []struct{ Type, ClusterNetwork string }
	}
	readJSON(t, ConfDir+"/00-braid.conflist", &conf)
	if len(conf.Plugins) != 1 || conf.Plugins[0].ClusterNetwork != "/etc/cni/braid/net.d/10-cluster.conflist" {
		t.Fatalf("the configuration is %+v, want Braid's own bridge as the cluster's network", conf)
	}
	own, err := os.ReadFile(conf.Plugins[0].ClusterNetwork)
	if err != nil || !strings.Contains(string(own), `"10.244.0.0/24"`) {
		t.Errorf("Braid's own bridge is not that of the node's pod CIDR: %v, %s", err, own)
	}
}

// install applies the manifests as they are.
func (n *Node) install(t *testing.T) {
	t.Helper()
	n.Kubectl(t, "", "apply", "-f", "../../deploy/")
	n.WaitRollout(t, "kube-system", "daemonset/braid")
}

// testUninstall follows the other tests, whose pods are gone.
func testUninstall(t *testing.T, n *Node) {
	n.uninstall(t)
	found := snapshot(t, ConfDir, BinDir)
	if len(found) != 1 || found[BinDir+"/portmap"] == "" {
		t.Errorf("after the uninstall the node has %v", found)
	}
	if link, err := netlink.LinkByName("braid0"); err == nil {
		t.Error("after the uninstall the bridge is still there, and has an address of the pod CIDR")
		_ = netlink.LinkDel(link) // it would be in the way of the next test
	}
	n.WaitNodeReady(t, 60*time.Second, false)
}

func (n *Node) uninstall(t *testing.T) {
	t.Helper()
	n.Kubectl(t, "", "delete", "-f", "../../deploy/daemonset.yaml")
	n.Kubectl(t, "", "apply", "-f", "../../deploy/uninstall/")
	n.WaitRollout(t, "kube-system", "daemonset/braid-uninstall")
	n.Kubectl(t, "", "delete", "-f", "../../deploy/uninstall/")
}

const primary = `{
  "cniVersion": "1.0.0", "name": "primary", "plugins": [
    {"type": "bridge", "bridge": "primary0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// bystander is a pod that is older than Braid, or younger.
const bystander = `
apiVersion: v1
kind: Pod
metadata: { name: NAME, namespace: blue }
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: server
      image: ` + Toolbox + `
      command: [/bin/sh, -c, "httpd -f -p 8080"]
      ports: [{ containerPort: 8080, hostPort: 8081 }]
`

// testPrimary installs Braid on a node that has a network and the reference plugins, with a pod that runs, and takes it
// away again.
func testPrimary(t *testing.T, n *Node) {
	copyPlugins(t, "bridge", "host-local", "loopback", "macvlan", "portmap", "static")
	if err := os.WriteFile(ConfDir+"/10-primary.conflist", []byte(primary), 0o644); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, ConfDir, BinDir)
	n.WaitNodeReady(t, 30*time.Second, true)
	n.Apply(t, strings.Replace(bystander, "NAME", "older", 1))
	n.WaitReady(t, 60*time.Second, "blue", 1)

	n.install(t)
	var conf struct {
		Name    string
		Plugins []struct{ ClusterNetwork string }
	}
	readJSON(t, ConfDir+"/00-braid.conflist", &conf)
	if len(conf.Plugins) != 1 || conf.Plugins[0].ClusterNetwork != ConfDir+"/10-primary.conflist" || conf.Name != "primary" {
		t.Fatalf("the configuration is %+v, want the name and the network of 10-primary.conflist", conf)
	}
	now := snapshot(t, ConfDir, BinDir)
	for path, sum := range before {
		if now[path] != sum {
			t.Errorf("the install has changed %s, which is not Braid's", path)
		}
	}
	n.Apply(t, podsManifest)
	pods := n.WaitReady(t, 60*time.Second, "blue", 5)
	for _, pod := range pods {
		if pod.Name == "web" {
			inside := n.addresses(t, "blue", "web")
			wantPodIP(t, &pod, inside["eth0"])
			if status := n.waitNetworkStatus(t, "web", inside); status[0].Name != "primary" {
				t.Errorf("the default network is %q, want primary", status[0].Name)
			}
			n.wantReached(t, "web", n.addresses(t, "blue", "older"), "192.0.2.11", "192.0.2.1")
		}
	}

	// The plugins of the older pod's network are the primary's, whoever calls them.
	n.Kubectl(t, "", "delete", "--namespace=blue", "--wait=true", "pod/older")
	n.Kubectl(t, "", "delete", "--namespace=blue", "--wait=false", "daemonset/agent", "pod/web", "pod/db", "pod/host")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)

	n.Apply(t, strings.Replace(bystander, "NAME", "younger", 1))
	n.WaitReady(t, 60*time.Second, "blue", 1)
	n.uninstall(t)
	if diff := cmp.Diff(before, snapshot(t, ConfDir, BinDir)); diff != "" {
		t.Errorf("the uninstall has not restored what was there (-before +after):\n%s", diff)
	}
	n.Apply(t, strings.ReplaceAll(strings.Replace(bystander, "NAME", "later", 1), "8081", "8082"))
	n.WaitReady(t, 60*time.Second, "blue", 2)
	n.Kubectl(t, "", "delete", "--namespace=blue", "--wait=false", "pod/younger", "pod/later")
	n.waitNoPods(t)
	n.WaitNothingLeft(t)
}

// copyPlugins puts reference plugins where a node's packages would have put them.
func copyPlugins(t *testing.T, names ...string) {
	t.Helper()
	from := refplugins.Dir(t)
	for _, name := range names {
		if out, err := exec.Command("cp", filepath.Join(from, name), BinDir).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
}

// snapshot returns what the files in folders are, by path.
func snapshot(t *testing.T, folders ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			if d.Type()&fs.ModeSymlink != 0 {
				var target string
				target, err = os.Readlink(path)
				content = []byte(target)
			}
			sum := sha256.Sum256(content)
			found[path] = fmt.Sprint(info.Mode(), " ", hex.EncodeToString(sum[:8]))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func readJSON(t *testing.T, path string, out any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newPodman makes podman with a state of its own. Its backend is libcni.
func (n *node) newPodman() *engine {
	n.t.Helper()
	e := &engine{node: n, name: "podman", root: n.rootfs()}
	settings := filepath.Join(n.dir, "containers.conf")
	if err := os.WriteFile(settings, fmt.Appendf(nil, `
[containers]
default_sysctls = []
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = [%q]
network_config_dir = %q
default_network = "one"
`, binaries(), n.conf), 0o600); err != nil {
		n.t.Fatal(err)
	}
	e.args = []string{"podman", "--root", filepath.Join(n.dir, "podman"), "--runroot", "/run/podman", "--storage-driver", "vfs"}
	e.env = []string{"CONTAINERS_CONF=" + settings}
	n.t.Cleanup(func() {
		e.t.Helper()
		if out, err := e.try("rm", "-f", "-a", "-t", "0"); err != nil {
			e.t.Errorf("podman rm: %v: %s", err, out)
		}
		reapOrphans()
		e.removeCgroups()
	})
	return e
}

// removeCgroups removes the empty folders that podman leaves in the machine's cgroup hierarchies, of containers that crashed and
// of monitors. The kernel takes a moment to notice that they are empty; what another podman of the machine uses stays.
func (e *engine) removeCgroups() {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		parents, _ := filepath.Glob("/sys/fs/cgroup/*/libpod_parent")
		unified, _ := filepath.Glob("/sys/fs/cgroup/libpod_parent")
		parents = append(parents, unified...)
		if len(parents) == 0 || time.Now().After(deadline) {
			return
		}
		for _, parent := range parents {
			inner, _ := filepath.Glob(filepath.Join(parent, "*")) // its files among them, which stay
			for _, cgroup := range append(inner, parent) {
				_ = unix.Rmdir(cgroup)
			}
		}
	}
}

// TestPodmanBraidNetworks: networks whose conflist is Braid, each of two delegates. Podman gives every network of a
// container its own ADD, eth0 and eth1, and knows no Kubernetes.
func TestPodmanBraidNetworks(t *testing.T) {
	n := newNode(t)
	n.load("one.conflist", n.list(entry{version: "1.0.0", name: "one", keys: delegates("one", "10.1.0", "10.2.0")}))
	n.load("two.conflist", n.list(entry{version: "0.4.0", name: "two", keys: delegates("two", "10.3.0", "10.4.0")}))
	e := n.newPodman()

	e.run("web", "--network", "one")
	e.run("db", "--network", "one:interface_name=eth0", "--network", "two:interface_name=eth1") // podman names them in no order
	e.wantLinks("web", "eth0 net1")
	e.wantLinks("db", "eth0 net1 eth1 net2")
	e.wantPing("web", "db", "eth0")

	t.Log("connect and disconnect, on the running container")
	e.must("network", "connect", "two", "web")
	e.wantLinks("web", "eth0 net1 eth1 net2")
	e.wantPing("web", "db", "eth1")
	e.must("network", "disconnect", "one", "web")
	e.wantLinks("web", "eth1 net2")
	e.wantPing("web", "db", "eth1")
	e.must("network", "connect", "--ip", "10.1.0.99", "one", "web")
	e.wantLinks("web", "eth0 net1 eth1 net2")
	if got := e.addresses("web")["eth0"]; got != "10.1.0.99" {
		t.Errorf("address of eth0: %s, asked for was 10.1.0.99", got)
	}
	if out, err := e.try("network", "connect", "one", "web"); err == nil {
		t.Errorf("connecting a second time succeeds: %s", out)
	}

	t.Log("stop and start: the same container in a new namespace")
	e.must("stop", "-t", "0", "web")
	if left := n.records(); left != 2 {
		t.Errorf("there are %d records while one container of two networks runs", left)
	}
	e.must("start", "web")
	e.wantLinks("web", "eth0 net1 eth1 net2")
	e.must("restart", "-t", "0", "web")
	e.wantLinks("web", "eth0 net1 eth1 net2")
	e.wantPing("web", "db", "eth0")
	e.wantPing("web", "db", "eth1")

	t.Log("a reboot: everything is gone but what is on disk, and nothing was cleaned up")
	e.reboot("web", "db")
	if left := n.records(); left != 4 {
		t.Errorf("there are %d records after the reboot, want 4: podman was not to clean up", left)
	}
	e.must("start", "web", "db")
	e.wantLinks("web", "eth0 net1 eth1 net2")
	e.wantLinks("db", "eth0 net1 eth1 net2")
	e.wantPing("web", "db", "eth0")
	if left := n.records(); left != 4 {
		t.Errorf("there are %d records with two containers of two networks", left)
	}
	if left := n.reserved("one"); len(left) != 2 {
		t.Errorf("addresses reserved for two containers: %q", left)
	}

	t.Log("an address that is taken")
	taken := e.addresses("web")["eth0"]
	if out, err := e.try("run", "--rm", "--network", "one", "--ip", taken, "--rootfs", e.root, "ip", "addr"); err == nil || !strings.Contains(out, taken) {
		t.Errorf("run with an address that is taken: %v: %s", err, out)
	}
	e.must("rm", "-f", "-t", "0", "web")
	e.must("rm", "-f", "-t", "0", "db")
	n.left("one", "one-second", "two", "two-second")
	e.wantNothingLeft()
}

// reboot ends containers, with the monitors, which would clean up, and removes their network namespaces and all else that
// is in /run.
func (e *engine) reboot(names ...string) {
	e.t.Helper()
	for _, name := range names {
		var monitor, container int
		var netns string
		out := e.must("inspect", "-f", "{{.State.ConmonPid}} {{.State.Pid}} {{.NetworkSettings.SandboxKey}}", name)
		if _, err := fmt.Sscan(out, &monitor, &container, &netns); err != nil || monitor <= 1 || container <= 1 {
			e.t.Fatalf("podman inspect: %v: %s", err, out)
		}
		for _, pid := range []int{monitor, container} {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				e.t.Fatal(err)
			}
		}
		if err := unix.Unmount(netns, unix.MNT_DETACH); err != nil {
			e.t.Fatal(err)
		}
		shm, _ := filepath.Glob(filepath.Join(e.dir, "podman", "vfs-containers", "*", "userdata", "shm"))
		for _, mount := range shm {
			_ = unix.Unmount(mount, unix.MNT_DETACH) // one that is not mounted any more
		}
	}
	if err := errors.Join(unix.Unmount("/run", unix.MNT_DETACH), mountRun()); err != nil {
		e.t.Fatal(err)
	}
}

// left fails the test if addresses of networks are still reserved.
func (n *node) left(networks ...string) {
	n.t.Helper()
	for _, network := range networks {
		if left := n.reserved(network); len(left) > 0 {
			n.t.Errorf("addresses of %s left behind: %q", network, left)
		}
	}
}

// TestPodmanShowsEveryAddress: podman lists the interfaces of the merged result in any order, and shows the address of
// the first as that of the network. With "result": "default" it is always eth0's.
func TestPodmanShowsEveryAddress(t *testing.T) {
	n := newNode(t)
	n.load("one.conflist", n.list(entry{name: "one", version: "1.0.0", keys: delegates("one", "10.1.0", "10.2.0")}))
	n.load("two.conflist", n.list(entry{name: "two", version: "1.0.0", keys: `"result": "default", ` + delegates("two", "10.3.0", "10.4.0")}))
	e := n.newPodman()
	e.run("web", "--network", "one:interface_name=eth0", "--network", "two:interface_name=eth1")
	var networks map[string]struct {
		IPAddress            string
		SecondaryIPAddresses []struct{ Addr string }
	}
	if err := json.Unmarshal([]byte(e.must("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web")), &networks); err != nil {
		t.Fatal(err)
	}
	one := []string{networks["one"].IPAddress}
	for _, a := range networks["one"].SecondaryIPAddresses {
		one = append(one, a.Addr)
	}
	slices.Sort(one)
	if !slices.Equal(one, []string{"10.1.0.2", "10.2.0.2"}) {
		t.Errorf("addresses of the network one, merged: %q", one)
	}
	if two := networks["two"]; two.IPAddress != "10.3.0.2" || len(two.SecondaryIPAddresses) > 0 {
		t.Errorf("addresses of the network two, the default's: %+v", two)
	}
	e.wantLinks("web", "eth0 net1 eth1 net2")
	e.must("rm", "-f", "-t", "0", "web")
	n.left("one", "one-second", "two", "two-second")
	e.wantNothingLeft()
}

// TestPodmanDropIns: Braid under the names of its own plugins, in networks that podman knows the types of.
func TestPodmanDropIns(t *testing.T) {
	n := newNode(t)
	n.load("bridged.conflist", `{"cniVersion": "0.4.0", "name": "bridged", "plugins": [{"type": "bridge", "bridge": "plain0", "isGateway": true, "ipMasq": true,
		"hairpinMode": true, "ipam": {"type": "host-local", "dataDir": "$DIR", "routes": [{"dst": "0.0.0.0/0"}], "ranges": [[{"subnet": "10.244.0.0/24"}]]}}]}`)
	n.load("card.conflist", `{"cniVersion": "1.0.0", "name": "card", "plugins": [{"type": "macvlan", "master": "$NIC",
		"ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "192.0.2.0/24"}]]}}]}`)
	e := n.newPodman()
	if out := e.must("network", "ls"); !strings.Contains(out, "bridge") || !strings.Contains(out, "macvlan") {
		t.Errorf("podman network ls: %s", out)
	}
	e.run("web", "--network", "bridged:ip=10.244.0.77,mac=02:11:22:33:44:55,interface_name=lan7")
	e.run("db", "--network", "bridged:interface_name=eth0", "--network", "card:interface_name=eth1") // podman names them in no order
	if got := e.addresses("web"); got["lan7"] != "10.244.0.77" || len(got) != 1 {
		t.Errorf("addresses of web: %v", got)
	}
	if out := e.output("web", "ip", "link", "show", "lan7"); !strings.Contains(out, "02:11:22:33:44:55") {
		t.Errorf("lan7: %s", out)
	}
	e.wantLinks("db", "eth0 eth1")
	e.wantPing("web", "db", "eth0")
	e.must("network", "connect", "card", "web")
	e.wantPing("web", "db", "eth1")
	e.must("network", "disconnect", "bridged", "db")
	e.wantLinks("db", "eth1")
	e.must("restart", "-t", "0", "web")
	e.wantPing("db", "web", "eth0")
	e.must("rm", "-f", "-t", "0", "web", "db")
	n.left("bridged", "card")
	e.wantNothingLeft()
}

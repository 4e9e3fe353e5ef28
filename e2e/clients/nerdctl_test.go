package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newNerdctl starts a containerd, without its CRI plugin, and makes nerdctl use it.
func (n *node) newNerdctl() *engine {
	n.t.Helper()
	e := &engine{node: n, name: "nerdctl", root: n.rootfs()}
	containerd := program(n.t, "containerd")
	path := "PATH=" + filepath.Dir(containerd) + ":" + os.Getenv("PATH") // the shim is beside it
	settings := filepath.Join(n.dir, "containerd.toml")
	socket := "/run/containerd/containerd.sock"
	if err := os.WriteFile(settings, fmt.Appendf(nil, `
version = 2
root = %q
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = %q
`, filepath.Join(n.dir, "containerd"), socket), 0o600); err != nil {
		n.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(n.dir, "containerd.log"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command(containerd, "--config", settings)
	daemon.Env, daemon.Stdout, daemon.Stderr = append(os.Environ(), path), log, log
	if err := daemon.Start(); err != nil {
		n.t.Fatal(err)
	}
	e.args = []string{program(n.t, "nerdctl"), "--address", socket, "--data-root", filepath.Join(n.dir, "nerdctl"), "--snapshotter", "native",
		"--cgroup-manager", "cgroupfs", "--cni-path", binaries(), "--cni-netconfpath", n.conf}
	e.env = []string{path}
	n.t.Cleanup(func() {
		for name := range strings.FieldsSeq(first(e.try("ps", "-a", "-q"))) { // of a test that failed
			_, _ = e.try("rm", "-f", name)
		}
		_ = daemon.Process.Signal(unix.SIGTERM)
		_ = daemon.Wait()
		reapOrphans()
		for _, pattern := range []string{"/sys/fs/cgroup/default", "/sys/fs/cgroup/*/default"} { // of nerdctl's namespace
			dirs, _ := filepath.Glob(pattern)
			for _, dir := range dirs {
				if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
					e.t.Errorf("remove %s: %v", dir, err)
				}
			}
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := e.try("version")
		if err == nil {
			return e
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(log.Name())
			n.t.Fatalf("containerd does not answer: %v: %s\n%s", err, out, log)
		}
	}
}

func first(s string, _ error) string { return s }

// TestNerdctlBraidNetworks: nerdctl calls ADD of all networks of a container at the same time, with containerd's driver, from
// a hook of the runtime, after a DEL; and DEL never has a namespace.
func TestNerdctlBraidNetworks(t *testing.T) {
	n := newNode(t)
	// nerdctl makes a default network, with plugins that are not here, unless one is labelled as that.
	one := n.list(entry{version: "1.0.0", name: "one", keys: delegates("one", "10.1.0", "10.2.0")})
	n.load("one.conflist", strings.Replace(one, `"plugins"`, `"nerdctlLabels": {"nerdctl/default-network": "true"}, "plugins"`, 1))
	n.load("two.conflist", n.list(entry{version: "1.0.0", name: "two", keys: `"result": "default", ` + delegates("two", "10.3.0", "10.4.0")}))
	e := n.newNerdctl()

	e.run("web", "--network", "one")
	e.run("db", "--network", "one", "--network", "two")
	e.wantLinks("web", "eth0 net1")
	e.wantLinks("db", "eth0 net1 eth1 net2")
	e.wantPing("web", "db", "eth0")

	t.Log("what it shows is read from the container's interfaces; what it writes into /etc/hosts is from the results")
	var shown map[string]struct{ IPAddress string }
	if err := json.Unmarshal([]byte(e.must("inspect", "-f", "{{json .NetworkSettings.Networks}}", "db")), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown) != 4 {
		t.Errorf("networks of db: %v", shown)
	}
	hosts := strings.Fields(e.output("db", "cat", "/etc/hosts"))
	for address, want := range map[string]bool{"10.1.0": true, "10.2.0": true, "10.3.0": true, "10.4.0": false} {
		if got := slices.ContainsFunc(hosts, func(s string) bool { return strings.HasPrefix(s, address+".") }); got != want {
			t.Errorf("an address of %s.0/24 in /etc/hosts: %v, want %v: %q", address, got, want, hosts)
		}
	}

	t.Log("stop and start: the same container in a new namespace")
	e.must("stop", "-t", "0", "web")
	if left := n.records(); left != 2 {
		t.Errorf("there are %d records while one container of two networks runs", left)
	}
	e.must("start", "web")
	e.must("restart", "-t", "0", "db")
	e.wantLinks("web", "eth0 net1")
	e.wantLinks("db", "eth0 net1 eth1 net2")
	e.wantPing("db", "web", "eth0")
	e.must("kill", "db")
	e.must("start", "db")
	e.wantPing("web", "db", "eth0")

	e.must("rm", "-f", "web", "db")
	n.left("one", "one-second", "two", "two-second")
	e.wantNothingLeft()
}

package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const containerdSocket = "/run/containerd/containerd.sock"

// Version returns containerd's, "1.6.20" or so.
func (n *Node) Version() string {
	n.t.Helper()
	out, err := exec.Command("containerd", "--version").Output()
	fields := strings.Fields(string(out)) // containerd github.com/containerd/containerd VERSION REVISION
	if err != nil || len(fields) < 3 {
		n.t.Fatalf("containerd --version: %v, %q", err, out)
	}
	return strings.TrimPrefix(fields[2], "v")
}

// configureContainerd writes its configuration: version 2 for 1.x, version 3, with other names for the same, for 2.x.
func (n *Node) configureContainerd() {
	n.t.Helper()
	config := fmt.Sprintf(`
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = %q
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [%q]
    conf_dir = %q
`, containerdSocket, Toolbox, BinDir, ConfDir)
	if strings.HasPrefix(n.Version(), "1.") {
		config = fmt.Sprintf(`
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  # Where root lacks CAP_SYS_RESOURCE, in a container that is, no score can be lowered, and runc would fail.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
`, containerdSocket, Toolbox, BinDir, ConfDir)
	}
	n.write("/mnt/containerd.toml", config)
}

// StartContainerd starts containerd and waits until it answers. The pods that it has had, it has again.
func (n *Node) StartContainerd() {
	n.t.Helper()
	n.stopContainerd = n.Run("containerd", "--config=/mnt/containerd.toml")
	n.Poll(n.t, 30*time.Second, func() error { return n.ctr("version") })
}

// StopContainerd ends containerd. The containers go on without it.
func (n *Node) StopContainerd() { n.stopContainerd(syscall.SIGTERM) }

// Import takes an image archive into containerd, for pods.
func (n *Node) Import(archive string) {
	n.t.Helper()
	n.images = append(n.images, archive)
	n.load(archive)
}

func (n *Node) load(archive string) {
	n.t.Helper()
	if err := n.ctr("--namespace=k8s.io", "images", "import", archive); err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) ctr(args ...string) error {
	ctr := exec.Command(filepath.Join(n.bin, "ctr"), append([]string{"--address=" + containerdSocket}, args...)...)
	out, err := ctr.CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %q: %w: %s", args, err, out)
	}
	return nil
}

func (n *Node) write(path, content string) {
	n.t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

//go:build node

package node

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// builtEnv hands the folder with what was built outside down to the node.
const builtEnv = "BRAID_NODE_BUILT"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if Inside() {
		return Main(m)
	}
	built, err := os.MkdirTemp("", "braid-node-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(built)
	build := exec.Command("go", "build", "-o", built+"/", "../../cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	os.Setenv(builtEnv, built)
	return Main(m)
}

// TestNode is the life of a node. Its parts build on those before.
func TestNode(t *testing.T) {
	n := Start(t)
	n.WaitNodeReady(t, 30*time.Second, false)
	n.Kubectl(t, "", "apply", "-f", "../../deploy/crd.yaml", "-f", "../../deploy/rbac.yaml")
	n.Kubectl(t, "", "wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io")
	for _, p := range []string{"braid", "braidd"} {
		if out, err := exec.Command("cp", os.Getenv(builtEnv)+"/"+p, BinDir).CombinedOutput(); err != nil {
			t.Fatal(string(out))
		}
	}
	_ = os.Symlink("braid", BinDir+"/loopback")
	kc := n.Kubeconfig("kube-system", "braid", n.URL)
	n.write(ConfDir+"/00-braid.conflist", fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "braid", "kubeconfig": %q,
	  "logFile": "/mnt/braid.log", "logLevel": "debug",
	  "delegates": [{"cniVersion": "1.0.0", "name": "cluster", "type": "bridge", "bridge": "cluster0", "isDefaultGateway": true, "ipMasq": true,
	    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}]}]}`, kc))
	n.WaitNodeReady(t, 30*time.Second, true)
	t.Run("pods", func(t *testing.T) { testPods(t, n) })
	t.Run("delete", func(t *testing.T) { testDelete(t, n) })
	t.Run("storm", func(t *testing.T) { testStorm(t, n) })
	t.Run("reboot", func(t *testing.T) { testReboot(t, n) })
	t.Run("away", func(t *testing.T) { testAPIServerAway(t, n) })
}

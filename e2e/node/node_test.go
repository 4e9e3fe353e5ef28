//go:build node

package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/braid-cni/braid/internal/refplugins"
)

// built is where the images are, built outside the node.
const built = "../../bin/node"

// nextImage is what an upgrade is to; the manifests name that of the version dev.
const nextImage = "braid-cni.io/braid:next"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if Inside() {
		return Main(m)
	}
	if _, err := refplugins.Build(); err != nil { // their modules are downloaded, to which the node has no way
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, version := range []string{"dev", "next"} {
		build := exec.Command("../../hack/image", version, "bin/node/"+version+".tar")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "hack/image: %v\n%s", err, out)
			return 1
		}
	}
	return Main(m)
}

func (n *Node) importBraid(version string) {
	n.t.Helper()
	n.Import(filepath.Join(built, version+".tar"))
}

// TestNode is the life of a node. Its parts build on those before.
func TestNode(t *testing.T) {
	n := Start(t)
	n.WaitNodeReady(t, 30*time.Second, false)
	n.Apply(t, tenant)
	n.LAN.Address(t, "lan0", "192.0.2.1/24", "2001:db8::1/64", "198.51.100.1/24")
	for _, part := range []struct {
		name string
		test func(*testing.T, *Node)
	}{
		{"install", testInstall},
		{"pods", testPods},
		{"delete", testDelete},
		{"storm", testStorm},
		{"upgrade", testUpgrade},
		{"reboot", testReboot},
		{"no API server", testAPIServerAway},
		{"sweep", testSweep},
		{"uninstall", testUninstall},
		{"primary", testPrimary},
	} {
		passed := t.Run(part.name, func(t *testing.T) { part.test(t, n) })
		if part.name == "install" && !passed {
			return
		}
	}
}

//go:build node

package node

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// leased is a pod that has an address from a DHCP server outside the node.
const leased = `
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: { name: leased, namespace: blue }
spec:
  config: |
    {"cniVersion": "1.0.0", "type": "macvlan", "master": "` + NIC + `", "ipam": {"type": "dhcp"}}
---
apiVersion: v1
kind: Pod
metadata:
  name: leased
  namespace: blue
  annotations: { k8s.v1.cni.cncf.io/networks: leased }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: sleeper, image: ` + Toolbox + ` }]
`

// serveDHCP starts a server in the LAN. What it returns tells the leases that it has given and not got back.
func (n *Node) serveDHCP(t *testing.T) (leases func() string) {
	t.Helper()
	n.LAN.Address(t, "lan0", "203.0.113.1/24")
	file := filepath.Join(t.TempDir(), "leases")
	server := exec.Command("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=lan0", "--bind-interfaces",
		"--dhcp-range=203.0.113.100,203.0.113.199,2m", "--dhcp-leasefile="+file, "--user=root", "--no-ping")
	n.LAN.Do(t, func() {
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() {
		_ = server.Process.Signal(unix.SIGTERM)
		_ = server.Wait() // its status is that of a program that was told to end
	})
	return func() string {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
}

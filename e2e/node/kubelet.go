package node

import (
	"fmt"
	"os"
	"syscall"
)

func (n *Node) configureKubelet() {
	n.t.Helper()
	cert, key := n.Serving(Name, IP)
	n.write("/mnt/kubelet.yaml", fmt.Sprintf(`
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: %s
containerRuntimeEndpoint: unix://%s
staticPodPath: %s
tlsCertFile: %s
tlsPrivateKeyFile: %s
authentication: { anonymous: { enabled: false }, webhook: { enabled: false }, x509: { clientCAFile: %s } }
authorization: { mode: AlwaysAllow }
resolvConf: ""
clusterDNS: [10.96.0.10] # which nobody has
maxPods: 250
# A machine with cgroup v1 is what the tests have, and 1.35 has begun to refuse it.
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /%s
failSwapOn: false
# What a root without CAP_SYS_RESOURCE cannot have more of.
maxOpenFiles: 20000
oomScoreAdj: 0
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
# A test waits for nothing that is only slow.
syncFrequency: 5s
fileCheckFrequency: 1s
nodeStatusUpdateFrequency: 2s
# The disk of the machine is none of the test's business.
imageGCHighThresholdPercent: 100
evictionHard:
  { memory.available: 1Mi, nodefs.available: 0%%, imagefs.available: 0%%, nodefs.inodesFree: 0%%, imagefs.inodesFree: 0%% }
`, IP, containerdSocket, StaticPods, cert, key, n.CA(), os.Getenv(insideEnv)))
}

// StartKubelet starts the kubelet. It registers the node, if it is not.
func (n *Node) StartKubelet() {
	n.t.Helper()
	kubeconfig, _ := n.ClientKubeconfig("system:node:"+Name, "system:nodes", n.URL)
	n.stopKubelet = n.Run("kubelet", "--config=/mnt/kubelet.yaml", "--kubeconfig="+kubeconfig,
		"--hostname-override="+Name, "--node-ip="+IP, "--root-dir=/var/lib/kubelet", "--v=2")
}

// StopKubelet ends the kubelet. The pods go on without it.
func (n *Node) StopKubelet() { n.stopKubelet(syscall.SIGTERM) }

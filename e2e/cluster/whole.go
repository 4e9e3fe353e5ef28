package cluster

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// anybody is a group that every user is in.
const anybody = "system:authenticated"

// StartWhole starts etcd, the API server, the controllers and the scheduler: all of a cluster but its nodes. The API server
// is at address, "IP:port" of an interface of this network namespace. Pods have service accounts, and nodes ranges of podCIDR.
func StartWhole(t testing.TB, bin, address, podCIDR string) *Cluster {
	t.Helper()
	c := start(t, bin, address,
		// A kubelet may see and change what is of its own node.
		"--authorization-mode=Node", "--enable-admission-plugins=NodeRestriction",
		// The API server calls the kubelet for exec and logs. By name, it would look that up.
		"--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true")
	controllers, _ := c.ClientKubeconfig("system:kube-controller-manager", anybody, c.URL)
	c.start("kube-controller-manager", "--kubeconfig="+controllers, "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file="+c.pki.path("sa.key"),
		"--root-ca-file="+c.CA(), "--allocate-node-cidrs=true", "--cluster-cidr="+podCIDR, "--node-monitor-period=1s",
		"--authentication-kubeconfig="+controllers, "--authorization-kubeconfig="+controllers)
	scheduler, _ := c.ClientKubeconfig("system:kube-scheduler", anybody, c.URL)
	c.start("kube-scheduler", "--kubeconfig="+scheduler, "--bind-address=127.0.0.1", "--leader-elect=false",
		"--authentication-kubeconfig="+scheduler, "--authorization-kubeconfig="+scheduler)
	return c
}

// CA returns the path of the certificate that all others are signed by.
func (c *Cluster) CA() string { return c.pki.path("ca.crt") }

// Serving makes a certificate for a server at an address, and returns the paths of it and of its key.
func (c *Cluster) Serving(name, address string) (cert, key string) {
	c.t.Helper()
	c.pki.serving(c.t, name, address)
	return c.pki.path(name + ".crt"), c.pki.path(name + ".key")
}

// Run starts another program of the cluster's folder of programs. What it returns ends it and waits for its end; the end of
// the test does too.
func (c *Cluster) Run(program string, args ...string) (stop func(syscall.Signal)) {
	c.t.Helper()
	return c.start(program, args...).stop
}

// Log returns what a program has written.
func (c *Cluster) Log(program string) string {
	b, err := os.ReadFile(filepath.Join(c.dir, program+".log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Try is Do, but returns the error, with the status of the answer if there was one.
func (c *Cluster) Try(method, path string, body, out any) (status int, err error) {
	return c.try(method, path, body, out)
}

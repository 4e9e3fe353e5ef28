package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// StartWhole starts etcd, the API server, the controllers and the scheduler: all of a cluster but its nodes. The API server
// is at address, "IP:port" of an interface of this network namespace. Pods have service accounts, and nodes ranges of podCIDR.
func StartWhole(t testing.TB, bin, address, podCIDR string) *Cluster {
	t.Helper()
	c := start(t, bin, address,
		// A kubelet may see and change what is of its own node.
		"--authorization-mode=Node", "--enable-admission-plugins=NodeRestriction",
		// The API server calls the kubelet for exec and logs. By name, it would look that up.
		"--kubelet-preferred-address-types=InternalIP", "--allow-privileged=true")
	controllers := c.ClientKubeconfig("controllers", "system:kube-controller-manager")
	c.start("kube-controller-manager", "--kubeconfig="+controllers, "--bind-address=127.0.0.1", "--leader-elect=false",
		"--use-service-account-credentials=true", "--service-account-private-key-file="+c.pki.path("sa.key"),
		"--root-ca-file="+c.CA(), "--allocate-node-cidrs=true", "--cluster-cidr="+podCIDR, "--node-monitor-period=1s",
		"--authentication-kubeconfig="+controllers, "--authorization-kubeconfig="+controllers)
	scheduler := c.ClientKubeconfig("scheduler", "system:kube-scheduler")
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

// ClientKubeconfig writes a kubeconfig with a client certificate of the user, who is in the groups.
func (c *Cluster) ClientKubeconfig(name, user string, groups ...string) (path string) {
	c.t.Helper()
	c.pki.client(c.t, name, user, groups...)
	path = c.pki.path(name + ".kubeconfig")
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: test, user: {client-certificate: %q, client-key: %q}}]
`, c.URL, c.CA(), c.pki.path(name+".crt"), c.pki.path(name+".key"))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
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

// FreezeAPIServer keeps the API server from doing anything: connections stay, and nothing comes. It goes on when the
// function is called that is returned.
func (c *Cluster) FreezeAPIServer() (thaw func()) {
	c.t.Helper()
	server := c.apiServer.cmd.Process
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	return func() { _ = server.Signal(syscall.SIGCONT) } // fails if it has ended
}

// KillAPIServer ends the API server at once, its connections with it.
func (c *Cluster) KillAPIServer() { c.apiServer.stop(syscall.SIGKILL) }

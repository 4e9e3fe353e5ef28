// Package cluster gives tests a real API server: etcd and kube-apiserver, started on loopback and ended with the test.
package cluster

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// A Cluster is an API server that accepts everything that the cluster's own kubelets and controllers would do, without
// any of those.
type Cluster struct {
	t         testing.TB
	bin       string // with etcd and kube-apiserver
	dir       string
	pki       *pki
	URL       string
	admin     *http.Client
	anonymous *http.Client // without a certificate
	apiServer *process
	etcdURL   string
	flags     []string // of the API server, besides those that every cluster has
}

// Start starts etcd and the API server, with the binaries of bin.
func Start(t testing.TB, bin string) *Cluster {
	t.Helper()
	// No controller makes the service account that each pod would have to have.
	return start(t, bin, net.JoinHostPort("127.0.0.1", port(t)), "--disable-admission-plugins=ServiceAccount")
}

func start(t testing.TB, bin, address string, flags ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, bin: bin, dir: t.TempDir(), URL: "https://" + address, flags: flags}
	host, _, _ := net.SplitHostPort(address)
	c.pki = newPKI(t, c.dir)
	c.pki.serving(t, "apiserver", host)
	c.pki.client(t, "kube-apiserver", "to-kubelets")
	c.pki.client(t, "admin", "system:masters")
	c.pki.issue(t, "sa", &x509.Certificate{})
	pair, err := tls.LoadX509KeyPair(c.pki.path("admin.crt"), c.pki.path("admin.key"))
	if err != nil {
		t.Fatal(err)
	}
	c.admin = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pki.pool(), Certificates: []tls.Certificate{pair}}},
		Timeout:   30 * time.Second,
	}
	c.anonymous = &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pki.pool()}},
		Timeout:   30 * time.Second,
	}
	t.Cleanup(c.admin.CloseIdleConnections)
	t.Cleanup(c.anonymous.CloseIdleConnections)

	c.etcdURL = "http://127.0.0.1:" + port(t)
	peer := "http://127.0.0.1:" + port(t)
	c.start("etcd", "--name=test", "--data-dir="+filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls="+c.etcdURL, "--advertise-client-urls="+c.etcdURL,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=test="+peer)
	c.StartAPIServer()
	return c
}

// StartAPIServer starts the API server again after StopAPIServer, at the same address.
func (c *Cluster) StartAPIServer() {
	c.t.Helper()
	host, securePort, _ := net.SplitHostPort(strings.TrimPrefix(c.URL, "https://"))
	flags := append([]string{"--etcd-servers=" + c.etcdURL, "--bind-address=" + host, "--secure-port=" + securePort,
		"--advertise-address=" + host, "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + c.pki.path("apiserver.crt"), "--tls-private-key-file=" + c.pki.path("apiserver.key"),
		"--client-ca-file=" + c.pki.path("ca.crt"), "--authorization-mode=RBAC",
		"--kubelet-client-certificate=" + c.pki.path("kube-apiserver.crt"), "--kubelet-client-key=" + c.pki.path("kube-apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/24",
		"--service-account-key-file=" + c.pki.path("sa.key"), "--service-account-signing-key-file=" + c.pki.path("sa.key")}, c.flags...)
	c.apiServer = c.start("kube-apiserver", flags...)
	deadline := time.Now().Add(2 * time.Minute)
	for {
		resp, err := c.admin.Get(c.URL + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(resp.Status)
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the API server is not ready: %v\n%s", err, c.log("kube-apiserver"))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// StopAPIServer ends the API server. Connections to it are refused until it is started again.
func (c *Cluster) StopAPIServer() { c.apiServer.stop(syscall.SIGTERM) }

// PauseAPIServer has the API server answer nothing, as if the network were cut, until it is called with false.
func (c *Cluster) PauseAPIServer(paused bool) {
	signal := syscall.SIGCONT
	if paused {
		signal = syscall.SIGSTOP
	}
	_ = c.apiServer.cmd.Process.Signal(signal) // fails if it has ended
}

// KillAPIServer ends it without giving it time for anything.
func (c *Cluster) KillAPIServer() { c.apiServer.stop(syscall.SIGKILL) }

// RotateServingCertificate gives the API server, and proxies, another certificate of the same authority. It returns when
// the API server shows it to new connections.
func (c *Cluster) RotateServingCertificate() {
	c.t.Helper()
	host, _, _ := net.SplitHostPort(strings.TrimPrefix(c.URL, "https://"))
	c.pki.serving(c.t, "apiserver", host)
	want, err := tls.LoadX509KeyPair(c.pki.path("apiserver.crt"), c.pki.path("apiserver.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	address := strings.TrimPrefix(c.URL, "https://")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: c.pki.pool()})
		if err == nil {
			shown := conn.ConnectionState().PeerCertificates[0].Raw
			conn.Close()
			if bytes.Equal(shown, want.Certificate[0]) {
				return
			}
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the API server does not take up its new certificate: %v\n%s", err, c.log("kube-apiserver"))
		}
	}
}

// A process runs until it is stopped, the test ends, or the test is killed.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (c *Cluster) start(name string, args ...string) *process {
	c.t.Helper()
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	p := &process{cmd: exec.Command(filepath.Join(c.bin, name), args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(p.done)
		runtime.LockOSThread() // the kernel takes the death of this thread for that of the test
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // its status is that of a program that was told to end
		}
	}()
	if err := <-started; err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { p.stop(syscall.SIGKILL) }) // what it has written goes with it
	return p
}

// stop ends a process and waits for its end.
func (p *process) stop(signal syscall.Signal) {
	_ = p.cmd.Process.Signal(signal) // fails if it has ended
	kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.done
}

func (c *Cluster) log(name string) string {
	b, err := os.ReadFile(filepath.Join(c.dir, name+".log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

// port returns a port of loopback that is free.
func port(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// Do sends a request as the cluster's administrator, and decodes the answer into out unless that is nil.
func (c *Cluster) Do(method, path string, body, out any) {
	c.t.Helper()
	if status, err := c.try(method, path, body, out); err != nil {
		c.t.Fatalf("%s %s: %d %v", method, path, status, err)
	}
}

// Get returns what is at a path, as the cluster's administrator sees it.
func (c *Cluster) Get(path string) string {
	c.t.Helper()
	resp, err := c.admin.Get(c.URL + path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		c.t.Fatalf("GET %s: %s %v", path, resp.Status, err)
	}
	return string(b)
}

func (c *Cluster) try(method, path string, body, out any) (status int, err error) {
	var content []byte
	if body != nil {
		if content, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	req, err := http.NewRequest(method, c.URL+path, bytes.NewReader(content))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.admin.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, err
	}
	if resp.StatusCode >= 300 {
		return resp.StatusCode, errors.New(string(answer))
	}
	if out == nil {
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(answer, out)
}

// collections are where objects are created, by kind. NAMESPACE is replaced.
var collections = map[string]string{
	"Namespace":                   "/api/v1/namespaces",
	"Secret":                      "/api/v1/namespaces/NAMESPACE/secrets",
	"ServiceAccount":              "/api/v1/namespaces/NAMESPACE/serviceaccounts",
	"Pod":                         "/api/v1/namespaces/NAMESPACE/pods",
	"ClusterRole":                 "/apis/rbac.authorization.k8s.io/v1/clusterroles",
	"ClusterRoleBinding":          "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
	"CustomResourceDefinition":    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
	"NetworkAttachmentDefinition": "/apis/k8s.cni.cncf.io/v1/namespaces/NAMESPACE/network-attachment-definitions",
}

// Apply creates the objects of a YAML file.
func (c *Cluster) Apply(file string) {
	c.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, doc := range strings.Split(string(b), "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			c.t.Fatalf("%s: %v", file, err)
		}
		c.Create(object)
	}
}

// Create creates an object. The API server may be still about to learn of a resource that was defined a moment ago.
func (c *Cluster) Create(object map[string]any) {
	c.t.Helper()
	kind, _ := object["kind"].(string)
	path, ok := collections[kind]
	if !ok {
		c.t.Fatalf("unknown kind %q", kind)
	}
	metadata, _ := object["metadata"].(map[string]any)
	namespace, _ := metadata["namespace"].(string)
	path = strings.Replace(path, "NAMESPACE", namespace, 1)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		status, err := c.try(http.MethodPost, path, object, nil)
		if err == nil {
			return
		}
		if status != http.StatusNotFound || time.Now().After(deadline) {
			c.t.Fatalf("create %s %v: %d %v", kind, metadata["name"], status, err)
		}
	}
}

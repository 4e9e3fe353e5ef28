package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/kube"
)

// TestMain lets the test binary be what is installed (it sleeps), and an install or an uninstall that is killed.
func TestMain(m *testing.M) {
	switch {
	case filepath.Base(os.Args[0]) == "braid":
		fmt.Println("running")
		time.Sleep(time.Minute)
	case os.Getenv("BRAID_TEST_INSTALL") != "":
		installAgainAndAgain(os.Getenv("BRAID_TEST_INSTALL"))
	case os.Getenv("BRAID_TEST_UNINSTALL") != "":
		if err := Uninstall(context.Background(), os.Getenv("BRAID_TEST_UNINSTALL"), false, discard); err != nil {
			panic(err)
		}
	default:
		os.Exit(m.Run())
	}
}

// A testNode is a node's folders.
type testNode struct {
	*testing.T
	root string
	Options
}

func newNode(t *testing.T) *testNode {
	t.Helper()
	n := nodeAt(t, t.TempDir())
	n.write("image/braid", "first braid", 0o755)
	n.write("image/braidd", "first braidd", 0o755)
	n.write("image/braid-shim", "first braid-shim", 0o755)
	n.write("serviceaccount/token", "first", 0o600)
	n.write("serviceaccount/ca.crt", "authority", 0o600)
	return n
}

func nodeAt(t *testing.T, root string) *testNode {
	t.Helper()
	return &testNode{t, root, Options{
		Source:         filepath.Join(root, "image"),
		BinDir:         filepath.Join(root, "opt/cni/bin"),
		ConfDir:        filepath.Join(root, "etc/cni/net.d"),
		NetworksDir:    filepath.Join(root, "etc/cni/braid/net.d"),
		CNIDir:         filepath.Join(root, "var/lib/cni/braid"),
		Plugins:        []string{"loopback"},
		Worker:         true,
		ClusterNetwork: Auto,
		APIServer:      "https://10.96.0.1:443",
		Credentials:    filepath.Join(root, "serviceaccount"),
		PodCIDRs:       []string{"10.244.1.0/24", "fd00:244::/64"},
	}}
}

func (n *testNode) path(name string) string { return filepath.Join(n.root, name) }

// write makes a file in the ordinary way, as others do.
func (n *testNode) write(name, content string, mode os.FileMode) {
	n.Helper()
	path := n.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		n.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		n.Fatal(err)
	}
}

func (n *testNode) conf(name, content string) {
	n.Helper()
	n.write("etc/cni/net.d/"+name, content, 0o644)
}

func (n *testNode) read(name string) string {
	n.Helper()
	b, err := os.ReadFile(n.path(name))
	if err != nil {
		n.Fatal(err)
	}
	return string(b)
}

func (n *testNode) rename(from, to string) {
	n.Helper()
	if err := os.Rename(n.path(from), n.path(to)); err != nil {
		n.Fatal(err)
	}
}

func (n *testNode) remove(name string) {
	n.Helper()
	if err := os.RemoveAll(n.path(name)); err != nil {
		n.Fatal(err)
	}
}

func (n *testNode) install() { n.Helper(); must(n.T, n.try()) }

func (n *testNode) try() error {
	return Install(n.Context(), n.Options, noCluster{}, testLog(n.T))
}

func (n *testNode) uninstall(force bool) error {
	return Uninstall(n.Context(), n.CNIDir, force, testLog(n.T))
}

func (n *testNode) state() *state {
	n.Helper()
	s, err := load(n.CNIDir)
	must(n.T, err)
	return s
}

// noCluster is an API server that does not answer.
type noCluster struct{}

func (noCluster) PodCIDRs(context.Context, string, string) ([]string, error) {
	return nil, errors.New("the test has no API server")
}

func (noCluster) Runtime(context.Context, string, string) (string, error) {
	return "", errors.New("the test has no API server")
}

// apiServer is one that does.
type apiServer struct{ t *testing.T }

func (a apiServer) PodCIDRs(ctx context.Context, kubeconfig, node string) ([]string, error) {
	r, err := kube.Open(kubeconfig, testLog(a.t))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return r.PodCIDRs(ctx, node)
}

func (a apiServer) Runtime(ctx context.Context, kubeconfig, node string) (string, error) {
	r, err := kube.Open(kubeconfig, testLog(a.t))
	if err != nil {
		return "", err
	}
	return r.ContainerRuntime(ctx, node)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testLog(t testing.TB) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// tree is what is below the node's root: names, modes, times, links and contents.
func (n *testNode) tree() map[string]string {
	n.Helper()
	tree := map[string]string{}
	err := fs.WalkDir(os.DirFS(n.root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "var" { // the installer leaves its lock behind
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		path := n.path(name)
		switch {
		case d.IsDir():
			tree[name] = info.Mode().String()
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			tree[name] = "-> " + target
			return err
		default:
			b, err := os.ReadFile(path)
			tree[name] = fmt.Sprintf("%s %s %q", info.Mode(), info.ModTime(), b)
			return err
		}
		return nil
	})
	must(n.T, err)
	return tree
}

// config returns the plugin's configuration as a runtime hands it over.
func (n *testNode) config() (*libcni.NetworkConfigList, *conf.Config) {
	n.Helper()
	list, err := libcni.NetworkConfFromFile(n.path(ours))
	must(n.T, err)
	injected, err := conf.With(list.Plugins[0].Bytes, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
	must(n.T, err)
	c, err := conf.Parse(injected)
	must(n.T, err)
	return list, c
}

const (
	calico = `{"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}, {"type": "portmap", "capabilities": {"portMappings": true}}]}`
	cilium = `{"cniVersion": "1.0.0", "name": "cilium", "plugins": [{"type": "cilium-cni"}]}`
	multus = `{"cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-calico.conflist"}`
	lo     = `{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}`
)

const ours = "etc/cni/net.d/" + confName

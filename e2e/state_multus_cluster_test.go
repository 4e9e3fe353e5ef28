//go:build cluster

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/kube/kubetest"
)

// TestClusterAfterMultus is TestAfterMultus with pods that Multus itself has made.
func TestClusterAfterMultus(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", bin+"/", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/multus")
	build.Dir = "../bench/multus"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build multus: %v\n%s", err, out)
	}
	n := newNodeBeforeBraid(t)
	server := kubetest.New(t)
	list, err := libcni.NetworkConfFromBytes([]byte(n.expand(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "multus",
		"kubeconfig": %q, "cniDir": %q, "binDir": %q, "delegates": [%s]}]}`,
		server.Kubeconfig(), filepath.Join(n.dir, "braid"), refplugins.Dir(t), beforeBraid[0].config))))
	if err != nil {
		t.Fatal(err)
	}
	afterMultus(t, n, func(p *pod) *types100.Result {
		server.AddManifests(filepath.Join(n.dir, "manifests"))
		res, err := libcni.NewCNIConfigWithCacheDir([]string{bin, refplugins.Dir(t)}, t.TempDir(), nil).AddNetworkList(t.Context(), list, p.runtimeConf())
		if err != nil {
			t.Fatalf("ADD by Multus: %v", err)
		}
		first, err := types100.NewResultFromResult(res)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(n.dir, "braid", "c-"+p.name))
		if err != nil || !strings.HasPrefix(string(b), "[") || !json.Valid(b) {
			t.Errorf("Multus has not kept what was expected: %v %s", err, b)
		}
		return first
	})
}

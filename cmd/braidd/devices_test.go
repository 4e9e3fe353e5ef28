package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/kube/devices/devicestest"
	"github.com/braid-cni/braid/resolve"
)

const (
	deviceManifests = `
apiVersion: v1
kind: Pod
metadata: {name: fast, annotations: {k8s.v1.cni.cncf.io/networks: "vf, vf"}}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: vf, annotations: {k8s.v1.cni.cncf.io/resourceName: vendor.com/vf}}
spec: {config: '{"cniVersion": "1.0.0", "type": "sriov"}'}
`
	devicePods = `{"podResources": [{"name": "fast", "namespace": "default", "containers": [{"name": "a", "devices": [
		{"resourceName": "vendor.com/vf", "deviceIds": ["0000:65:00.2", "0000:65:00.1"]}]}]}]}`
)

var fastDevices = map[string][]string{"vendor.com/vf": {"0000:65:00.1", "0000:65:00.2"}}

func deviceFolder(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(deviceManifests), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantDevices(t *testing.T, r resolve.Resolver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := r.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "fast"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fastDevices, a.Devices); diff != "" || a.DevicesError != nil {
		t.Errorf("devices (-want +got):\n%s%v", diff, a.DevicesError)
	}
}

func TestDevicesFromChild(t *testing.T) {
	braidd, err := exec.LookPath("braidd")
	if err != nil {
		t.Fatal(err)
	}
	socket := devicestest.Kubelet(t, devicePods)
	child := &resolve.Child{Path: braidd, Args: []string{"resolve", "--manifests", deviceFolder(t), "--pod-resources", socket}, Stderr: t.Output()}
	defer child.Close()
	wantDevices(t, child)
}

func TestDevicesFromDaemon(t *testing.T) {
	w := newDaemonWorld(t)
	w.api.AddManifests(deviceFolder(t))
	w.daemon("--pod-resources", devicestest.Kubelet(t, devicePods))
	var client *resolve.Client
	w.eventually("the daemon listens", func() bool {
		var err error
		client, err = resolve.Dial(t.Context(), w.socket)
		return err == nil
	})
	defer client.Close()
	wantDevices(t, client)
}

func TestPlanWithDevices(t *testing.T) {
	dir := deviceFolder(t)
	config := `{"cniVersion": "1.1.0", "name": "pods", "type": "braid", "manifests": "` + dir + `", "podResources": "SOCKET",
		"delegates": [{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge"}]}`
	plan := func(socket string) string {
		file := filepath.Join(t.TempDir(), "braid.conf")
		if err := os.WriteFile(file, []byte(strings.Replace(config, "SOCKET", socket, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, _ := exec.Command("braidd", "plan", "--config", file, "default/fast").CombinedOutput()
		return string(out)
	}
	if out := plan(devicestest.Kubelet(t, devicePods)); !strings.Contains(out, `deviceID="0000:65:00.1"`) || !strings.Contains(out, `deviceID="0000:65:00.2"`) {
		t.Errorf("plan:\n%s", out)
	}
	none := filepath.Join(dir, "none.sock")
	if out := plan(none); !strings.Contains(out, "ask the kubelet for the devices of pod default/fast, on socket "+none) {
		t.Errorf("plan without a kubelet:\n%s", out)
	}
}

package manifests_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/kube/manifests"
	"github.com/braid-cni/braid/resolve"
)

const example = `
-- pods.yaml --
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    k8s.v1.cni.cncf.io/networks: blue, net/red@uplink, absent, blue
    v1.multus-cni.io/default-network: plain
---
apiVersion: v1
kind: Pod
metadata: {name: known, uid: u-1, annotations: {k8s.v1.cni.cncf.io/networks: 'NOT/VALID/AT ALL'}}
---
apiVersion: v1
kind: Pod
metadata: {name: static, uid: u-2, annotations: {kubernetes.io/config.mirror: hash}}
-- networks.yaml --
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: blue, annotations: {k8s.v1.cni.cncf.io/resourceName: vf}}
spec: {config: '{"type": "bridge"}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: red, namespace: net}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: plain, namespace: kube-system}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: unused}
`

func TestResolve(t *testing.T) {
	r := &manifests.Resolver{Dir: folder(t, example)}
	for _, tt := range []struct {
		pod      resolve.Pod
		uid      string   // in the answer
		networks []string // in the answer
		reason   string   // of the error
	}{
		{pod: resolve.Pod{Namespace: "default", Name: "web"}, networks: []string{"default/blue", "kube-system/plain", "net/red"}},
		{pod: resolve.Pod{Namespace: "default", Name: "web", UID: "any"}, uid: "any", networks: []string{"default/blue", "kube-system/plain", "net/red"}},
		{pod: resolve.Pod{Namespace: "default", Name: "known"}, uid: "u-1"},
		{pod: resolve.Pod{Namespace: "default", Name: "known", UID: "u-1"}, uid: "u-1"},
		{pod: resolve.Pod{Namespace: "default", Name: "known", UID: "u-9"}, reason: resolve.NotFound},
		{pod: resolve.Pod{Namespace: "default", Name: "static", UID: "hash"}, uid: "hash"},
		{pod: resolve.Pod{Namespace: "default", Name: "static"}, uid: "hash"},
		{pod: resolve.Pod{Namespace: "other", Name: "web"}, reason: resolve.NotFound},
		{},
	} {
		q := &resolve.Query{Pod: tt.pod, DefaultNamespace: "kube-system", Networks: []resolve.NetworkName{{Namespace: "default", Name: "blue"}, {Namespace: "default", Name: "none"}}}
		a, err := r.Resolve(t.Context(), q)
		if e := (*resolve.Error)(nil); tt.reason != "" {
			if !errors.As(err, &e) || e.Reason != tt.reason {
				t.Errorf("pod %v: found error %v, want reason %s", tt.pod, err, tt.reason)
			}
			continue
		}
		if err != nil {
			t.Errorf("pod %v: %v", tt.pod, err)
			continue
		}
		if a.Pod.UID != tt.uid || a.Pod.Name != tt.pod.Name {
			t.Errorf("found pod %v, want %v with UID %q", a.Pod, tt.pod, tt.uid)
		}
		if tt.networks == nil {
			tt.networks = []string{"default/blue"}
		}
		want := make(map[string]resolve.Network)
		for _, name := range tt.networks {
			want[name] = resolve.Network{}
		}
		want["default/blue"] = resolve.Network{Config: `{"type": "bridge"}`, Annotations: map[string]string{"k8s.v1.cni.cncf.io/resourceName": "vf"}}
		if diff := cmp.Diff(want, a.Networks); diff != "" {
			t.Errorf("pod %v: networks (-want +got):\n%s", tt.pod, diff)
		}
	}
}

func TestResolveBrokenFolder(t *testing.T) {
	for _, dir := range []string{folder(t, "-- f.yaml --\n{\n"), filepath.Join(t.TempDir(), "none")} {
		r := &manifests.Resolver{Dir: dir}
		_, err := r.Resolve(t.Context(), &resolve.Query{})
		if e := (*resolve.Error)(nil); !errors.As(err, &e) || e.Reason != resolve.Invalid || !strings.Contains(e.Message, dir) {
			t.Errorf("found %v, want an error about %s", err, dir)
		}
	}
}

func TestReport(t *testing.T) {
	r := &manifests.Resolver{StatusDir: filepath.Join(t.TempDir(), "a", "status")}
	pod := resolve.Pod{Namespace: "default", Name: "web"}
	path := filepath.Join(r.StatusDir, "default_web.json")

	want := resolve.Report{Pod: pod, Status: json.RawMessage(`[{"name":"blue"}]`), Events: []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add net1"}}}
	if err := r.Report(t.Context(), &want); err != nil {
		t.Fatal(err)
	}
	compareFile(t, path, want)

	// Without a status the old one stays.
	want.Events[0].Message = "again"
	if err := r.Report(t.Context(), &resolve.Report{Pod: pod, Events: want.Events}); err != nil {
		t.Fatal(err)
	}
	compareFile(t, path, want)

	err := r.Report(t.Context(), &resolve.Report{Pod: resolve.Pod{Namespace: "..", Name: "../../etc"}})
	if e := (*resolve.Error)(nil); !errors.As(err, &e) || e.Reason != resolve.Invalid {
		t.Errorf("found %v, want an error about the name", err)
	}
}

// TestReportAfterKill: what a killed process has left goes with the next report, of any pod.
func TestReportAfterKill(t *testing.T) {
	r := &manifests.Resolver{StatusDir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for life := time.Millisecond; life < 60*time.Millisecond; life += 2 * time.Millisecond {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), reportEnv+"="+r.StatusDir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(life)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	if err := r.Report(t.Context(), &resolve.Report{Pod: resolve.Pod{Namespace: "default", Name: "web"}}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(r.StatusDir, "*")) // hidden ones too
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if !strings.HasSuffix(path, ".json") {
			t.Errorf("left: %s", path)
		}
	}
}

// reportEnv makes the test binary one that reports to a folder until it is killed.
const reportEnv = "BRAID_TEST_REPORT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(reportEnv); dir != "" {
		r := &manifests.Resolver{StatusDir: dir}
		for i := 0; ; i++ {
			_ = r.Report(context.Background(), &resolve.Report{Pod: resolve.Pod{Namespace: "default", Name: fmt.Sprint("p", i%5)}})
		}
	}
	os.Exit(m.Run())
}

func compareFile(t *testing.T, path string, want resolve.Report) {
	t.Helper()
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found, compact bytes.Buffer
	if err := json.Compact(&found, doc); err != nil {
		t.Fatal(err)
	}
	if err := json.NewEncoder(&compact).Encode(want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(compact.String()), found.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestReportWithoutStatusDir(t *testing.T) {
	var log bytes.Buffer
	r := &manifests.Resolver{Log: slog.New(slog.NewTextHandler(&log, nil))}
	err := r.Report(t.Context(), &resolve.Report{
		Pod:    resolve.Pod{Namespace: "default", Name: "web"},
		Status: json.RawMessage(`[]`),
		Events: []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add net1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pod=default/web status=[]", `msg="Add net1" pod=default/web type=Normal reason=AddedInterface`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("found log %q, want %s in it", &log, want)
		}
	}
}

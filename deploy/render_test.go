//go:build deploy

package deploy

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// run runs a program and returns what it prints.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v", filepath.Base(name), strings.Join(args, " "), err)
	}
	return out
}

func try(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, &failed{err, stderr.String()}
	}
	return out, nil
}

type failed struct {
	error
	stderr string
}

func (f *failed) Error() string { return f.error.Error() + ": " + f.stderr }

// tool returns the path of a program of hack/tools.
func tool(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(string(run(t, "../hack/tool", name)))
}

func template(t *testing.T, set ...string) []byte {
	t.Helper()
	return run(t, tool(t, "helm"), templateArgs(set)...)
}

func templateArgs(set []string) []string {
	args := []string{"template", "braid", "chart", "--namespace", "kube-system", "--include-crds"}
	for _, s := range set {
		flag := "--set"
		if strings.Contains(s, `={"`) {
			flag = "--set-json"
		}
		args = append(args, flag, s)
	}
	return args
}

func TestManifestsAreThoseOfTheChart(t *testing.T) {
	dir := t.TempDir()
	run(t, "../hack/manifests", dir)
	for _, name := range []string{"crd.yaml", "rbac.yaml", "daemonset.yaml", "uninstall/daemonset.yaml"} {
		if diff := cmp.Diff(string(read(t, name)), string(read(t, filepath.Join(dir, name)))); diff != "" {
			t.Errorf("%s is not what the chart says: run make manifests (-committed +chart):\n%s", name, diff)
		}
	}
}

func TestKustomizeIsHelm(t *testing.T) {
	byName := func(text []byte) map[string]any {
		objects := map[string]any{}
		for _, object := range documents(t, text) {
			metadata, _ := object["metadata"].(map[string]any)
			name, _ := metadata["name"].(string)
			kind, _ := object["kind"].(string)
			objects[kind+" "+name] = object
		}
		return objects
	}
	kustomized, helm := byName(run(t, tool(t, "kustomize"), "build", ".")), byName(template(t))
	if diff := cmp.Diff(helm, kustomized); diff != "" || len(helm) != 5 {
		t.Errorf("found %d objects (-helm +kustomize):\n%s", len(helm), diff)
	}
}

func TestLint(t *testing.T) {
	out := run(t, tool(t, "helm"), "lint", "--strict", "chart")
	if strings.Contains(string(out), "[WARNING]") {
		t.Errorf("%s", out)
	}
}

// What values make of the objects.
func TestValues(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   []string
		check func(t *testing.T, install, daemon corev1.Container, spec corev1.PodSpec)
	}{
		{"image", []string{"image.repository=registry.example/braid", "image.tag=v9", "image.pullPolicy=Always"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			for _, c := range []corev1.Container{install, daemon} {
				if c.Image != "registry.example/braid:v9" || c.ImagePullPolicy != corev1.PullAlways {
					t.Errorf("found %s %s", c.Image, c.ImagePullPolicy)
				}
			}
		}},
		{"folders", []string{"cniBinDir=/srv/bin", "cniConfDir=/srv/net.d", "cniDir=/srv/state/braid"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--bin-dir=/srv/bin", "--conf-dir=/srv/net.d", "--cni-dir=/srv/state/braid")
			wantArgs(t, daemon, "--cni-dir=/srv/state/braid")
			wantMounts(t, install, "/srv/bin", "/srv/net.d", "/srv/state")
			wantMounts(t, daemon, "/srv/bin", "/srv/net.d", "/srv/state")
		}},
		{"the kubelet's folder", []string{"kubeletDir=/var/lib/k0s/kubelet", "config.result=default"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, `--config={"podResources":"/var/lib/k0s/kubelet/pod-resources/kubelet.sock","result":"default"}`)
			wantArgs(t, daemon, "--pod-resources=/var/lib/k0s/kubelet/pod-resources/kubelet.sock")
			wantMounts(t, daemon, "/var/lib/k0s/kubelet/pod-resources")
		}},
		{"k3s", []string{"distribution=k3s"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--bin-dir=/var/lib/rancher/k3s/data/cni", "--conf-dir=/var/lib/rancher/k3s/agent/etc/cni/net.d", "--cluster-network=auto")
			wantMounts(t, daemon, "/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d")
		}},
		{"rke2", []string{"distribution=rke2"}, func(t *testing.T, install, _ corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--bin-dir=/opt/cni/bin", "--conf-dir=/etc/cni/net.d")
		}},
		{"talos", []string{"distribution=talos"}, func(t *testing.T, install, _ corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--bin-dir=/opt/cni/bin", "--conf-dir=/etc/cni/net.d")
		}},
		{"microk8s, one folder given", []string{"distribution=microk8s", "cniBinDir=/x"}, func(t *testing.T, install, _ corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--bin-dir=/x", "--conf-dir=/var/snap/microk8s/current/args/cni-network")
		}},
		{"openshift", []string{"distribution=openshift"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--bin-dir=/var/lib/cni/bin", "--conf-dir=/etc/kubernetes/cni/net.d", "--cluster-network=/run/multus/cni/net.d/10-ovn-kubernetes.conf")
			wantMounts(t, daemon, "/run/multus/cni/net.d")
		}},
		{"configuration", []string{`config={"result": "default", "defaultNetworks": ["a", "b"]}`, "clusterNetwork=bridge", "plugins={missing}", "overwrite=true"}, func(t *testing.T, install, _ corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, `--config={"defaultNetworks":["a","b"],"result":"default"}`, "--cluster-network=bridge", "--plugins=missing", "--overwrite")
		}},
		{"API server", []string{"apiServer=[fd00::1]:6443"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			for _, c := range []corev1.Container{install, daemon} {
				wantEnv(t, c, "KUBERNETES_SERVICE_HOST", "fd00::1")
				wantEnv(t, c, "KUBERNETES_SERVICE_PORT", "6443")
			}
		}},
		{"metrics", []string{"metrics.address=0.0.0.0:9999"}, func(t *testing.T, _, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, daemon, "--listen=0.0.0.0:9999")
			if get := daemon.ReadinessProbe.HTTPGet; get.Port.IntValue() != 9999 || get.Host != "127.0.0.1" {
				t.Errorf("probe of %s:%s", get.Host, get.Port.String())
			}
		}},
		{"tracing, condition", []string{"tracing.endpoint=http://collector:4318", "podCondition=true", "extraArgs={--log-level=debug}"}, func(t *testing.T, _, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, daemon, "--pod-condition", "--log-level=debug")
			wantEnv(t, daemon, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
		}},
		{"repair", []string{"repair=true"}, func(t *testing.T, _, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, daemon, "--repair")
		}},
		{"no worker", []string{"worker=false"}, func(t *testing.T, install, daemon corev1.Container, _ corev1.PodSpec) {
			wantArgs(t, install, "--worker=false")
			wantArgs(t, daemon, "--worker=false")
		}},
		{"scheduling", []string{"nodeSelector.pool=edge", "priorityClassName=mine", `imagePullSecrets[0].name=secret`}, func(t *testing.T, _, _ corev1.Container, spec corev1.PodSpec) {
			if spec.NodeSelector["pool"] != "edge" || spec.NodeSelector["kubernetes.io/os"] != "linux" || spec.PriorityClassName != "mine" || len(spec.ImagePullSecrets) != 1 {
				t.Errorf("found %v, %s, %v", spec.NodeSelector, spec.PriorityClassName, spec.ImagePullSecrets)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := template(t, c.set...)
			for _, object := range documents(t, text) {
				valid(t, object)
			}
			spec := daemonSet(t, text).Spec.Template.Spec
			c.check(t, spec.InitContainers[0], spec.Containers[0], spec)
		})
	}
}

func TestValuesAreChecked(t *testing.T) {
	helm := tool(t, "helm")
	for _, set := range []string{"distribution=k4s", "apiServer=no-port", "plugins={brigde}", "cniBinDir=relative", "imagge.tag=x", "clusterNetwork=calico"} {
		if out, err := try(helm, templateArgs([]string{set})...); err == nil {
			t.Errorf("%s: accepted:\n%.200s", set, out)
		}
	}
}

func TestUninstallIsInPlaceOfTheDaemon(t *testing.T) {
	text := template(t, "uninstall=true", "uninstallForce=true", "distribution=k3s")
	ds := daemonSet(t, text)
	if ds.Name != "braid-uninstall" || strings.Count(string(text), "kind: DaemonSet") != 1 {
		t.Errorf("found DaemonSet %s, want braid-uninstall alone", ds.Name)
	}
	wantArgs(t, ds.Spec.Template.Spec.InitContainers[0], "uninstall", "--force")
	wantMounts(t, ds.Spec.Template.Spec.InitContainers[0], "/var/lib/rancher/k3s/data/cni")
}

func TestOpenShiftNeedsMore(t *testing.T) {
	found := false
	for _, object := range documents(t, template(t, "distribution=openshift")) {
		if b, ok := valid(t, object).(*rbacv1.RoleBinding); ok {
			found = b.RoleRef.Name == "system:openshift:scc:privileged"
		}
	}
	if !found {
		t.Error("no binding to the privileged security context constraint")
	}
}

func wantArgs(t *testing.T, c corev1.Container, args ...string) {
	t.Helper()
	for _, arg := range args {
		if !slices.Contains(c.Args, arg) {
			t.Errorf("%s: found arguments %q, want %q", c.Name, c.Args, arg)
		}
	}
}

func wantMounts(t *testing.T, c corev1.Container, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path }) {
			t.Errorf("%s: nothing is mounted at %s", c.Name, path)
		}
	}
}

func wantEnv(t *testing.T, c corev1.Container, name, value string) {
	t.Helper()
	if !slices.Contains(c.Env, corev1.EnvVar{Name: name, Value: value}) {
		t.Errorf("%s: found %v, want %s=%s", c.Name, c.Env, name, value)
	}
}

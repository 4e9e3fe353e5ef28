// Package deploy is the manifests of Braid; here are the tests of what is committed. Those that need helm and kustomize have
// the tag deploy, that which needs an API server the tag cluster.
package deploy

import (
	"bytes"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// documents splits YAML text. Each has an apiVersion and a kind.
func documents(t *testing.T, text []byte) (docs []map[string]any) {
	t.Helper()
	for _, doc := range bytes.Split(text, []byte("\n---\n")) {
		var object map[string]any
		if err := yaml.Unmarshal(doc, &object); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if object != nil {
			docs = append(docs, object)
		}
	}
	return docs
}

// valid decodes an object as its kind has it: no unknown and no duplicate field.
func valid(t *testing.T, object map[string]any) any {
	t.Helper()
	kinds := map[string]any{
		"ServiceAccount": &corev1.ServiceAccount{}, "ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{},
		"RoleBinding": &rbacv1.RoleBinding{}, "DaemonSet": &appsv1.DaemonSet{},
	}
	kind, _ := object["kind"].(string)
	into, ok := kinds[kind]
	if kind == "CustomResourceDefinition" {
		return nil // the API server is asked, and it has been used by all tests of the cluster
	}
	if !ok {
		t.Fatalf("kind %q: not one that Braid is made of", kind)
	}
	b, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(b, into); err != nil {
		t.Errorf("%s: %v", kind, err)
	}
	return into
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// daemonSet returns that of a manifest.
func daemonSet(t *testing.T, text []byte) *appsv1.DaemonSet {
	t.Helper()
	for _, object := range documents(t, text) {
		if ds, ok := valid(t, object).(*appsv1.DaemonSet); ok {
			return ds
		}
	}
	t.Fatal("there is no DaemonSet")
	return nil
}

// What kubectl reads in the folder is all that is to be applied.
func TestFolderCanBeApplied(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var applied []string
	for _, e := range entries {
		if name := e.Name(); !e.IsDir() && (strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") || strings.HasSuffix(name, ".json")) {
			applied = append(applied, name)
		}
	}
	if want := []string{"crd.yaml", "daemonset.yaml", "rbac.yaml"}; !slices.Equal(applied, want) {
		t.Errorf("kubectl apply -f deploy/ reads %v, want %v", applied, want)
	}
	for _, name := range append(applied, "uninstall/daemonset.yaml") {
		for _, object := range documents(t, read(t, name)) {
			valid(t, object)
		}
	}
	var kustomization struct{ Resources []string }
	if err := yaml.Unmarshal(read(t, "Kustomization"), &kustomization); err != nil {
		t.Fatal(err)
	}
	slices.Sort(kustomization.Resources)
	if !slices.Equal(applied, kustomization.Resources) {
		t.Errorf("kustomize reads %v, kubectl %v", kustomization.Resources, applied)
	}
}

// Nothing is allowed but what is listed here, and each rule says why it is there.
func TestLeastPrivilege(t *testing.T) {
	text := read(t, "rbac.yaml")
	want := map[string][]string{
		"pods": {"get", "list", "watch"}, "pods/status": {"patch"}, "network-attachment-definitions": {"get", "list", "watch"},
		"events": {"create"}, "nodes": {"get"},
	}
	for _, object := range documents(t, text) {
		role, ok := valid(t, object).(*rbacv1.ClusterRole)
		if !ok {
			continue
		}
		for _, rule := range role.Rules {
			for _, resource := range rule.Resources {
				if !slices.Equal(rule.Verbs, want[resource]) {
					t.Errorf("%s: found verbs %v, want %v", resource, rule.Verbs, want[resource])
				}
				delete(want, resource)
			}
			for _, verb := range rule.Verbs {
				if !bytes.Contains(text, []byte(verb+":")) && !bytes.Contains(text, []byte(verb+",")) {
					t.Errorf("verb %s on %v: no reason is given", verb, rule.Resources)
				}
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("no rule for %v", want)
	}
}

// Paths mean the same in the container as on the node.
func TestSamePaths(t *testing.T) {
	for _, name := range []string{"daemonset.yaml", "uninstall/daemonset.yaml"} {
		spec := daemonSet(t, read(t, name)).Spec.Template.Spec
		paths := map[string]string{}
		for _, v := range spec.Volumes {
			if v.HostPath != nil {
				paths[v.Name] = v.HostPath.Path
			}
		}
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			for _, m := range c.VolumeMounts {
				path, ok := paths[m.Name]
				if ok && path != m.MountPath && !(path == "/" && m.MountPath == "/host") {
					t.Errorf("%s: %s: %s of the node is at %s", name, c.Name, path, m.MountPath)
				}
			}
		}
	}
}

// The image is called what `make image` calls it.
func TestImageName(t *testing.T) {
	var chart struct {
		AppVersion string `json:"appVersion"`
	}
	if err := yaml.Unmarshal(read(t, "chart/Chart.yaml"), &chart); err != nil {
		t.Fatal(err)
	}
	want := "braid-cni.io/braid:" + chart.AppVersion
	for _, name := range []string{"daemonset.yaml", "uninstall/daemonset.yaml"} {
		spec := daemonSet(t, read(t, name)).Spec.Template.Spec
		for _, c := range append(spec.InitContainers, spec.Containers...) {
			if c.Image != want || c.ImagePullPolicy != corev1.PullIfNotPresent {
				t.Errorf("%s: %s: found image %s, %s, want %s and IfNotPresent", name, c.Name, c.Image, c.ImagePullPolicy, want)
			}
		}
	}
}

// The chart has no file that nothing reads.
func TestChartFiles(t *testing.T) {
	want := []string{"Chart.yaml", "crds/crd.yaml", "templates/_helpers.tpl", "templates/daemonset.yaml", "templates/rbac.yaml", "templates/uninstall.yaml", "values.schema.json", "values.yaml"}
	var found []string
	err := fs.WalkDir(os.DirFS("chart"), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

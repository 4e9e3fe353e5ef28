//go:build cluster

package deploy

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/braid-cni/braid/e2e/cluster"
)

// An API server accepts every object, and knows every field. (The one of this test is not started with --allow-privileged,
// so that is taken out; the tests of a whole node apply the manifests as they are.)
func TestClusterAcceptsManifests(t *testing.T) {
	c := cluster.Start(t, os.Getenv("BRAID_KUBEBIN"))
	collections := map[string]string{
		"CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
		"ServiceAccount":           "/api/v1/namespaces/kube-system/serviceaccounts",
		"ClusterRole":              "/apis/rbac.authorization.k8s.io/v1/clusterroles",
		"ClusterRoleBinding":       "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
		"DaemonSet":                "/apis/apps/v1/namespaces/kube-system/daemonsets",
	}
	for _, name := range []string{"crd.yaml", "rbac.yaml", "daemonset.yaml", "uninstall/daemonset.yaml"} {
		text := bytes.ReplaceAll(read(t, name), []byte("privileged: true"), []byte("privileged: false"))
		for _, object := range documents(t, text) {
			kind, _ := object["kind"].(string)
			var answer map[string]any
			c.Do(http.MethodPost, collections[kind]+"?dryRun=All&fieldValidation=Strict", object, &answer)
			if got, _ := answer["kind"].(string); !strings.EqualFold(got, kind) {
				t.Errorf("%s: the answer is a %s, want %s", name, got, kind)
			}
		}
	}
}

package manifests_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/braid-cni/braid/kube/manifests"
)

// folder writes a txtar archive.
func folder(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := txtar.Write(txtar.Parse([]byte(archive)), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRead(t *testing.T) {
	dir := folder(t, `
-- networks.yaml --
# A comment first, an empty document, a kind that does not matter here.
---
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {anything: true}
--- # a comment on the marker
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: blue
  namespace: net
spec:
  config: |
    {
      "type": "bridge",
      "comment": "
    --- no marker
      "
    }
-- pods.json --
{"apiVersion": "v1", "kind": "List", "items": [
	{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}},
	{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b", "namespace": "c"}}
]}
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d"}}
-- .hidden.yaml --
: : :
-- README.md --
: : :
-- sub.yaml/file.yaml --
: : :
-- empty.yml --
`)
	// As a ConfigMap is mounted.
	if err := os.Rename(filepath.Join(dir, "networks.yaml"), filepath.Join(dir, "..networks")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..networks", filepath.Join(dir, "link.yaml")); err != nil {
		t.Fatal(err)
	}

	objects, err := manifests.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range objects.Pods {
		found = append(found, "pod "+p.Namespace+"/"+p.Name)
	}
	for _, n := range objects.Networks {
		found = append(found, "network "+n.Namespace+"/"+n.Name, n.Spec.Config)
	}
	want := []string{
		"pod default/a", "pod c/b", "pod default/d",
		"network net/blue", "{\n  \"type\": \"bridge\",\n  \"comment\": \"\n--- no marker\n  \"\n}\n",
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

func TestReadMistakes(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n"
	for _, tt := range []struct{ name, archive, want string }{
		{"syntax, second document", "-- f.yaml --\n" + pod + "---\nkind: Pod\nmetadata: {name: [}\n", "DIR/f.yaml: yaml: line 5: did not find expected node content"},
		{"duplicate key", "-- f.yaml --\n" + pod + "kind: Pod\n", `DIR/f.yaml: yaml: unmarshal errors:
  line 4: key "kind" already set in map`},
		{"JSON syntax", "-- f.json --\n{\n\"kind\": \"Pod\",\n}\n", "DIR/f.json: line 3: invalid character '}' looking for beginning of object key string"},
		{"JSON syntax, second document", "-- f.json --\n{\"kind\":\"Service\"}\n{\n]\n", "DIR/f.json: line 3: invalid character ']' looking for beginning of object key string"},
		{"JSON, duplicate key", "-- f.json --\n\n{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\", \"name\": \"b\"}}\n", `DIR/f.json, document at line 2: duplicate field "metadata.name"`},
		{"JSON, cut off", "-- f.json --\n{\"kind\":\"Service\"}\n{\"kind\":\n", "DIR/f.json: line 3: unexpected EOF"},
		{"unknown fields", "-- f.yaml --\n---\n" + pod + "spec:\n  contaners: []\n  hostnetwork: true\n", `DIR/f.yaml, document at line 1: unknown field "spec.contaners"
unknown field "spec.hostnetwork"`},
		{"wrong type", "-- f.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: [a]}\n", "DIR/f.yaml, document at line 1: json: cannot unmarshal array into Go struct field ObjectMeta.metadata.annotations of type map[string]string"},
		{"annotation that is a number", "-- f.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {a: 1}}\n", "DIR/f.yaml, document at line 1: json: cannot unmarshal number into Go struct field ObjectMeta.metadata.annotations of type string"},
		{"config that is an object", "-- f.yaml --\napiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: blue}\nspec: {config: {type: bridge}}\n", "DIR/f.yaml, document at line 1: json: cannot unmarshal object into Go struct field NetworkAttachmentDefinitionSpec.spec.config of type string"},
		{"no kind", "-- f.yaml --\napiVersion: v1\n", "DIR/f.yaml, document at line 1: kind: found none, want Pod, NetworkAttachmentDefinition or another"},
		{"no object", "-- f.yaml --\n- a\n", "DIR/f.yaml, document at line 1: not a Kubernetes object: json: cannot unmarshal array into Go value"},
		{"apiVersion", "-- f.yaml --\napiVersion: k8s.cni.cncf.io/v1beta1\nkind: NetworkAttachmentDefinition\nmetadata: {name: blue}\n", `DIR/f.yaml, document at line 1: apiVersion: found "k8s.cni.cncf.io/v1beta1", want "k8s.cni.cncf.io/v1" for kind NetworkAttachmentDefinition`},
		{"name", "-- f.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: Web}\n", `DIR/f.yaml, document at line 1: metadata.name: found "Web": a lowercase RFC 1123 subdomain`},
		{"no name", "-- f.yaml --\napiVersion: v1\nkind: Pod\n", `DIR/f.yaml, document at line 1: metadata.name: found "": a lowercase RFC 1123 subdomain`},
		{"namespace", "-- f.yaml --\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: ../etc}\n", `DIR/f.yaml, document at line 1: metadata.namespace: found "../etc": a lowercase RFC 1123 label`},
		{"twice", "-- f.yaml --\n" + pod + "-- g.yaml --\n\n---\n" + pod, "DIR/g.yaml, document at line 2: Pod default/web is there twice: first in DIR/f.yaml, document at line 1"},
		{"in a list", "-- f.yaml --\napiVersion: v1\nkind: List\nitems:\n- {kind: Service}\n- {apiVersion: v1, kind: Pod, metadata: {name: web}, spek: {}}\n", `DIR/f.yaml, document at line 1, items[1]: unknown field "spek"`},
		{"all at once", "-- f.yaml --\napiVersion: v1\n-- g.yaml --\n{\n", "DIR/f.yaml, document at line 1: kind: found none, want Pod, NetworkAttachmentDefinition or another\nDIR/g.yaml: yaml: line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.archive)
			_, err := manifests.Read(dir)
			if err == nil {
				t.Fatal("found no error")
			}
			if found := strings.ReplaceAll(err.Error(), dir, "DIR"); !strings.HasPrefix(found, tt.want) {
				t.Errorf("found error\n%s\nwant it to begin with\n%s", found, tt.want)
			}
		})
	}
}

// FuzzRead: a file of manifests gives pods and networks that have names, or complaints that name the file.
func FuzzRead(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n---\napiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: b}\n"))
	f.Add([]byte("a: &a [x]\nb: [*a, *a]\n--- |\n{"))
	f.Add([]byte(`{"apiVersion":"v1","kind":"List","items":[{"kind":"Pod"}]}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, "f.yaml"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := manifests.Read(dir); err != nil && !strings.Contains(err.Error(), "f.yaml") {
			t.Errorf("%q: %v", content, err)
		}
	})
}

package conf_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/braid-cni/braid/conf"
)

// parseSelections decodes the value of an annotation that selects networks.
func parseSelections(annotation, podNamespace string) ([]conf.Selection, error) {
	_, sels, err := conf.PodNetworks(map[string]string{conf.AnnotationNetworks: annotation}, podNamespace, "")
	return sels, err
}

// parseDefaultNetwork decodes the value of an annotation that selects the default network.
func parseDefaultNetwork(annotation, defaultNamespace string) (*conf.Selection, error) {
	def, _, err := conf.PodNetworks(map[string]string{conf.AnnotationDefaultNetwork: annotation}, "", defaultNamespace)
	return def, err
}

func TestTakesDefaultRoute(t *testing.T) {
	sels, err := parseSelections(`[{"name": "a"}, {"name": "b", "default-route": []}, {"name": "c", "default-route": null}]`, "default")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{false, true, false} {
		if got := sels[i].TakesDefaultRoute(); got != want {
			t.Errorf("element %d: got %v, want %v", i, got, want)
		}
	}
}

// "Implementations of this specification must support both formats."
func TestBothFormatsSelectTheSame(t *testing.T) {
	names, err := parseSelections("blue , other/red@net7", "default")
	if err != nil {
		t.Fatal(err)
	}
	list, err := parseSelections(` [{"name": "blue"}, {"namespace": "other", "name": "red", "interface": "net7"}]`, "default")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(names, list); diff != "" {
		t.Errorf("(-names +list)\n%s", diff)
	}
}

func TestParseDefaultNetwork(t *testing.T) {
	for annotation, want := range map[string]*conf.Selection{
		"":          nil,
		"fast":      {Namespace: "kube-system", Name: "fast"},
		"own/fast ": {Namespace: "own", Name: "fast"},
	} {
		got, err := parseDefaultNetwork(annotation, "kube-system")
		if err != nil {
			t.Errorf("%q: %v", annotation, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got)\n%s", annotation, diff)
		}
	}
	_, err := parseDefaultNetwork("fast, slow", "kube-system")
	wantError(t, err, types.ErrInvalidNetworkConfig, "found 2 networks, want one")
}

// seed adds the inputs of a golden archive.
func seed(f *testing.F, archive string) {
	a, err := txtar.ParseFile(filepath.Join("testdata", archive))
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range a.Files {
		if !strings.HasPrefix(file.Name, "=> ") {
			f.Add(file.Data)
		}
	}
}

func FuzzParseSelections(f *testing.F) {
	seed(f, "annotation.txtar")
	f.Fuzz(func(t *testing.T, annotation []byte) {
		sels, err := parseSelections(string(annotation), "default")
		if err != nil {
			return
		}
		first := mustMarshal(sels)
		if sels == nil {
			first = "[]"
		}
		back, err := parseSelections(first, "default")
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second := mustMarshal(back); len(sels) > 0 && first != second {
			t.Errorf("%s became %s", first, second)
		}
		for _, s := range sels {
			if strings.ContainsAny(s.Namespace+s.Name+s.IfName+s.DeviceID, "/\\ \x00") || s.Name == "" || s.Namespace == "" || len(s.IfName) > 15 {
				t.Errorf("%s selects %+v", annotation, s)
			}
			if _, err := json.Marshal(s.Capabilities()); err != nil {
				t.Error(err)
			}
		}
	})
}

package delegate

import (
	"bytes"
	"encoding/json"
	"flag"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/resolve"

	"os"
)

var update = flag.Bool("update", false, "write the plans of testdata as they are now")

// TestPlan reads testdata/plan/*.txtar: an entry configuration ("config"), a pod's annotations ("annotations"), the
// NetworkAttachmentDefinitions of the cluster ("nad/NAMESPACE/NAME [RESOURCE]", the content being spec.config), the pod's
// devices ("devices", or "devices-error"), configuration files ("confdir/FILE"), interfaces that exist in the pod ("taken"), and the plan, or the error, that follow ("plan").
func TestPlan(t *testing.T) {
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { testPlan(t, file) })
	}
}

func testPlan(t *testing.T, file string) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	pod := &resolve.Answer{
		Pod:      resolve.Pod{Namespace: "blue", Name: "web", UID: "u1"},
		Networks: make(map[string]resolve.Network),
	}
	var config, want []byte
	var taken []string
	wantIndex := -1
	for i, f := range ar.Files {
		switch {
		case f.Name == "config":
			config = bytes.ReplaceAll(f.Data, []byte("$DIR"), []byte(dir))
		case f.Name == "annotations":
			if err := json.Unmarshal(f.Data, &pod.Annotations); err != nil {
				t.Fatal(err)
			}
		case f.Name == "taken":
			taken = strings.Fields(string(f.Data))
		case f.Name == "plan":
			want, wantIndex = f.Data, i
		case f.Name == "devices":
			if err := json.Unmarshal(f.Data, &pod.Devices); err != nil {
				t.Fatal(err)
			}
		case f.Name == "devices-error":
			pod.DevicesError = &resolve.Error{Reason: resolve.Unavailable, Message: strings.TrimSpace(string(f.Data))}
		case strings.HasPrefix(f.Name, "nad/"):
			name := strings.TrimPrefix(f.Name, "nad/")
			name, resource, ok := strings.Cut(name, " ")
			network := resolve.Network{Config: strings.TrimSpace(string(f.Data))}
			if ok {
				network.Annotations = map[string]string{conf.AnnotationResourceName: resource}
			}
			pod.Networks[name] = network
		case strings.HasPrefix(f.Name, "confdir/"):
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Name)), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("%s: unknown file %s", file, f.Name)
		}
	}
	plan := func(m *memo.Memory) string {
		c, err := conf.ParseWith(m, config)
		if err != nil {
			t.Error(err)
			return ""
		}
		var got bytes.Buffer
		plan, err := NewPlan(c, pod, "eth0", taken)
		if err == nil {
			err = WritePlan(&got, plan)
		}
		if err != nil {
			got.Reset()
			got.WriteString("error:\n" + strings.ReplaceAll(err.Error(), dir, "$DIR") + "\n")
		}
		return got.String()
	}
	got := plan(nil)
	if *update && wantIndex >= 0 {
		ar.Files[wantIndex].Data = []byte(got)
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("plan (-want +got):\n%s", diff)
	}
	// A memory changes nothing, however many plan at the same time.
	m := new(memo.Memory)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				if diff := cmp.Diff(string(want), plan(m)); diff != "" {
					t.Errorf("plan with a memory (-want +got):\n%s", diff)
				}
			}
		})
	}
	wg.Wait()
}

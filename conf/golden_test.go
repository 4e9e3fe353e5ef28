package conf_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

var update = flag.Bool("update", false, "write what is decoded to testdata/*.txtar")

// The archives are documentation: what is written, and what is understood of it or complained about. It is the same with a
// memory, the first time and later.
func TestGolden(t *testing.T) {
	remembering := new(memo.Memory)
	for name, decode := range map[string]func(input []byte) (string, error){
		"annotation.txtar":      decodeAnnotation,
		"default-network.txtar": decodeDefaultNetwork,
		"network.txtar":         func(input []byte) (string, error) { return decodeNetwork(nil, input) },
		"config.txtar":          func(input []byte) (string, error) { return decodeConfig(nil, input) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name)
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				archive.Files = withOutputs(archive.Files, decode)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			checkOutputs(t, archive.Files, decode)
			for range 2 {
				switch name {
				case "network.txtar":
					checkOutputs(t, archive.Files, func(input []byte) (string, error) { return decodeNetwork(remembering, input) })
				case "config.txtar":
					checkOutputs(t, archive.Files, func(input []byte) (string, error) { return decodeConfig(remembering, input) })
				}
			}
		})
	}
}

func checkOutputs(t *testing.T, files []txtar.File, decode func([]byte) (string, error)) {
	if len(files) == 0 || len(files)%2 != 0 {
		t.Fatalf("%d files, want pairs of input and output", len(files))
	}
	for i := 0; i < len(files); i += 2 {
		in, out := files[i], files[i+1]
		t.Run(in.Name, func(t *testing.T) {
			name, text := output(decode(in.Data))
			if diff := cmp.Diff(out.Name+"\n"+string(out.Data), name+"\n"+text); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// withOutputs replaces the files that hold outputs.
func withOutputs(files []txtar.File, decode func([]byte) (string, error)) (updated []txtar.File) {
	for _, f := range files {
		if strings.HasPrefix(f.Name, "=> ") {
			continue
		}
		name, text := output(decode(f.Data))
		updated = append(updated, f, txtar.File{Name: name, Data: []byte(text)})
	}
	return updated
}

func output(decoded string, err error) (name, text string) {
	if err == nil {
		return "=> decoded", decoded
	}
	cniErr, ok := errors.AsType[*types.Error](err)
	if !ok {
		return "=> error", err.Error() + "\n"
	}
	return fmt.Sprintf("=> error %d", cniErr.Code), strings.ReplaceAll(err.Error(), "; ", ";\n    ") + "\n"
}

func decodeAnnotation(input []byte) (string, error) {
	sels, err := parseSelections(string(input), "pod-ns")
	var b strings.Builder
	for _, s := range sels {
		b.WriteString(selectionText(&s))
	}
	return b.String(), err
}

func decodeDefaultNetwork(input []byte) (string, error) {
	var annotations map[string]string
	if err := json.Unmarshal(input, &annotations); err != nil {
		return "", err
	}
	def, sels, err := conf.PodNetworks(annotations, "pod-ns", "kube-system")
	var b strings.Builder
	if def != nil {
		b.WriteString("default network: " + selectionText(def))
	}
	for _, s := range sels {
		b.WriteString(selectionText(&s))
	}
	return b.String(), err
}

func selectionText(s *conf.Selection) string {
	text := mustMarshal(s) + "\n"
	if requested := s.Capabilities(); len(requested) > 0 {
		text += "    runtimeConfig: " + mustMarshal(requested) + "\n"
	}
	return text
}

func decodeNetwork(m *memo.Memory, input []byte) (string, error) {
	n, err := conf.ParseNetworkWith(m, string(input), "from-nad")
	if err != nil {
		return "", err
	}
	b, err := json.MarshalIndent(n, "", "  ")
	return string(b) + "\n", err
}

// decodeConfig prints the fields that have not their default.
func decodeConfig(m *memo.Memory, input []byte) (string, error) {
	c, err := conf.ParseWith(m, input)
	if err != nil {
		return "", err
	}
	unset, err := conf.ParseWith(m, []byte(`{"name": "unset"}`))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	got, standard := reflect.ValueOf(*c), reflect.ValueOf(*unset)
	for i := range got.NumField() {
		v := got.Field(i).Interface()
		if !reflect.DeepEqual(v, standard.Field(i).Interface()) {
			fmt.Fprintf(&b, "%s: %s\n", got.Type().Field(i).Name, mustMarshal(v))
		}
	}
	return b.String(), nil
}

func mustMarshal(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return strings.TrimSpace(b.String())
}

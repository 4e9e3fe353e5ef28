package node

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Toolbox is the image of the tests' containers, and of the sandboxes: busybox under each of its names. It sleeps.
const Toolbox = "node.test/toolbox:1"

// toolbox writes the image's archive, in the form of `docker save`: a tar archive with a configuration, a layer, which is
// a tar archive too, and a manifest that names the two.
func toolbox(t testing.TB, bin string) (path string) {
	t.Helper()
	layer := &archive{t: t}
	layer.w = tar.NewWriter(&layer.content)
	busybox, err := os.ReadFile(filepath.Join(bin, "busybox"))
	if err != nil {
		t.Fatal(err)
	}
	layer.file("bin/busybox", 0o755, busybox)
	names, err := exec.Command(filepath.Join(bin, "busybox"), "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(names)) {
		if name != "busybox" {
			layer.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	diff := layer.close()

	sum := sha256.Sum256(diff)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/bin/sleep", "infinity"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": "config.json", "RepoTags": []string{Toolbox}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	image := &archive{t: t}
	image.w = tar.NewWriter(&image.content)
	image.file("config.json", 0o644, config)
	image.file("layer.tar", 0o644, diff)
	image.file("manifest.json", 0o644, manifest)
	path = filepath.Join(t.TempDir(), "toolbox.tar")
	if err := os.WriteFile(path, image.close(), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

type archive struct {
	t       testing.TB
	content bytes.Buffer
	w       *tar.Writer
}

func (a *archive) file(name string, mode int64, content []byte) {
	a.t.Helper()
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content)
}

func (a *archive) add(header *tar.Header, content []byte) {
	a.t.Helper()
	if err := a.w.WriteHeader(header); err != nil {
		a.t.Fatal(err)
	}
	if _, err := a.w.Write(content); err != nil {
		a.t.Fatal(err)
	}
}

func (a *archive) close() []byte {
	a.t.Helper()
	if err := a.w.Close(); err != nil {
		a.t.Fatal(err)
	}
	return a.content.Bytes()
}

package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestImage(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"braid", "braidd"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("this is "+name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(dir, "image.tar")
	names := []string{"braid-cni.io/braid:dev", "braid-cni.io/braid:v1"}
	make := func(out string) []byte {
		t.Helper()
		if err := run(out, "linux/arm64", names, []string{filepath.Join(dir, "braid"), filepath.Join(dir, "braidd")}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := make(archive)
	if !bytes.Equal(first, make(filepath.Join(dir, "again.tar"))) {
		t.Error("two archives of the same binaries differ")
	}

	unpacked := filepath.Join(dir, "layout")
	if err := os.Mkdir(unpacked, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", archive, "-C", unpacked).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	index, err := layout.ImageIndexFromPath(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 2 || manifest.Manifests[0].Digest != manifest.Manifests[1].Digest {
		t.Fatalf("found %v, want one image twice", manifest.Manifests)
	}
	for i, m := range manifest.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] != names[i] || m.Platform.Architecture != "arm64" {
			t.Errorf("found %v for %v, want %s for arm64", m.Annotations, m.Platform, names[i])
		}
	}

	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(config.Config.Entrypoint, " "); got != "/opt/braid/bin/braidd" || config.Architecture != "arm64" || config.OS != "linux" {
		t.Errorf("found entry point %q for %s/%s", got, config.OS, config.Architecture)
	}
	files := map[string]string{}
	r := tar.NewReader(mutate.Extract(img))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, _ := io.ReadAll(r)
		files[h.Name] = h.FileInfo().Mode().String() + " " + h.Linkname + string(content)
		if !h.ModTime.Equal(epoch) || h.Uid != 0 {
			t.Errorf("%s: of time %s and user %d", h.Name, h.ModTime, h.Uid)
		}
	}
	for name, want := range map[string]string{
		"opt/braid/bin/braid": "-rwxr-xr-x this is braid", "opt/braid/bin/braidd": "-rwxr-xr-x this is braidd",
		"var/run": "Lrwxrwxrwx /run", "tmp": "dtrwxrwxrwx ", "etc/passwd": "-rw-r--r-- root:x:0:0:root:/:/sbin/nologin\n",
	} {
		if files[name] != want && files[name+"/"] != want {
			t.Errorf("%s: found %q, want %q", name, files[name], want)
		}
	}
}

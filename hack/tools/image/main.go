// Image writes the image of Braid as an OCI archive, without a registry and without a container engine:
//
//	image -o FILE -platform linux/amd64 -name NAME:TAG [-name ...] BINARY...
//
// The same binaries make the same archive, byte for byte.
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// binDir is where the image has the binaries. The Dockerfile says the same.
const binDir = "/opt/braid/bin"

// epoch is the time of everything in the archive.
var epoch = time.Unix(0, 0).UTC()

func main() {
	var names []string
	out := flag.String("o", "", "archive to write")
	platform := flag.String("platform", "linux/amd64", "of the binaries")
	flag.Func("name", "NAME:TAG of the image; may be repeated", func(s string) error { names = append(names, s); return nil })
	flag.Parse()
	if err := run(*out, *platform, names, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(out, platform string, names, binaries []string) (err error) {
	if out == "" || len(names) == 0 || len(binaries) == 0 {
		return errors.New("want -o, -name and binaries")
	}
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		return err
	}
	img, err := build(p, binaries)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "braid-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	for _, name := range names {
		// The first is what `ctr images import` and podman read, the second is containerd's own.
		annotations := map[string]string{"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}
		if err := l.AppendImage(img, layout.WithAnnotations(annotations), layout.WithPlatform(*p)); err != nil {
			return err
		}
	}
	return pack(dir, out)
}

// build makes an image of one layer.
func build(p *v1.Platform, binaries []string) (v1.Image, error) {
	files, err := fileSystem(binaries)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "hack/tools/image"}})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: epoch}
	config.OS, config.Architecture, config.Variant = p.OS, p.Architecture, p.Variant
	config.Config = v1.Config{
		Entrypoint: []string{path.Join(binDir, "braidd")},
		Env:        []string{"PATH=" + binDir},
		User:       "0:0",
		WorkingDir: "/",
	}
	return mutate.ConfigFile(img, config)
}

// fileSystem is the content of the layer. /run is where the node's /run is seen, and /var/run leads to it as on the node,
// so that a path of a namespace means the same in both.
func fileSystem(binaries []string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dir := func(name string, mode int64) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, ModTime: epoch})
	}
	file := func(name string, mode int64, content []byte) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: epoch}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	for _, d := range []string{"etc", "opt", "opt/braid", "opt/braid/bin", "run", "var"} {
		if err := dir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := dir("tmp", 0o1777); err != nil {
		return nil, err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "var/run", Linkname: "/run", Mode: 0o777, ModTime: epoch}); err != nil {
		return nil, err
	}
	if err := file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\n")); err != nil {
		return nil, err
	}
	for _, binary := range binaries {
		content, err := os.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		if err := file(path.Join(binDir, filepath.Base(binary))[1:], 0o755, content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// pack makes a tar archive of a folder.
func pack(dir, out string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(out), ".image-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := tar.NewWriter(f)
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error { // sorted by name
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: epoch})
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	if err := errors.Join(w.Close(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), out)
}

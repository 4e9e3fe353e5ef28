package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/braid-cni/braid/internal/refplugins"
)

// build makes the programs under test, from the tree that it is run in, each group in a folder of its own below dir:
//
//	braid       braid, braidd, braid-shim, and braid by the names of its plugins
//	reference   the reference plugins
//	multus      multus, multus-shim and multus-daemon; the names of the reference plugins lead to those
//	floor       the least program
//	tools       launch
func build(t *tb, top, dir string) {
	for _, name := range []string{"braid", "reference", "multus", "floor", "tools"} {
		t.must(os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	braid := filepath.Join(dir, "braid")
	goBuild(t, top, braid, "./cmd/braid", "./cmd/braidd", "./cmd/braid-shim")
	for _, name := range []string{"bridge", "macvlan", "ipvlan", "host-local", "static", "dhcp", "loopback"} {
		link(t, "braid", filepath.Join(braid, name))
	}
	goBuild(t, top, filepath.Join(dir, "floor"), "./bench/floor")
	goBuild(t, top, filepath.Join(dir, "tools"), "./bench/launch")
	goBuild(t, filepath.Join(top, "bench", "multus"), filepath.Join(dir, "multus"), "tool")
	source := refplugins.Dir(t)
	// Copies: what is executed from a folder is counted, and others may use that cache.
	for _, name := range []string{"bridge", "macvlan", "ipvlan", "host-local", "static", "dhcp", "loopback"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		t.must(err)
		t.must(os.WriteFile(filepath.Join(dir, "reference", name), b, 0o755))
		link(t, "../reference/"+name, filepath.Join(dir, "multus", name))
	}
}

func goBuild(t *tb, dir, to string, what ...string) {
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", to + "/"}, what...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %v in %s: %v\n%s", what, dir, err, out)
	}
}

func link(t *tb, target, path string) {
	if err := os.Symlink(target, path); err != nil && !errors.Is(err, os.ErrExist) {
		t.must(err)
	}
}

// kubebin returns the folder with etcd and kube-apiserver.
func kubebin(t *tb, top string) string {
	if dir := os.Getenv("BRAID_KUBEBIN"); dir != "" {
		return dir
	}
	cmd := exec.Command(filepath.Join(top, "hack", "kubebin"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(fmt.Errorf("hack/kubebin: %w", err))
	}
	return string(out[:len(out)-1])
}

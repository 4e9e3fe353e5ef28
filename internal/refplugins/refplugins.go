// Package refplugins gives tests the reference plugins of containernetworking/plugins, and cnitool, as binaries.
//
// They are built statically from the nested module in the folder module, once per machine, into the user's cache
// folder; a change of that module or of the Go toolchain makes a new one. BRAID_REFPLUGINS_DIR names a folder with
// ready ones instead.
package refplugins

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// Dir returns the folder with the binaries: bandwidth, bridge, cnitool, dhcp, firewall, host-device, host-local,
// ipvlan, loopback, macvlan, portmap, ptp, sbr, static, tuning. It is a value for CNI_PATH. Tests must not write to
// it. Dir may be called from several tests and test packages at once, and from within a node of nettest.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := Build()
	if err != nil {
		t.Fatalf("reference plugins: %v", err)
	}
	return dir
}

// Build is Dir for a TestMain. It builds what is not there yet.
func Build() (dir string, err error) {
	if dir := os.Getenv("BRAID_REFPLUGINS_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	module, err := findModule()
	if err != nil {
		return "", err
	}
	key, err := cacheKey(module)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a place for them, set BRAID_REFPLUGINS_DIR: %w", err)
	}
	dir = filepath.Join(cache, "braid", key)
	return dir, once(dir, func(tmp string) error { return build(module, tmp) })
}

// once has dir filled by fill unless it exists: whole or not at all, and by one process only.
func once(dir string, fill func(tmp string) error) (err error) {
	if exists(dir) {
		return nil
	}
	unlock, err := lock(dir + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if exists(dir) { // somebody else's build has just ended
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "building-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	content := filepath.Join(tmp, "content") // MkdirTemp's own folder is closed to other users
	if err := os.Mkdir(content, 0o755); err != nil {
		return err
	}
	if err := fill(content); err != nil {
		return err
	}
	return os.Rename(content, dir)
}

// findModule looks for the nested module from the test's working directory upwards. The name of this source file
// would not do: -trimpath takes the folder from it.
func findModule() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		module := filepath.Join(dir, "internal", "refplugins", "module")
		if exists(filepath.Join(module, "go.mod")) {
			return module, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find internal/refplugins/module in or above %s: not there", wd)
		}
	}
}

func cacheKey(module string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", err
		}
		h.Write(b)
	}
	return fmt.Sprintf("refplugins-v1.9.1-%x", h.Sum(nil)[:6]), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits for the file lock at path. The file stays: removing it would let two hold "the" lock.
func lock(path string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

func build(module, dir string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir, "tool")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS=linux")
	if out, err := outside(cmd); err != nil {
		return fmt.Errorf("build them in %s: %w\n%s", module, err, out)
	}
	return nil
}

// outside runs cmd in the machine's own network namespace, since modules may have to be downloaded: a node of nettest
// has no way out. The process that made the node is the parent of this one.
func outside(cmd *exec.Cmd) (output []byte, err error) {
	if !nettest.Inside() {
		return cmd.CombinedOutput()
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", os.Getppid()))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, nobody gets it in the wrong namespace
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			output, err = cmd.CombinedOutput()
		}
	}()
	<-done
	return output, err
}

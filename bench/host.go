package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideEnv names the folder of a run, in the process that plays the node.
const insideEnv = "BRAID_BENCH_DIR"

// enterNode runs this program again, in a network and a mount namespace of its own.
func enterNode(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	runtime.LockOSThread() // Pdeathsig counts from the death of the thread that started the child
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideEnv+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	return cmd.Wait()
}

// setUpNode gives the node a loopback interface, folders of its own, and a network card nic0 that leads nowhere.
// /run is in memory as on any node, what plugins keep is on the disk that dir is on.
func setUpNode(dir string) error {
	data := filepath.Join(dir, "lib-cni")
	if err := errors.Join(os.MkdirAll(data, 0o755), os.MkdirAll("/var/lib/cni", 0o755)); err != nil {
		return err
	}
	if err := unix.Mount(data, "/var/lib/cni", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /var/lib/cni: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := errors.Join(os.MkdirAll("/run/netns", 0o755), os.MkdirAll("/run/braid", 0o755), os.MkdirAll("/run/cni", 0o755)); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	nic := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "cable0"}
	nic.Name = "nic0"
	if err := errors.Join(netlink.LinkSetUp(lo), netlink.LinkAdd(nic)); err != nil {
		return err
	}
	cable, err := netlink.LinkByName("cable0")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(nic), netlink.LinkSetUp(cable))
}

// A tb lets a program use what is there for tests: helpers that end the run by a panic with a failure, folders and
// cleanups. It is for one goroutine.
type tb struct {
	testing.TB // nil: what is not defined below is not called
	dir        string
	dirs       int
	cleanups   []func()
	failed     bool
}

type failure string

func (t *tb) Helper()      {}
func (t *tb) Name() string { return "bench" }
func (t *tb) Failed() bool { return t.failed }

func (t *tb) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func (t *tb) Errorf(format string, args ...any) {
	t.failed = true
	t.Logf(format, args...)
}

func (t *tb) Fatal(args ...any) { panic(failure(strings.TrimSpace(fmt.Sprintln(args...)))) }

func (t *tb) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (t *tb) Cleanup(f func()) { t.cleanups = append(t.cleanups, f) }

func (t *tb) TempDir() string {
	t.dirs++
	dir := filepath.Join(t.dir, fmt.Sprint("t", t.dirs))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// close runs the cleanups, last one first.
func (t *tb) close() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		f := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		f()
	}
}

// must ends the run if err is not nil.
func (t *tb) must(err error) {
	if err != nil {
		t.Fatal(err)
	}
}

package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// Every thread must be inside, those that the Go runtime makes later too: that is why Main starts a process.
func TestMainKeepsAllThreadsInside(t *testing.T) {
	NeedRoot(t)
	if !Inside() {
		t.Fatal("the tests do not run inside a node")
	}
	here := netnsID()
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if id := netnsID(); id != here {
				t.Errorf("a thread is in %s, the test in %s", id, here)
			}
		})
	}
	wg.Wait()
	out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
	if err != nil || strings.TrimSpace(string(out)) != here {
		t.Errorf("a child process is in %q (%v), the test in %s", out, err, here)
	}
}

func TestNSLeavesMainThread(t *testing.T) {
	for range 20 {
		NewNS(t)
	}
	main, err := os.Readlink("/proc/self/ns/net") // of the main thread
	if here := netnsID(); err != nil || main != here {
		t.Errorf("the main thread is in %s (%v), the test in %s", main, err, here)
	}
}

func TestNS(t *testing.T) {
	LeakCheck(t)
	ns := NewNS(t)
	here := netnsID()
	var inside string
	ns.Do(t, func() { inside = netnsID() })
	if inside == here {
		t.Errorf("Do ran in %s, where the test is", inside)
	}
	if now := netnsID(); now != here {
		t.Errorf("the test is in %s after Do, was in %s", now, here)
	}
	if lo := ns.Link(t, "lo"); lo.Attrs().RawFlags&1 == 0 {
		t.Error("lo is down")
	}
	if links := ns.Links(t); len(links) != 0 {
		t.Errorf("a new namespace has links: %v", links)
	}
	ns.Remove(t)
	if _, err := os.Stat(ns.Path()); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", ns.Path(), err)
	}
}

func TestParentReachesItsLAN(t *testing.T) {
	LeakCheck(t)
	for where, ns := range map[string]*NS{"node": Node(t), "namespace": NewNS(t)} {
		t.Run(where, func(t *testing.T) {
			nic := Parent(t, ns)
			nic.LAN.Address(t, nic.Port, "192.0.2.1/24", "2001:db8::1/64")
			ns.Address(t, nic.Name, "192.0.2.2/24", "2001:db8::2/64")
			Reach(t, ns, nic.LAN, "192.0.2.1")
			Reach(t, ns, nic.LAN, "2001:db8::1")
			nic.LAN.Address(t, "lo", "198.51.100.1/32")
			NoReach(t, ns, nic.LAN, "198.51.100.1")
		})
	}
}

// recorder is a test that only notes what it is told.
type recorder struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Cleanup(f func())          { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(f string, a ...any) { r.failures = append(r.failures, fmt.Sprintf(f, a...)) }

func TestLeakCheckFindsEveryKindOfLeak(t *testing.T) {
	NeedRoot(t)
	dir := t.TempDir()
	r := &recorder{TB: t}
	leakCheck(r, 0, []string{dir})

	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: Name("leak")}, PeerName: Name("leak")}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	ns := NewNS(t)
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reservation"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range r.cleanups {
		f()
	}
	for _, want := range []string{
		"link veth " + link.Name, "mounted on " + ns.Path(), "(sleep)", "file " + dir + "/reservation", "descriptor",
	} {
		if !slices.ContainsFunc(r.failures, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("no complaint about %q in:\n%s", want, strings.Join(r.failures, "\n"))
		}
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if err := netlink.LinkDel(link); err != nil {
		t.Error(err)
	}
}

func TestNeedKernel(t *testing.T) {
	NeedKernel(t, Macvlan) // in every kernel that the tests run on

	missing := Feature{"warp drive", func(*netlink.Handle) error { return os.ErrNotExist }}
	for full, want := range map[string]bool{"": false, "1": true} {
		t.Setenv("BRAID_TEST_FULL_KERNEL", full)
		if fatal := verdict(t, missing); fatal != want {
			t.Errorf("BRAID_TEST_FULL_KERNEL=%q: fatal is %v, want %v", full, fatal, want)
		}
	}
}

type judged struct {
	testing.TB
	fatal bool
}

func (j *judged) Helper()               {}
func (j *judged) Skipf(string, ...any)  {}
func (j *judged) Fatalf(string, ...any) { j.fatal = true }

func verdict(t *testing.T, f Feature) bool {
	j := &judged{TB: t}
	NeedKernel(j, f)
	return j.fatal
}

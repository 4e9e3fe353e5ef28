package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// outsideEnv holds the identity of the namespace that the test was started in, so that a process inside the node can
// tell that it is, and so that a test binary that starts another one does not end up sharing its node by mistake.
const outsideEnv = "BRAID_TEST_OUTSIDE"

// Main runs the tests of m within a fresh node (see the package documentation) and returns the exit status. Without
// root it runs them where they are; those that need root then say so.
func Main(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if Inside() {
		if err := loUp(); err != nil {
			fmt.Fprintln(os.Stderr, "nettest: set lo up:", err)
			return 1
		}
		return m.Run()
	}
	status, err := rerun()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nettest: run the tests in a namespace:", err)
		return 1
	}
	return status
}

// Inside tells whether this process runs in a node made by [Main]. A TestMain uses it to do once, with the machine's
// own network, what is to be done before: building binaries whose modules must be downloaded.
func Inside() bool {
	outside := os.Getenv(outsideEnv)
	return outside != "" && outside != netnsID()
}

// rerun starts this test binary again, with the same arguments, in new namespaces.
func rerun() (status int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// Pdeathsig counts from the death of the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(self)
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), outsideEnv+"="+netnsID())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWNET,
		Unshareflags: unix.CLONE_NEWNS, // makes all mounts private as well
		Pdeathsig:    unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		return 0, err
	}
	if status = cmd.ProcessState.ExitCode(); status < 0 {
		fmt.Fprintln(os.Stderr, "nettest:", cmd.ProcessState)
		status = 2
	}
	return status, nil
}

func netnsID() string {
	id, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		panic(fmt.Sprintf("read the identity of the network namespace: %v", err))
	}
	return id
}

func loUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// NeedRoot skips the test if it does not run as root, or fails it where the whole suite is asked for.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" || os.Getenv("BRAID_TEST_FULL") == "1" {
		t.Fatal("this test needs root")
	}
	t.Skip("this test needs root")
}

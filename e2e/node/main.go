// Package node gives tests a real Kubernetes node: kubelet, containerd and runc, with a control plane beside them.
//
// A package of such tests calls [Main] from its TestMain. The test binary then runs in a mount, a network and a PID
// namespace of its own, which are the node: its interfaces, nftables rules, /run, /var/lib, /etc/cni and /opt/cni are
// there and nowhere else, and the tests, being inside, use the paths that the node has. [Start] starts the cluster.
//
// When the test ends, or is killed, so does the first process of the PID namespace, with it every other, with them the
// namespaces. What is left are empty control groups, which the process outside removes, or the next run does.
//
// Root is needed, and two folders with programs: BRAID_KUBEBIN, see hack/kubebin, and BRAID_NODEBIN, see hack/nodebin.
// BRAID_NODE_LOGS names a folder that keeps the logs of the node's programs.
package node

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// insideEnv is set inside the node, to the name of its control groups.
const insideEnv = "BRAID_NODE_CGROUP"

//go:embed enter.sh
var enter string

// Main runs the tests of m in fresh namespaces, and returns the exit status.
func Main(m *testing.M) int {
	if Inside() {
		return m.Run()
	}
	status, err := rerun()
	if err != nil {
		fmt.Fprintln(os.Stderr, "node: run the tests in namespaces:", err)
		return 1
	}
	return status
}

// Inside tells whether this process runs in the namespaces of a node. A TestMain uses it to do once, with the machine's
// own network, what is to be done before.
func Inside() bool { return os.Getenv(insideEnv) != "" }

func rerun() (status int, err error) {
	if err := removeStaleCgroups(); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	// Pdeathsig counts from the death of the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	group := cgroupOf(os.Getpid())
	cmd := exec.Command("bash", append([]string{"-c", enter, "enter.sh", self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), insideEnv+"="+group)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWNET | unix.CLONE_NEWPID,
		Unshareflags: unix.CLONE_NEWNS, // makes all mounts private as well
		Pdeathsig:    unix.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for range signals {
			_ = cmd.Process.Kill() // an init takes no other signal, and everything inside ends with it
		}
	}()
	err = cmd.Wait()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		return 0, err
	}
	if status = cmd.ProcessState.ExitCode(); status < 0 {
		fmt.Fprintln(os.Stderr, "node:", cmd.ProcessState)
		status = 2
	}
	return status, removeCgroups(group)
}

package node

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// Reboot does to the node what a reset button does: kubelet, containerd and all processes of pods are gone at once, and
// with them every network namespace, interface, rule and mount, and /run. The boot ID is another one; what was on disk is
// still there. Then containerd and the kubelet are started again. The control plane only sees a node that does not answer
// for a while.
//
// With forget, what containerd has kept on disk is gone, with the results that it has cached, as where nodes have a disk for
// it that is not kept: no runtime will ever call for the pods that were.
func (n *Node) Reboot(forget bool) {
	n.t.Helper()
	n.stopKubelet(unix.SIGKILL)
	n.stopContainerd(unix.SIGKILL)
	for _, lose := range []func() error{n.losePods, n.loseMounts, n.loseNetwork} {
		if err := lose(); err != nil {
			n.t.Fatal(err)
		}
	}
	random, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		n.t.Fatal(err)
	}
	n.write("/mnt/boot_id", string(random))
	if forget {
		err := errors.Join(unix.Unmount("/var/lib/containerd", 0), unix.Mount("tmpfs", "/var/lib/containerd", "tmpfs", 0, ""),
			os.RemoveAll("/var/lib/cni/results"))
		if err != nil {
			n.t.Fatal(err)
		}
	}
	n.StartContainerd()
	if forget {
		for _, archive := range n.images {
			n.load(archive)
		}
	}
	n.StartKubelet()
}

// losePods kills whatever is not the test, its init, or the control plane, which are the test's children, and makes new
// control groups.
func (n *Node) losePods() error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		others, err := otherProcesses()
		if err != nil || len(others) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v do not end", others)
		}
		for _, pid := range others {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended
		}
	}
	group := os.Getenv(insideEnv)
	return errors.Join(removeCgroups(group), makeCgroups(group))
}

func otherProcesses() (pids []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // has ended meanwhile
		}
		// pid (command) state ppid ..., and the command may hold any character.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		if parent := fields[1]; fields[0] != "Z" && pid != 1 && pid != os.Getpid() && parent != strconv.Itoa(os.Getpid()) {
			pids = append(pids, pid)
		}
	}
	return pids, err
}

// loseMounts ends the mounts below what pods and containerd use, and all of /run.
func (n *Node) loseMounts() error {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer mounts.Close()
	var points []string
	for lines := bufio.NewScanner(mounts); lines.Scan(); {
		point := strings.Fields(lines.Text())[4]
		for _, lost := range []string{"/run", "/var/lib/kubelet/", "/var/lib/containerd/"} {
			if strings.HasPrefix(point, lost) {
				points = append(points, point)
			}
		}
	}
	for _, point := range slices.Backward(points) {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return errors.Join(unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"), os.MkdirAll("/run/lock", 0o755))
}

// loseNetwork removes the node's interfaces and rules, but those that Start has made.
func (n *Node) loseNetwork() error {
	host := nettest.Node(n.t).Handle()
	links, err := host.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		if keep := []string{"lo", uplink, NIC}; slices.Contains(keep, link.Attrs().Name) {
			continue
		}
		// The other end of a veth pair has gone with its peer.
		if err := host.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete %s: %w", link.Attrs().Name, err)
		}
	}
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		return fmt.Errorf("nft flush ruleset: %w: %s", err, out)
	}
	return nil
}

package nettest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// LeakCheck fails the test if it leaves behind what was not there when LeakCheck was called: links of the namespace of
// the process, mounted network namespaces, child processes, netlink sockets and namespace descriptors of this
// process, and files in the given folders. Call it first, so that it looks after all other cleanups, and not in
// parallel tests, which would see each other's.
func LeakCheck(t testing.TB, dirs ...string) {
	t.Helper()
	// The kernel takes a moment to tear down a namespace, and the veth ends in others that go with it.
	leakCheck(t, 5*time.Second, dirs)
}

func leakCheck(t testing.TB, patience time.Duration, dirs []string) {
	t.Helper()
	NeedRoot(t)
	before := inventory(t, dirs)
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			left = inventory(t, dirs)
			left = slices.DeleteFunc(left, func(thing string) bool { return slices.Contains(before, thing) })
			if len(left) == 0 || time.Now().After(deadline) {
				break
			}
		}
		for _, thing := range left {
			t.Errorf("left behind: %s", thing)
		}
	})
}

func inventory(t testing.TB, dirs []string) (things []string) {
	t.Helper()
	for _, list := range []func() ([]string, error){links, namespaces, children, descriptors} {
		found, err := list()
		if err != nil {
			t.Fatalf("look for leaks: %v", err)
		}
		things = append(things, found...)
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && path != dir {
				things = append(things, "file "+path)
			}
			if os.IsNotExist(err) {
				return nil
			}
			return err
		})
		if err != nil {
			t.Fatalf("look for leaks: %v", err)
		}
	}
	return things
}

func links() (found []string, err error) {
	list, err := netlink.LinkList()
	for _, l := range list {
		found = append(found, fmt.Sprintf("link %s %s (index %d)", l.Type(), l.Attrs().Name, l.Attrs().Index))
	}
	return found, err
}

func namespaces() (found []string, err error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[3], "net:[") {
			found = append(found, "namespace "+fields[3]+" mounted on "+fields[4])
		}
	}
	return found, err
}

func children() (found []string, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	parent := fmt.Sprint(os.Getpid())
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // has ended meanwhile
		}
		// pid (command) state ppid ..., and the command may hold any character.
		end := strings.LastIndexByte(string(stat), ')')
		if rest := strings.Fields(string(stat[end+1:])); rest[1] == parent {
			found = append(found, "process "+string(stat[:end+1]))
		}
	}
	return found, err
}

func descriptors() (found []string, err error) {
	fds, err := os.ReadDir("/proc/self/fd")
	for _, entry := range fds {
		path := filepath.Join("/proc/self/fd", entry.Name())
		target, err := os.Readlink(path)
		if err != nil {
			continue // the descriptor of this very listing
		}
		var fd int
		if _, err := fmt.Sscan(entry.Name(), &fd); err != nil {
			return nil, err
		}
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if strings.HasPrefix(target, "net:[") || err == nil && domain == unix.AF_NETLINK {
			found = append(found, fmt.Sprintf("descriptor %d of %s", fd, target))
		}
	}
	return found, err
}

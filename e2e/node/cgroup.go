package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Control groups are the machine's. Each node has a root of its own in every hierarchy: two kubelets with the same one
// would end each other's pods.

const cgroupRoot = "/sys/fs/cgroup"

// cgroupOf returns the name of the control groups of the node whose outer process has the ID.
func cgroupOf(pid int) string { return fmt.Sprintf("braid-node-%d", pid) }

func makeCgroups(name string) error {
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() {
			continue // a second name of a hierarchy
		}
		hierarchy := filepath.Join(cgroupRoot, entry.Name())
		group := filepath.Join(hierarchy, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			return fmt.Errorf("the node needs cgroup v1, a folder per controller: %w", err)
		}
		// No process can be in a cpuset without these, and they are not inherited.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			value, err := os.ReadFile(filepath.Join(hierarchy, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(group, file), value, 0)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// removeCgroups removes the groups of that name, which no process is in any more.
func removeCgroups(name string) error {
	var errs []error
	roots, err := filepath.Glob(filepath.Join(cgroupRoot, "*", name))
	if err != nil {
		return err
	}
	for _, root := range roots {
		errs = append(errs, removeTree(root))
	}
	return errors.Join(errs...)
}

// removeTree removes groups, the deepest first. Their files go with them. The last process of a group may be gone a moment
// before the group is free.
func removeTree(root string) (err error) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = removeTreeOnce(root); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return err
}

func removeTreeOnce(root string) error {
	var groups []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	errs := []error{err}
	for _, group := range slices.Backward(groups) {
		errs = append(errs, os.Remove(group))
	}
	return errors.Join(errs...)
}

// removeStaleCgroups removes those of nodes that were killed together with the process outside.
func removeStaleCgroups() error {
	groups, err := filepath.Glob(filepath.Join(cgroupRoot, "*", "braid-node-*"))
	if err != nil {
		return err
	}
	for _, group := range groups {
		_, pid, _ := strings.Cut(filepath.Base(group), "braid-node-")
		if _, err := os.Stat(filepath.Join("/proc", pid)); errors.Is(err, fs.ErrNotExist) {
			if err := removeTree(group); err != nil {
				return err
			}
		}
	}
	return nil
}

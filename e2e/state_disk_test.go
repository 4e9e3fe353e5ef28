package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// mountState puts what Braid keeps, and the reservations, on a file system of their own.
func (n *node) mountState(options string) (remount func(flags uintptr, options string)) {
	n.t.Helper()
	mount := func(flags uintptr, options string) {
		n.t.Helper()
		for _, dir := range []string{"braid", "ipam"} {
			path := filepath.Join(n.dir, dir)
			if err := errors.Join(os.MkdirAll(path, 0o700), unix.Mount("tmpfs", path, "tmpfs", flags, options)); err != nil {
				n.t.Fatalf("mount %s: %v", path, err)
			}
		}
	}
	mount(0, options)
	n.t.Cleanup(func() {
		for _, dir := range []string{"braid", "ipam"} {
			if err := unix.Unmount(filepath.Join(n.dir, dir), unix.MNT_DETACH); err != nil {
				n.t.Error(err)
			}
		}
	})
	return func(flags uintptr, options string) { mount(flags|unix.MS_REMOUNT, options) }
}

// fill uses up what a folder's disk has, to the last byte or inode, and returns how to give it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	own := filepath.Join(dir, "fill")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		path := filepath.Join(own, fmt.Sprint(i))
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); errors.Is(err, unix.ENOSPC) {
			if st, statErr := os.Stat(path); statErr == nil && st.Size() == 0 && i == 0 {
				t.Fatal("nothing to fill")
			}
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.RemoveAll(own); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskThatCannotBeWritten: STATUS says which folder it is, CHECK works, an ADD fails having made nothing, and what a DEL
// could not do for it the next one does.
func TestDiskThatCannotBeWritten(t *testing.T) {
	for _, tt := range []struct {
		name, options, complaint string
		break_                   func(*testing.T, *node, func(uintptr, string)) (mend func())
		deletes                  bool // DEL works all the same
	}{
		{"read-only", "", "read-only file system", func(t *testing.T, _ *node, remount func(uintptr, string)) func() {
			remount(unix.MS_RDONLY, "")
			return func() { remount(0, "") }
		}, false},
		{"full", "size=256k", "no space left on device", func(t *testing.T, n *node, _ func(uintptr, string)) func() {
			braid, ipam := fill(t, filepath.Join(n.dir, "braid")), fill(t, filepath.Join(n.dir, "ipam"))
			return func() { braid(); ipam() }
		}, true},
		{"without inodes", "nr_inodes=40", "no space left on device", func(t *testing.T, n *node, _ func(uintptr, string)) func() {
			braid, ipam := fill(t, filepath.Join(n.dir, "braid")), fill(t, filepath.Join(n.dir, "ipam"))
			return func() { braid(); ipam() }
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newSweptNode(t)
			remount := n.mountState(tt.options)
			web, db := n.pod("web", "storage,lan"), n.pod("db", "storage,lan")
			web.mustAdd()
			status := func() error { return web.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")) }
			if err := status(); err != nil {
				t.Fatalf("STATUS: %v", err)
			}
			before := n.state()
			mend := tt.break_(t, n, remount)
			wantError(t, "STATUS", status(), tt.complaint, filepath.Join(n.dir, "braid"))
			_, err := db.add()
			wantError(t, "ADD", err, tt.complaint)
			if links := db.ns.Links(t); len(links) > 0 {
				t.Errorf("the failed ADD left %q", links)
			}
			if err := web.check(); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if !tt.deletes {
				wantError(t, "DEL", web.del(), tt.complaint)
				nettest.Reach(t, web.ns, n.ns, "10.244.0.1") // nothing has been taken from the pod
			}
			mend()
			if after := n.state(); after != before {
				t.Errorf("the node (-before +after):\n%s", cmp.Diff(before, after))
			}
			mend = tt.break_(t, n, remount)
			if tt.deletes {
				web.mustDel()
			}
			mend()
			if err := status(); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			web.mustDel()
			db.mustAdd()
			if err := db.check(); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			db.mustDel()
			n.left()
		})
	}
}

// TestReservationsThatCannotBeWritten: only they are on such a disk.
func TestReservationsThatCannotBeWritten(t *testing.T) {
	n := newSweptNode(t)
	n.mountState("")
	web := n.pod("web", "")
	web.mustAdd()
	ipam := filepath.Join(n.dir, "ipam")
	if err := unix.Mount("", ipam, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	wantError(t, "STATUS", web.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")), "the folder of reservations", "read-only file system")
	if err := web.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	_, err := n.pod("db", "").add()
	wantError(t, "ADD", err, "read-only file system")
	// DEL does what it can, and says what it could not do; the record knows.
	wantError(t, "DEL", web.del(), "read-only file system")
	if links := web.ns.Links(t); len(links) > 0 {
		t.Errorf("left: %q", links)
	}
	if left := n.has("10.244.0.2"); len(left) != 1 {
		t.Errorf("found %q, want the reservation only", left)
	}
	if err := unix.Mount("", ipam, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	web.mustDel()
	db := n.pod("db", "")
	if err := db.del(); err != nil {
		t.Errorf("DEL: %v", err)
	}
	n.left()
}

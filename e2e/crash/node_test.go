//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// complains returns an error unless there is one that tells what it should.
func complains(err error, what string) error {
	if err == nil || !strings.Contains(err.Error(), what) {
		return fmt.Errorf("found %v, want an error that tells %q", err, what)
	}
	return nil
}

// TestCardVanishes: CHECK tells it, DEL works without, and ADD works again when there is a card of that name.
func TestCardVanishes(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		p := w.pod()
		p.mustAdd()
		w.must(w.node.Handle().LinkDel(w.node.Link(t, w.nic.Name)))
		for _, o := range []*pod{w.witness, p} {
			if err := complains(o.check(), "net2"); err != nil {
				t.Errorf("CHECK without the card: %v", err)
			}
			if err := o.del(); err != nil {
				t.Errorf("DEL without the card: %v", err)
			}
			if left := o.inside(); len(left) > 0 {
				t.Errorf("left in the pod: %q", left)
			}
		}
		if err := complains(p.add(), "master: no such parent interface: "+w.nic.Name); err != nil {
			t.Errorf("ADD without the card: %v", err)
		}
		w.empty()

		w.stopServer()
		lan, err := os.Open(w.nic.LAN.Path())
		w.must(err)
		defer lan.Close()
		cable := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: w.nic.Port, PeerNamespace: netlink.NsFd(lan.Fd())}
		cable.Name = w.nic.Name
		w.must(w.node.Handle().LinkAdd(cable))
		w.must(errors.Join(w.node.Handle().LinkSetUp(cable), w.nic.LAN.Handle().LinkSetUp(w.nic.LAN.Link(t, w.nic.Port))))
		w.plugIn()
		w.stopServer = w.dnsmasq()
		p.mustAdd()
		w.must(p.check())
		w.must(p.del())
		w.empty()
	})
}

// TestBridgeVanishes: CHECK tells it, DEL works without, and another pod's ADD makes it anew.
func TestBridgeVanishes(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		w.must(w.node.Handle().LinkDel(w.node.Link(t, "cluster0")))
		if err := complains(w.witness.check(), "cluster0"); err != nil {
			t.Errorf("CHECK without the bridge: %v", err)
		}
		p := w.pod()
		p.mustAdd()
		w.must(p.check())
		p.distinct(w.witness)
		if err := complains(w.witness.check(), "cluster0"); err != nil {
			t.Errorf("CHECK, with another bridge of the name: %v", err)
		}
		w.must(errors.Join(w.witness.del(), w.witness.add(), w.witness.check()))
		p.distinct(w.witness)
		w.must(errors.Join(p.del(), w.witness.del()))
		w.empty()
	})
}

// TestReadOnlyDisk: nothing is made that could not be noted, nothing that is there is forgotten.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		for _, dir := range []string{"braid", "ipam"} {
			path := filepath.Join(w.dir, dir)
			w.must(os.MkdirAll(path, 0o755))
			w.must(unix.Mount("tmpfs", path, "tmpfs", 0, ""))
			defer func() { w.must(unix.Unmount(path, unix.MNT_DETACH)) }()
		}
		remount := func(flags uintptr) {
			for _, dir := range []string{"braid", "ipam"} {
				w.must(unix.Mount("", filepath.Join(w.dir, dir), "", unix.MS_REMOUNT|flags, ""))
			}
		}
		w.settle()
		p, o := w.pod(), w.pod()
		p.mustAdd()
		before := w.state()
		remount(unix.MS_RDONLY)
		for verb, err := range map[string]error{"ADD": o.add(), "DEL": p.del(), "GC": w.gc(), "sweep": w.sweep()} {
			if verb == "sweep" && err == nil {
				continue // there is nothing to be swept
			}
			if err := complains(err, "read-only file system"); err != nil {
				t.Errorf("%s: %v", verb, err)
			}
		}
		if complaint := w.wrong(before); complaint != "" {
			t.Error(complaint)
		}
		remount(0)
		w.must(errors.Join(p.check(), p.del(), o.add(), o.check(), o.del()))
		w.clean(p, "a disk that was read-only", false)
		w.end()
	})
}

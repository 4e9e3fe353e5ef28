package macvlan_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

const quick = `"master": "NIC", "probe": {"count": 2, "interval": "100ms"}, `

// pool has 192.0.2.1 and .2 of IPv4, and ::1 to ::ffff of IPv6; the LAN of a world has the first one of each.
func pool(t *testing.T) (ipam, dir string) {
	dir = t.TempDir()
	return fmt.Sprintf(`"ipam": {"type": "host-local", "dataDir": %q, "ranges": [
		[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.1", "rangeEnd": "192.0.2.2", "gateway": "192.0.2.254"}],
		[{"subnet": "2001:db8::/64", "gateway": "2001:db8::fe"}]]}`, dir), dir
}

// awake returns when the kernel of the LAN answers, which it does not for IPv6 addresses of a link that is new.
func (w *world) awake() {
	w.Helper()
	w.node.Address(w, w.nic.Name, "2001:db8::aaaa/64")
	nettest.Reach(w, w.node, w.nic.LAN, "2001:db8::1")
}

func TestProbeTakesNextAddress(t *testing.T) {
	ipam, _ := pool(t)
	w := newWorld(t, quick+ipam)
	w.awake()
	var notices []string
	ctx := cni.WithNotices(t.Context(), func(n string) { notices = append(notices, n) })
	res, err := w.plugin.Add(ctx, w.req)
	must(t, err)
	if got := fmt.Sprint(res.IPs[0].Address.String(), " ", res.IPs[1].Address.String()); got != "192.0.2.2/24 2001:db8::2/64" {
		t.Errorf("the pod has %s", got)
	}
	mac := w.nic.LAN.Link(t, w.nic.Port).Attrs().HardwareAddr.String()
	if want := "address 192.0.2.1 is in use by " + mac; len(notices) == 0 || !strings.Contains(notices[0], want) {
		t.Errorf("the conflict is told as %q, want %q", notices, want)
	}
	nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
	nettest.Reach(t, w.pod, w.nic.LAN, "2001:db8::1")
	must(t, w.check(res))
	must(t, w.plugin.Del(t.Context(), w.later(res)))
}

func TestProbeFindsFixedAddressTaken(t *testing.T) {
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		t.Run(address, func(t *testing.T) {
			w := newWorld(t, quick+fixed(address+"/24"))
			w.awake()
			mac := w.nic.LAN.Link(t, w.nic.Port).Attrs().HardwareAddr.String()
			w.refused(types.ErrTryAgainLater, "address "+address+" is in use by "+mac)
		})
	}
}

// The node cannot answer: its kernel lets no packets pass between the parent and the pod.
func TestProbeFindsAddressOfNode(t *testing.T) {
	for _, address := range []string{"192.0.2.9/24", "2001:db8::9/64"} {
		t.Run(address, func(t *testing.T) {
			w := newWorld(t, quick+fixed(address))
			w.node.Address(t, w.nic.Name, address)
			mac := w.node.Link(t, w.nic.Name).Attrs().HardwareAddr.String()
			addr, _, _ := strings.Cut(address, "/")
			w.refused(types.ErrTryAgainLater, "address "+addr+" is in use by "+mac)
		})
	}
}

func TestProbeFindsPoolTaken(t *testing.T) {
	ipam, dir := pool(t)
	w := newWorld(t, quick+ipam)
	w.nic.LAN.Address(t, w.nic.Port, "192.0.2.2/24")
	mac := w.nic.LAN.Link(t, w.nic.Port).Attrs().HardwareAddr.String()
	w.refused(types.ErrTryAgainLater, "address 192.0.2.2 is in use by "+mac)
	if err := reserved(dir); err != nil {
		t.Error(err)
	}
}

func TestProbeEndsWithContext(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "probe": {"count": 10, "interval": "2s"}, `+fixed("192.0.2.7/24"))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := w.plugin.Add(ctx, w.req)
	w.isError(err, 0, "deadline exceeded")
	if links := w.pod.Links(t); len(links) != 0 {
		t.Errorf("ADD that failed left %v", links)
	}
}

// probesHeard counts ARP probes and solicitations of duplicate address detection that arrive at the LAN during ADD.
func (w *world) probesHeard() (n int) {
	w.Helper()
	var fd int
	var err error
	w.nic.LAN.Do(w, func() {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(0x0300)) // all, in network byte order
	})
	must(w.T, err)
	defer unix.Close(fd)
	w.add()
	frame := make([]byte, 2048)
	for {
		size, _, err := unix.Recvfrom(fd, frame, 0)
		if err != nil {
			return n
		}
		f := frame[:size]
		arp := size >= 42 && f[12] == 8 && f[13] == 6 && string(f[28:32]) == "\x00\x00\x00\x00"
		dad := size >= 78 && f[12] == 0x86 && f[20] == 58 && f[54] == 135 && f[62] == 0x20 && string(f[22:38]) == strings.Repeat("\x00", 16)
		if arp || dad {
			n++
		}
	}
}

func TestProbePackets(t *testing.T) {
	addresses := fixed("192.0.2.7/24", "2001:db8::7/64")
	for keys, want := range map[string]int{
		`"probe": {"count": 2, "interval": "20ms"}, `: 4, // two of each, and no other detection
		`"probe": false, "enabledad": false, `:        0,
		`"enabledad": false, `:                        0,
	} {
		if n := newWorld(t, `"master": "NIC", `+keys+addresses).probesHeard(); n != want {
			t.Errorf("%s sends %d probes, want %d", keys, n, want)
		}
	}
}

func TestProbeKey(t *testing.T) {
	newWorld(t, `"master": "NIC", "probe": {"count": 99}`).refused(types.ErrInvalidNetworkConfig, "probe.count: found 99, want 1 to 10")
	newWorld(t, `"master": "NIC", "probe": "yes"`).refused(types.ErrInvalidNetworkConfig, "probe: want true, false, or an object")
}

// reserved returns an error about addresses that are reserved.
func reserved(dir string) (err error) {
	files, _ := filepath.Glob(dir + "/lan/*[0-9]*.*[0-9]*.*")
	for _, f := range files {
		if net.ParseIP(filepath.Base(f)) != nil {
			err = errors.Join(err, fmt.Errorf("%s is still reserved", filepath.Base(f)))
		}
	}
	return err
}

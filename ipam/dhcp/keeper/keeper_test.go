package keeper

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// Package dhcp tests the keeper as plugins see it. Here is what they cannot see.

func newKeeper(t *testing.T) *Keeper {
	t.Helper()
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	k, err := New(Options{Socket: filepath.Join(dir, "s"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return k
}

func TestSweep(t *testing.T) {
	k := newKeeper(t)
	path := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	there := lease.Interface{Netns: path, Device: st.Dev, Inode: st.Ino}
	for name, iface := range map[string]lease.Interface{
		"there":   there,
		"gone":    {Netns: path + "x"},
		"another": {Netns: path, Device: st.Dev, Inode: st.Ino + 1},
	} {
		if _, _, err := k.attach(&lease.Spec{Key: lease.Key{ContainerID: name}}, iface); err != nil {
			t.Fatal(err)
		}
	}
	k.endVanished()
	for key, a := range k.attachments {
		if vanished := errors.Is(context.Cause(a.ctx), errVanished); vanished != (key.ContainerID != "there") {
			t.Errorf("the attachment whose namespace is %s: %v", key.ContainerID, context.Cause(a.ctx))
		}
	}
	clear(k.attachments)
}

func TestPanic(t *testing.T) {
	k := newKeeper(t)
	a := k.newAttachment(&lease.Spec{IPv4: true}, lease.Interface{})
	err := (&binding{a: a, client: nil, in: &a.record.IPv4}).acquire(context.Background(), k)
	if err == nil {
		t.Error("no error")
	}
}

// Whoever is not root gets no answer, even if the mode of the socket is wrong.
func TestOnlyRoot(t *testing.T) {
	k := newKeeper(t)
	for _, path := range []string{k.Socket, filepath.Dir(k.Socket)} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for uid, answered := range map[int]bool{0: true, 65534: false} {
		conn := dialAs(t, uid, k.Socket)
		_, _ = conn.Write([]byte(`{"version":1,"verb":"STATUS"}`))
		_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
		answer, _ := io.ReadAll(conn)
		if len(answer) > 0 != answered {
			t.Errorf("user %d gets the answer %q", uid, answer)
		}
		_ = conn.Close()
	}
}

// dialAs connects on a thread that has another user.
func dialAs(t *testing.T, uid int, socket string) net.Conn {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	setUser(t, uid)
	defer setUser(t, 0)
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// setUser is unix.Setresuid for this thread alone.
func setUser(t *testing.T, uid int) {
	t.Helper()
	const same = ^uintptr(0)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, same, uintptr(uid), same); errno != 0 {
		t.Fatal(errno)
	}
}

func TestValidate(t *testing.T) {
	good := lease.Spec{Key: lease.Key{ContainerID: "c", Network: "n", IfName: "i"}, Netns: "/ns", IPv4: true}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*lease.Spec){
		"no container":   func(s *lease.Spec) { s.ContainerID = "" },
		"relative path":  func(s *lease.Spec) { s.Netns = "ns" },
		"nothing wanted": func(s *lease.Spec) { s.IPv4 = false },
		"long name":      func(s *lease.Spec) { s.Network = string(make([]byte, 5000)) },
		"long option":    func(s *lease.Spec) { s.Provide = []lease.Option{{Code: 12, Value: make([]byte, 256)}} },
		"many options":   func(s *lease.Spec) { s.Provide = make([]lease.Option, 65) },
		"many requests":  func(s *lease.Spec) { s.Request = make([]uint8, 256) },
	} {
		spec := good
		if spoil(&spec); spec.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

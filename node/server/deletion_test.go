package server_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/resolve"
)

// veths makes interfaces net0, net1, … in a namespace.
func veths(t testing.TB, ns *nettest.NS, n int) {
	t.Helper()
	for i := range n {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprint("net", i)
		if err := ns.Handle().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("far", i)}); err != nil {
			t.Fatal(err)
		}
	}
}

// deleteAll deletes the interfaces of a namespace by way of a daemon, and returns how long it took until they were gone.
func deleteAll(t testing.TB, path, socket string) time.Duration {
	ns, err := netdev.Open(path)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer ns.Close()
	begin := time.Now()
	finish, err := ns.DeleteLinks(func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "net") },
		func(netlink int, group uint32) (int, error) {
			return resolve.DeleteLinks(socket, netlink, resolve.Deletion{Group: group})
		})
	took := time.Since(begin)
	if err != nil {
		t.Error(err)
	}
	if names, err := ns.Names(); err != nil || !slices.Equal(names, []string{"lo"}) {
		t.Errorf("interfaces that are left: %q, %v", names, err)
	}
	if err := finish(); err != nil {
		t.Error(err)
	}
	return took
}

// sound is a log in which an error, such as a panic, fails the test.
func sound(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if level, ok := a.Value.Any().(slog.Level); ok && level >= slog.LevelError {
			t.Errorf("an error is logged")
		}
		return a
	}}))
}

// descriptors counts those of this process, which is plugin and daemon.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDeleteLinks(t *testing.T) {
	ns := nettest.NewNS(t)
	served := make(chan server.Request, 100)
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), Log: sound(t), Served: func(r server.Request) { served <- r }}
	serving(t, o)
	deleteAll(t, ns.Path(), o.Socket) // none
	before := descriptors(t)
	for range 20 {
		veths(t, ns, 3)
		took := deleteAll(t, ns.Path(), o.Socket)
		r := <-served
		if r.Verb != server.DeleteLinks || r.Outcome != resolve.Success {
			t.Errorf("served %+v", r)
		}
		t.Logf("gone after %s, the daemon is done after %s", took, r.Took)
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
}

// Many at once are done whatever the bound is: who is refused waits for the kernel itself.
func TestManyDeletions(t *testing.T) {
	var mu sync.Mutex
	outcomes := map[string]int{}
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), Log: sound(t), MaxDeletions: 2, Served: func(r server.Request) {
		mu.Lock()
		defer mu.Unlock()
		outcomes[r.Outcome]++
	}}
	serving(t, o)
	before := descriptors(t)
	const pods = 30
	var all []*nettest.NS
	for range pods {
		ns := nettest.NewNS(t)
		veths(t, ns, 2)
		all = append(all, ns)
	}
	var wg sync.WaitGroup
	for _, ns := range all {
		wg.Go(func() { deleteAll(t, ns.Path(), o.Socket) })
	}
	wg.Wait()
	count := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		return outcomes[resolve.Success] + outcomes[resolve.Unavailable]
	}
	eventually(t, "all requests are served", func() bool { return count() == pods })
	if outcomes[resolve.Success] == 0 || outcomes[resolve.Unavailable] == 0 {
		t.Errorf("outcomes: %v, want some of both", outcomes)
	}
	for _, ns := range all {
		ns.Remove(t)
	}
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
}

// send sends a line with descriptors.
func send(t testing.TB, conn *net.UnixConn, line string, descriptors ...int) {
	t.Helper()
	if _, _, err := conn.WriteMsgUnix([]byte(line+"\n"), unix.UnixRights(descriptors...), nil); err != nil {
		t.Fatal(err)
	}
}

// Whatever a client sends, it learns what is wrong, and the daemon keeps no descriptor.
func TestDeletionsThatAreNone(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), Log: sound(t)}
	serving(t, o)
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null := int(file.Fd())
	before := descriptors(t)
	const ask = `{"deleteLinks":{"group":1651663209}}`
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: o.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	for _, tt := range []struct {
		line        string
		descriptors []int
		want        string
	}{
		{ask, nil, "no descriptor came with it"},
		{ask, []int{null}, "socket operation on non-socket"},
		{ask, nil, "no descriptor came with it"}, // the one before is gone
		{`{"deleteLinks":{}}`, []int{null}, "group: found 0, want 1651663209"},
		{`{"deleteLinks":{"group":-1}}`, []int{null}, "decode request"},
		{`{"resolve":{"pod":{"name":"web"}}}`, []int{null}, `"name":"web"`},
		{ask, slices.Repeat([]int{null}, 200), "socket operation on non-socket"},
		{`{"resolve":{"pod":{"name":"web"}}}`, slices.Repeat([]int{null}, 200), `"name":"web"`},
		{"garbage", []int{null}, "decode request"},
	} {
		send(t, conn, tt.line, tt.descriptors...)
		if line, err := answers.ReadString('\n'); err != nil || !strings.Contains(line, tt.want) {
			t.Errorf("%s: found %q, %v, want %q", tt.line, line, err, tt.want)
		}
		if n := descriptors(t); n > before+3 { // both ends, and the one that the connection keeps
			t.Errorf("%s: %d descriptors, %d before", tt.line, n, before)
		}
	}
	send(t, conn, `{"resolve":`, null) // in part
	conn.Close()
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
}

// An older daemon, one that says something else, and one that hangs up: the plugin does it itself.
func TestDeletionByOtherDaemons(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"older": func(c net.Conn) {
			if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				fmt.Fprintf(c, "{\"error\":{\"reason\":\"Invalid\",\"message\":%q}}\n", "decode request: found "+line)
			}
		},
		"hangs up":        func(net.Conn) {},
		"garbage":         func(c net.Conn) { fmt.Fprintln(c, "Hello, world") },
		"takes its time":  func(net.Conn) { time.Sleep(time.Second) },
		"has no deletion": func(c net.Conn) { _ = resolve.Serve(t.Context(), c, c, newFake(), resolve.Also{}) },
	} {
		t.Run(name, func(t *testing.T) {
			ns := nettest.NewNS(t)
			veths(t, ns, 2)
			socket := t.TempDir() + "/s"
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if c, err := l.Accept(); err == nil {
					serve(c)
					c.Close()
				}
			})
			deleteAll(t, ns.Path(), socket)
			l.Close()
			wg.Wait()
		})
	}
	t.Run("nobody accepts", func(t *testing.T) {
		ns := nettest.NewNS(t)
		socket := t.TempDir() + "/s"
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Listen(fd, 0); err != nil {
			t.Fatal(err)
		}
		for range 3 { // beyond the backlog
			veths(t, ns, 2)
			deleteAll(t, ns.Path(), socket)
		}
	})
}

// A daemon is killed while it is asked, again and again.
func TestDeletionAndKilledDaemon(t *testing.T) {
	ns := nettest.NewNS(t)
	socket := socketPath(t)
	for i := range 8 {
		daemon := child(t, socket)
		veths(t, ns, 2)
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 300 * time.Microsecond)
			_ = daemon.Process.Kill()
		})
		deleteAll(t, ns.Path(), socket)
		wg.Wait()
		_ = daemon.Wait()
	}
}

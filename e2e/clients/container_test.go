package clients

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// programsEnv names the folder that the script setup prints.
const programsEnv = "BRAID_CLIENTS"

// program returns the path of a program of setup's folder.
func program(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(programsEnv)
	switch {
	case dir != "":
		return filepath.Join(dir, name)
	case os.Getenv("CI") == "true" || os.Getenv("BRAID_TEST_FULL") == "1":
		t.Fatalf("%s is not set: it names the folder that the script setup prints", programsEnv)
	default:
		t.Skipf("%s is not set: it names the folder that the script setup prints", programsEnv)
	}
	return ""
}

// rootfs makes the root folder of a container: busybox, by the names of a few of its applets.
func (n *node) rootfs() string {
	n.t.Helper()
	root := filepath.Join(n.dir, "rootfs")
	for _, dir := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := copyFile(filepath.Dir(program(n.t, "busybox")), filepath.Join(root, "bin"), "busybox"); err != nil {
		n.t.Fatal(err)
	}
	for _, applet := range []string{"cat", "ip", "ping", "sh", "sleep"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			n.t.Fatal(err)
		}
	}
	return root
}

// An engine is a command that runs containers, in the way of docker.
type engine struct {
	*node
	name string
	args []string // that every call has
	env  []string
	root string
}

// try returns what the engine prints.
func (e *engine) try(args ...string) (string, error) {
	e.t.Helper()
	cmd := exec.Command(e.args[0], append(e.args[1:], args...)...)
	cmd.Env = append(os.Environ(), e.env...)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (e *engine) must(args ...string) string {
	e.t.Helper()
	out, err := e.try(args...)
	if err != nil {
		e.t.Fatalf("%s %s: %v: %s", e.name, strings.Join(args, " "), err, out)
	}
	return out
}

// reapOrphans waits for processes whose parents have ended. What does not end is left for the leak check. The engine has to be
// at rest.
func reapOrphans() {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

// run starts a container that waits.
func (e *engine) run(name string, options ...string) {
	e.t.Helper()
	args := append([]string{"run", "-d", "--name", name, "--cap-add", "NET_RAW"}, options...)
	e.must(append(args, "--rootfs", e.root, "sleep", "1000")...)
}

// output returns what a command in a running container prints, which must be something: nerdctl was seen to lose the output of a
// command that ends at once, on a busy machine.
func (e *engine) output(name string, args ...string) string {
	e.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		out := e.must(append([]string{"exec", name}, args...)...)
		if out != "" {
			return out
		}
		e.t.Logf("%s exec %s %q printed nothing", e.name, name, args)
		if time.Now().After(deadline) {
			e.t.Fatalf("%s exec %s %q prints nothing", e.name, name, args)
		}
	}
}

// addresses returns the IPv4 addresses of a running container by interface, as it sees them.
func (e *engine) addresses(name string) map[string]string {
	e.t.Helper()
	return parseAddresses(e.output(name, "ip", "-4", "-o", "addr", "show"))
}

func parseAddresses(out string) map[string]string {
	found := make(map[string]string)
	for line := range strings.Lines(out) {
		// "2: eth0    inet 10.244.0.2/24 brd ..."
		if fields := strings.Fields(line); len(fields) > 3 && fields[2] == "inet" && fields[1] != "lo" {
			found[fields[1]], _, _ = strings.Cut(fields[3], "/")
		}
	}
	return found
}

// wantLinks compares the interfaces of a running container.
func (e *engine) wantLinks(name, links string) {
	e.t.Helper()
	found := e.addresses(name)
	for _, link := range strings.Fields(links) {
		if found[link] == "" {
			e.t.Errorf("container %s has no address on %s: %v", name, link, found)
		}
	}
	if len(found) != len(strings.Fields(links)) {
		e.t.Errorf("addresses of container %s: %v, want those of %s", name, found, links)
	}
}

// wantPing fails the test unless one container gets an answer from an interface of another. The first packets may be lost:
// the kernel is slow to notice the carrier of a link while the machine is busy.
func (e *engine) wantPing(from, to, link string) {
	e.t.Helper()
	address := e.addresses(to)[link]
	for deadline := time.Now().Add(30 * time.Second); ; {
		out, err := e.try("exec", from, "ping", "-c", "1", "-w", "1", address)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.t.Fatalf("%s of container %s does not answer container %s: %v: %s", link, to, from, err, out)
		}
	}
}

// wantNothingLeft looks at what is kept of networks, besides Braid's own: the cache of libcni.
func (e *engine) wantNothingLeft() {
	e.t.Helper()
	e.nothingLeft()
	cached, err := filepath.Glob("/var/lib/cni/results/*")
	if err != nil || len(cached) > 0 {
		e.t.Errorf("cache of libcni: %q, %v", cached, err)
	}
	links, err := e.ns.Handle().LinkList()
	if err != nil {
		e.t.Fatal(err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; l.Type() != "bridge" && name != "lo" && name != e.nic {
			e.t.Errorf("link left behind: %s %s", l.Type(), name)
		}
	}
}

// delegates is a network of two: with addresses from net and net+1 of 10.x.0.0/16.
func delegates(name, net1, net2 string) string {
	one := strings.NewReplacer("cluster0", name+"0", "cluster", name, "10.244.0", net1).Replace(cluster)
	two := strings.NewReplacer("storage0", name+"1", `"type": "bridge"`, `"name": "`+name+`-second", "type": "bridge"`,
		"10.10.0", net2, `, [{"subnet": "fd00:10::/64"}]`, "").Replace(storage)
	return `"delegates": [` + one + `, ` + two + `]`
}

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/e2e/figures"
)

const tier = "test"

// touched is every folder in which somebody could be led astray: that of the test, and those of plugins' defaults.
func (n *node) touched() []string {
	return []string{n.dir, "/etc/cni", "/run/cni", "/run/braid", "/var/lib/cni", "/var/run/k8s.cni.cncf.io"}
}

// files is what the file system has, but for Braid's own folder and those of reservations, which may come into being, empty of
// any: path to kind, mode, size and content.
func (n *node) files() map[string]string {
	n.t.Helper()
	found := map[string]string{}
	for _, root := range n.touched() {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil {
				return err
			}
			switch within, _ := filepath.Rel(n.dir, path); within {
			case "braid", "ipam":
				return fs.SkipDir // what is in there is looked at by left
			case "manifests", ".":
				return nil
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			content := ""
			if info.Mode().IsRegular() && info.Size() < 1<<20 {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				content = string(b)
			}
			if filepath.Dir(path) == filepath.Join(n.dir, "manifests") {
				return nil // the test writes there
			}
			found[path] = fmt.Sprint(info.Mode(), " ", len(content), " ", content)
			return nil
		})
		if err != nil {
			n.t.Fatal(err)
		}
	}
	return found
}

// reservations are the files of host-local.
func (n *node) reservations() (found []string) {
	found, err := filepath.Glob(filepath.Join(n.dir, "ipam", "*", "*"))
	if err != nil {
		n.t.Fatal(err)
	}
	return found
}

// A caller executes the binary as no sane runtime does: libcni would stop most of what is tried here.
type caller struct {
	*pod
	plugin string            // name of the binary
	env    map[string]string // changes
	config string
}

type failure struct {
	Code         uint
	Msg, Details string
}

// call returns nil if the call succeeds.
func (c *caller) call(command string) *failure {
	c.t.Helper()
	vars := map[string]string{
		"CNI_COMMAND": command, "CNI_CONTAINERID": "c-" + c.name, "CNI_NETNS": c.ns.Path(), "CNI_IFNAME": "eth0", "CNI_PATH": strings.Join(c.path, ":"),
		"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=" + c.name + ";K8S_POD_UID=uid-" + c.name,
	}
	cmd := exec.CommandContext(c.t.Context(), filepath.Join(c.path[0], c.plugin))
	for name, value := range vars {
		if change, ok := c.env[name]; ok {
			value = change
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.config), &stdout, &stderr
	if err := cmd.Run(); err == nil {
		return nil
	}
	f := new(failure)
	if err := json.Unmarshal(stdout.Bytes(), f); err != nil {
		c.t.Errorf("standard output %q, standard error %q: %v", stdout.String(), stderr.String(), err)
	}
	hurts := func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }
	if strings.ContainsFunc(f.Msg+f.Details+stderr.String(), hurts) || strings.Contains(stderr.String(), "goroutine ") || len(f.Msg) > 33<<10 {
		c.t.Errorf("%d bytes of message: %.500q; standard error %.500q", len(f.Msg), f.Msg, stderr.String())
	}
	return f
}

// entry is the configuration of braid as the binary reads it.
func (n *node) entry() string {
	n.t.Helper()
	list := n.network("1.1.0")
	b := list.Plugins[0].Bytes
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		n.t.Fatal(err)
	}
	doc["name"], doc["cniVersion"] = "pods", "1.1.0"
	b, err := json.Marshal(doc)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(b)
}

// hostileNames are those that a file system, a terminal or a person would take for something else.
var hostileNames = []string{
	"../../x", "..", ".", "/etc/passwd", "a/b", "a/../../b", `a\b`, "a:b", "a b", "a\nb", "a\x1b[2J", "a\x7f", "\u202eabc", "\u0430dmin", "\uff0fetc", "a\u200b",
	"\xff\xfe", "%d", "a%2fb", "-rf", "$(id)", "`id`", strings.Repeat("a", 300), strings.Repeat("../", 40) + "etc",
}

// TestHostileNames: whatever a container, an interface, a network or a pod is called, the call is refused with the code that CNI
// has for it, and nothing of the file system is touched but Braid's own folders.
func TestHostileNames(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(filepath.Join(n.dir, "x"), []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := n.pod("web", "")
	hostLocal := n.expand(`{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"br9","ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.9.0.0/24"}}`)
	before := n.files()
	tried := 0
	for _, name := range hostileNames {
		ofKernel := len(name) <= 15 && utf8.ValidString(name) && !strings.ContainsAny(name, "/: \n\x1b\x7f%") && name != "." && name != ".." // a valid name of an interface, odd as it is
		for _, plugin := range []string{"braid", "bridge", "macvlan", "host-local", "static", "loopback"} {
			config := hostLocal
			if plugin == "braid" {
				config = n.entry()
			}
			for variable, code := range map[string]uint{"CNI_CONTAINERID": types.ErrInvalidEnvironmentVariables, "CNI_IFNAME": types.ErrInvalidEnvironmentVariables} {
				if variable == "CNI_IFNAME" && ofKernel {
					continue
				}
				for _, command := range []string{"ADD", "DEL", "CHECK"} {
					tried++
					c := &caller{pod: p, plugin: plugin, config: config, env: map[string]string{variable: name}}
					if f := c.call(command); f == nil || f.Code != code || !strings.Contains(f.Msg, variable) {
						t.Errorf("%s %s with %s=%.50q: %+v, want code %d", plugin, command, variable, name, f, code)
					}
				}
			}
			tried++
			quoted, _ := json.Marshal(name)
			named := strings.Replace(config, `"name":"net"`, `"name":`+string(quoted), 1)
			named = strings.Replace(named, `"name":"pods"`, `"name":`+string(quoted), 1)
			if f := (&caller{pod: p, plugin: plugin, config: named}).call("ADD"); f == nil || f.Code != types.ErrInvalidNetworkConfig {
				t.Errorf("%s of network %.50q: %+v, want code 7", plugin, name, f)
			}
		}
		for _, arg := range []string{"K8S_POD_NAMESPACE", "K8S_POD_NAME"} {
			tried++
			args := strings.Replace("K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web", arg+"="+map[string]string{"K8S_POD_NAMESPACE": "blue", "K8S_POD_NAME": "web"}[arg], arg+"="+name, 1)
			c := &caller{pod: p, plugin: "braid", config: n.entry(), env: map[string]string{"CNI_ARGS": args}}
			if f := c.call("ADD"); f == nil || f.Code != types.ErrInvalidEnvironmentVariables || !strings.Contains(f.Msg, "CNI_ARGS") {
				t.Errorf("%s=%.50q: %+v, want code 4", arg, name, f)
			}
			if f := c.call("DEL"); f != nil {
				t.Errorf("DEL with %s=%.50q: %+v", arg, name, f)
			}
		}
	}
	if links := p.ns.Links(t); len(links) > 0 {
		t.Errorf("links: %q", links)
	}
	if diff := cmp.Diff(before, n.files()); diff != "" {
		t.Errorf("the file system (-before +after):\n%s", diff)
	}
	n.left()
	figures.Note(t, tier, "calls with names that look like something else", tried)
}

// TestHostileNetworks: what a tenant can write into a NetworkAttachmentDefinition and an annotation reaches no file, no program,
// no setting and no port of the node, and nothing of the pods beside. Each is refused with code 6 or 7 and says what is wrong.
func TestHostileNetworks(t *testing.T) {
	n := newNode(t)
	n.keys += fmt.Sprintf(`, "confDir": %q`, filepath.Join(n.dir, "net.d"))
	secret := filepath.Join(n.dir, "secret")
	trap := filepath.Join(n.dir, "trap")
	script := fmt.Sprintf("#!/bin/sh\ntouch %s/sprung\n", n.dir)
	for path, text := range map[string]string{secret: "top secret", trap: script, filepath.Join(n.dir, "net.d", "10.conf"): `{"cniVersion":"1.0.0","name":"mgmt","type":"bridge"}`} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A neighbour, who must not notice.
	n.nad("blue", "storage", storage)
	neighbour := n.pod("neighbour", "storage")
	neighbour.mustAdd()
	reservations := n.reservations()
	before := n.files()
	tried := 0

	const ipam = `"ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.77.0.0/24"`
	for _, tt := range []struct{ name, config, annotation, want string }{
		{"a program by its path", `{"type":"` + trap + `"}`, "", "type: found"},
		{"a program by a way up", `{"type":"../trap"}`, "", "type: found"},
		{"an address program by its path", `{"type":"bridge","ipam":{"type":"` + trap + `"}}`, "", "ipam.type: found"},
		{"the plugin itself", `{"type":"braid","binDir":"` + n.dir + `","delegates":[{"type":"trap"}]}`, "", `type: found "braid"`},
		{"the plugin itself, for addresses", `{"type":"bridge","ipam":{"type":"braid"}}`, "", `ipam.type: found "braid"`},
		{"a program for iptables to run", `{"plugins":[{"type":"bridge","bridge":"h0",` + ipam + `}},{"type":"portmap","capabilities":{"portMappings":true},"conditionsV4":["-M","` + trap + `"]}]}`,
			`[{"name":"bad","portMappings":[{"hostPort":8080,"containerPort":80}]}]`, "plugins[1].conditionsV4"},
		{"a file that is read", `{"type":"bridge","bridge":"h0",` + ipam + `,"resolvConf":"` + secret + `"}}`, "", "ipam.resolvConf: found"},
		{"a folder that is written", `{"type":"bridge","bridge":"h0","ipam":{"type":"host-local","dataDir":"/etc/cron.d","subnet":"10.77.0.0/24"}}`, "", "ipam.dataDir: found"},
		{"a folder by a way up", `{"type":"bridge","bridge":"h0","ipam":{"type":"host-local","dataDir":"$DIR/../../etc","subnet":"10.77.0.0/24"}}`, "", "ipam.dataDir: found"},
		{"a folder by the name of the network", `{"type":"bridge","bridge":"h0","name":"../../x",` + ipam + `}}`, "", "name: found"},
		{"a socket", `{"type":"bridge","bridge":"h0","ipam":{"type":"dhcp","daemonSocketPath":"/run/containerd/containerd.sock"}}`, "", "daemonSocketPath: found"},
		{"a file by arguments", `{"type":"bridge","bridge":"h0",` + ipam + `}}`, `[{"name":"bad","cni-args":{"log":"/etc/cron.d/x"}}]`, "args.cni.log: found"},
		{"a kernel setting of the node", `{"plugins":[{"type":"bridge","bridge":"h0",` + ipam + `}},{"type":"tuning","sysctl":{"kernel.core_pattern":"|` + trap + `"}}]}`, "", "core_pattern"},
		{"a setting by a way up", `{"plugins":[{"type":"bridge","bridge":"h0",` + ipam + `}},{"type":"tuning","sysctl":{"net/../kernel/core_pattern":"x"}}]}`, "", "core_pattern"},
		{"the reservations of the cluster", `{"type":"bridge","bridge":"h0","name":"cluster",` + ipam + `}}`, "", "is that of a network of the operator"},
		{"a file of the operator", "", "", "must not stand for the file"},
		{"the bridge of the cluster", `{"type":"bridge","bridge":"cluster0",` + ipam + `}}`, "", "is that of a network of the operator"},
		{"the address of the cluster's bridge", `{"type":"bridge","bridge":"h0","isGateway":true,"forceAddress":true,` + ipam + `}}`, "", "forceAddress: found true"},
		{"traffic of the node", `{"type":"macvlan","master":"$NIC","hostAccess":true,"ipam":{"type":"static","addresses":[{"address":"198.51.100.1/32"}]}}`, "", "hostAccess: found true"},
		{"commands for nft", `{"plugins":[{"type":"bridge","bridge":"h0",` + ipam + `}},{"type":"portmap","backend":"nftables","capabilities":{"portMappings":true},"conditionsV4":["drop\nadd table ip owned\n#"]}]}`, "", "plugins[1].conditionsV4"},
		{"a port of the node", `{"plugins":[{"type":"bridge","bridge":"h0",` + ipam + `}},{"type":"portmap","capabilities":{"portMappings":true}}]}`,
			`[{"name":"bad","portMappings":[{"hostPort":10250,"containerPort":80}]}]`, "hostPort: found 10250"},
		{"what only a runtime may say", `{"type":"bridge","bridge":"h0","Type":"trap"}`, "", "differ in case only"},
		{"one key for one reader", `{"type":"bridge","bridge":"h0","ipam":{"type":"host-local","dataDir":"$DIR","dataDir":"/etc"}}`, "", "occurs twice"},
		{"networks without number", `{"type":"bridge","bridge":"h0"}`, strings.TrimSuffix(strings.Repeat("bad,", 10_000), ","), "found 10000 networks, want 64 at most"},
		{"plugins without number", `{"plugins":[` + strings.TrimSuffix(strings.Repeat(`{"type":"bridge"},`, 10_000), ",") + `]}`, "", "plugins: found 10000, want 16 at most"},
		{"depth", `{"type":"bridge","x":` + strings.Repeat("[", 5_000) + strings.Repeat("]", 5_000) + `}`, "", "within each other"},
		{"length", `{"type":"bridge","x":"` + strings.Repeat("x", 1<<20) + `"}`, "", "exceed the limit of 262144"},
		{"a terminal", `{"type":"\u001b]0;owned\u0007\u001b[2J\r\n\u202e"}`, "", "type: found"},
		{"a terminal, by a key", `{"type":"bridge","bridge":"h0","\u001b[2J\u0085":"/etc"}`, "", `found "/etc"`},
		{"a terminal, by an annotation", `{"type":"bridge"}`, "bad@\x1b[2J\x9b", "interface: found"},
		{"a line of a log", `{"type":"bridge\nlevel=ERROR msg=forged"}`, "", "type: found"},
		{"a name of others", `{"type":"bridge","bridge":"h0"}`, "bad@eth0", `interface name "eth0" is used`},
		{"a path for an interface", `{"type":"bridge","bridge":"h0"}`, "bad@../../x", "found"},
	} {
		tried++
		t.Run(tt.name, func(t *testing.T) {
			name, config := "bad", tt.config
			if config == "" {
				name = "mgmt" // for which there is a file
			} else {
				config = `{"cniVersion":"1.1.0",` + strings.TrimPrefix(config, "{")
			}
			n.nad("blue", name, config)
			annotation := tt.annotation
			if annotation == "" {
				annotation = name
			}
			p := n.pod("tenant", annotation)
			f := (&caller{pod: p, plugin: "braid", config: n.entry()}).call("ADD")
			if f == nil || f.Code != types.ErrInvalidNetworkConfig && f.Code != types.ErrDecodingFailure || !strings.Contains(f.Msg+f.Details, tt.want) {
				t.Errorf("got %+v, want %q", f, tt.want)
			}
			if links := p.ns.Links(t); len(links) > 0 {
				t.Errorf("links of the pod: %q", links)
			}
			if f := (&caller{pod: p, plugin: "braid", config: n.entry()}).call("DEL"); f != nil {
				t.Errorf("DEL: %+v", f)
			}
			if diff := cmp.Diff(before, n.files()); diff != "" {
				t.Errorf("the file system (-before +after):\n%s", diff)
			}
			if diff := cmp.Diff(reservations, n.reservations()); diff != "" {
				t.Errorf("reservations (-before +after):\n%s", diff)
			}
		})
	}
	if err := neighbour.check(); err != nil {
		t.Errorf("CHECK of the neighbour: %v", err)
	}
	figures.Note(t, tier, "hostile networks and annotations", tried)
	neighbour.mustDel()
	n.left()
	n.removeBridges()
}

// TestModes: nobody but root reads or writes what Braid keeps, whatever the umask says.
func TestModes(t *testing.T) {
	n := newNode(t)
	n.nad("blue", "storage", storage)
	p := n.pod("web", "storage")
	c := &caller{pod: p, plugin: "braid", config: n.entry()}
	if f := c.call("ADD"); f != nil {
		t.Fatalf("%+v", f)
	}
	seen := 0
	for _, dir := range []string{"braid", "ipam"} {
		err := filepath.WalkDir(filepath.Join(n.dir, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			seen++
			within, _ := filepath.Rel(n.dir, path)
			private := within == "braid" || strings.HasPrefix(within, "braid/attachments") || strings.HasSuffix(within, "/.braid") || filepath.Base(filepath.Dir(path)) == ".braid"
			if mode := info.Mode(); mode&0o022 != 0 || mode&fs.ModeSymlink != 0 || private && mode&0o077 != 0 {
				t.Errorf("%s has mode %v", within, mode)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 10 {
		t.Errorf("%d files looked at", seen)
	}
	if f := c.call("DEL"); f != nil {
		t.Errorf("%+v", f)
	}
	n.left()
	n.removeBridges()
}

// TestPlantedLinks: links and pipes at the names of Braid's own files are not followed, and nothing waits for them. The call fails,
// or does without; once they are gone, all is well again.
func TestPlantedLinks(t *testing.T) {
	n := newNode(t)
	n.nad("blue", "storage", storage)
	victims := t.TempDir()
	victim := filepath.Join(victims, "file")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := n.pod("web", "storage")
	c := &caller{pod: p, plugin: "braid", config: n.entry()}
	if f := c.call("ADD"); f != nil { // so that all folders are there
		t.Fatalf("%+v", f)
	}
	if f := c.call("DEL"); f != nil {
		t.Fatalf("%+v", f)
	}
	for _, tt := range []struct {
		at     string
		target string
		refuse bool
	}{
		{"braid/attachments/lock", victim, true},
		{"braid/attachments/c-web:eth0.json.tmp", victim, false}, // an ADD writes nothing there
		{"braid/attachments/c-web:eth0.json", victim, false},     // taken for a damaged record, and set aside
		{"ipam/storage", victims, true},
		{"ipam/storage/lock", victim, true},
		{"ipam/storage/10.10.0.2", victim, false}, // taken for a reservation of somebody
		{"ipam/storage/last_reserved_ip.0", victim, true},
		{"ipam/storage/.braid", victims, true},
		{"ipam/storage/.braid/index", victim, false},
		{"ipam/cluster/.braid/reservation", victim, false},
	} {
		t.Run(tt.at, func(t *testing.T) {
			at, aside := filepath.Join(n.dir, tt.at), filepath.Join(n.dir, "aside")
			_ = os.Rename(at, aside)
			if err := os.Symlink(tt.target, at); err != nil {
				t.Fatal(err)
			}
			f := c.call("ADD")
			if tt.refuse != (f != nil) {
				t.Errorf("ADD: %+v", f)
			}
			if f != nil && !strings.Contains(f.Msg+f.Details, filepath.Base(tt.at)) {
				t.Errorf("%+v does not name the file", f)
			}
			if f := c.call("DEL"); f != nil && !tt.refuse {
				t.Errorf("DEL: %+v", f)
			}
			if info, err := os.Lstat(at); err == nil && info.Mode()&fs.ModeSymlink != 0 {
				if err := os.Remove(at); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Lstat(at); os.IsNotExist(err) {
				_ = os.Rename(aside, at)
			}
			_ = os.RemoveAll(aside)
			if f := c.call("DEL"); f != nil {
				t.Errorf("DEL when the link is gone: %+v", f)
			}
			if links := p.ns.Links(t); len(links) > 0 {
				t.Errorf("links of the pod: %q", links)
			}
			entries, err := os.ReadDir(victims)
			content, readErr := os.ReadFile(victim)
			if err != nil || readErr != nil || len(entries) != 1 || string(content) != "precious" {
				t.Errorf("the victim: %v, %q (%v, %v)", entries, content, err, readErr)
			}
		})
	}
	corrupt, _ := filepath.Glob(filepath.Join(n.dir, "braid", "attachments", "*.corrupt"))
	for _, path := range corrupt {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
	n.left()
	n.removeBridges()
}

// TestHostileNeighbours: a tenant who hangs, exhausts and asks for what others have delays and takes from nobody but themselves.
func TestHostileNeighbours(t *testing.T) {
	n := newNode(t)
	bin, hanging := t.TempDir(), filepath.Join(n.dir, "hanging")
	script := fmt.Sprintf("#!/bin/sh\n[ $CNI_COMMAND = ADD ] && { echo $$ >%s; exec sleep 600; }\nexit 0\n", hanging)
	if err := os.WriteFile(filepath.Join(bin, "hangs"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n.path = append(n.path, bin)
	n.keys += `, "deadlines": {"gc": "2s", "plugin": "40s"}`
	n.nad("blue", "storage", storage)
	n.nad("blue", "hangs", `{"cniVersion":"1.1.0","type":"hangs"}`)
	n.nad("blue", "tiny", `{"cniVersion":"1.1.0","type":"bridge","bridge":"tiny0","ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.99.0.0/28"}}`)
	n.nad("blue", "thief", `{"cniVersion":"1.1.0","name":"storage","type":"bridge","bridge":"storage0","capabilities":{"ips":true},"ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.10.0.0/24"}}`)
	victim := n.pod("victim", "storage")
	victim.mustAdd()

	t.Run("an address of another pod", func(t *testing.T) {
		p := n.pod("thief", `[{"name":"thief","ips":["10.10.0.2/24"]}]`)
		if _, err := p.add(); err == nil || !strings.Contains(err.Error(), "10.10.0.2") {
			t.Errorf("ADD: %v", err)
		}
		p.mustDel()
	})
	t.Run("all addresses", func(t *testing.T) {
		p := n.pod("greedy", strings.TrimSuffix(strings.Repeat("tiny,", 64), ","))
		if _, err := p.add(); err == nil {
			t.Error("64 attachments have 14 addresses")
		}
		if left, _ := filepath.Glob(filepath.Join(n.dir, "ipam", "tiny", "10.99.*")); len(left) > 0 {
			t.Errorf("an ADD that failed has left %q", left)
		}
		p.mustDel()
		after := n.pod("after", "tiny,storage")
		after.mustAdd()
		after.mustDel()
	})
	t.Run("an ADD that hangs", func(t *testing.T) {
		p := n.pod("hanging", "hangs")
		ended := make(chan error, 1)
		go func() {
			_, err := p.add()
			ended <- err
		}()
		pid := 0
		for pid == 0 && t.Context().Err() == nil {
			b, _ := os.ReadFile(hanging)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
			time.Sleep(10 * time.Millisecond)
		}
		gc := libcni.NewCNIConfigWithCacheDir(n.path, t.TempDir(), nil)
		valid := []types.GCAttachment{{ContainerID: "c-victim", IfName: "eth0"}, {ContainerID: "c-hanging", IfName: "eth0"}}
		if err := gc.GCNetworkList(t.Context(), n.network("1.1.0"), &libcni.GCArgs{ValidAttachments: valid}); err == nil || !strings.Contains(err.Error(), "another operation still holds it") {
			t.Errorf("GC: %v", err)
		}
		other := n.pod("other", "storage")
		other.mustAdd()
		other.mustDel()
		select {
		case err := <-ended:
			t.Errorf("the plugin did not hang so long: %v", err)
		default:
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if err := <-ended; err == nil {
			t.Error("the plugin was killed, and the ADD went well")
		}
		p.mustDel()
	})
	if err := victim.check(); err != nil {
		t.Errorf("CHECK of the victim: %v", err)
	}
	victim.mustDel()
	n.left()
	n.removeBridges()
}

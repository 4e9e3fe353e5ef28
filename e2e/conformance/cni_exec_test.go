//go:build conformance

package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Rows of section 2 of the CNI specification: parameters and errors.

// valid says that a container's attachment is.
func valid(p *pod) types.GCAttachment {
	return types.GCAttachment{ContainerID: p.id, IfName: p.ifName}
}

// documents counts the JSON documents of standard output; -1 if there is something else.
func (o *outcome) documents() int {
	d := json.NewDecoder(strings.NewReader(o.stdout))
	for count := 0; ; count++ {
		if err := d.Decode(new(any)); errors.Is(err, io.EOF) {
			return count
		} else if err != nil {
			return -1
		}
	}
}

var _ = row("B24", func(t *T) {
	n := t.Node()
	p := n.container()
	t.want("interface in the result", at(p.add().raw(), "interfaces", 0, "name"), `"eth0"`)
	// The sentence sends errors to standard error; that on STATUS, and everybody, to standard output.
	n.script("rec-cluster", failing)
	if e := n.container().add().failed(); !strings.Contains(e.text(), "no room left") {
		t.Errorf("the error on standard output: %s", e.text())
	}
})

var _ = row("B25", func(t *T) {
	n := t.Node()
	p := n.container()
	for _, stdin := range []string{"", "{", "plain", "[]"} {
		p.exec(t.suite.impl.entry, p.env("ADD"), []byte(stdin)).failed()
	}
	p.add().raw()
})

var _ = row("B26", func(t *T) {
	n := t.Node()
	p := n.container()
	p.add().ok()
	var own string
	n.ns.Do(t, func() { own, _ = os.Readlink("/proc/thread-self/ns/net") })
	if c := n.one("rec-cluster"); c.Netns != own || own == "" {
		t.Errorf("the plugin is executed in %s, want %s", c.Netns, own)
	}
})

var _ = row("B27", func(t *T) {
	n := t.Node()
	p := n.container()
	p.call("NONSENSE").fails(types.ErrInvalidEnvironmentVariables)
	p.add().ok()
	p.check().ok()
	n.global("GC", valid(p)).ok()
	p.del().ok()
	p.call("VERSION").ok()
})

var _ = row("B28", func(t *T) {
	n := t.Node()
	for _, id := range []string{"", "a/b", "-a", "a b", "../a"} {
		p := n.container()
		p.id = id
		p.add().fails(types.ErrInvalidEnvironmentVariables)
	}
	n.wantTrace("")
})

var _ = row("B29", func(t *T) {
	n := t.Node()
	p := n.container()
	p.exec(t.suite.impl.entry, with(p.env("ADD"), "CNI_NETNS", "-"), p.entry()).fails(types.ErrInvalidEnvironmentVariables)
	p.exec(t.suite.impl.entry, with(p.env("ADD"), "CNI_NETNS", "/nonexistent/ns"), p.entry()).failed()
	p.exec(t.suite.impl.entry, with(p.env("DEL"), "CNI_NETNS", "/nonexistent/ns"), p.entry()).ok()
	if added, deleted := n.calls("ADD"), n.calls("DEL"); len(added) > len(deleted) {
		t.Errorf("attached and not detached: %s", trace(n.calls()))
	}
})

var _ = row("B30", func(t *T) {
	n := t.Node()
	n.works()
	for _, name := range []string{"", "sixteen-letters-", ".", "..", "a/b", "a:b", "a b"} {
		p := n.container()
		p.ifName = name
		p.add().failed()
	}
	n.wantTrace("")
})

var _ = row("B31", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.args += ";SOMETHING=else"
	p.add().ok()
	n.one("rec-a", "ADD") // the pod of the arguments was found
})

var _ = row("B32", func(t *T) {
	n := t.Node()
	second := filepath.Join(n.dir, "second")
	n.must(os.Mkdir(second, 0o755))
	n.must(os.Symlink(filepath.Join(t.suite.bin, "recorder"), filepath.Join(second, "rec-second")))
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "type": "rec-second"}`)
	n.path = n.bin + string(filepath.ListSeparator) + second
	n.container().call("ADD").ok()
	if _, err := os.Stat(filepath.Join(second, "calls.jsonl")); err != nil {
		t.Errorf("the plugin in the second folder was not called: %v", err)
	}
})

var _ = row("B33", func(t *T) {
	n := t.Node()
	if o := n.container().add(); o.exit != 0 {
		t.Errorf("exit code of a success: %d", o.exit)
	}
	for _, reply := range []string{`{"error": {"code": 123, "msg": "no"}}`, `{"exit": 3}`, `{"print": "garbage"}`, `{"print": "{}{}"}`} {
		n.script("rec-cluster", `{"ADD": `+reply+`}`)
		if o := n.container().add(); o.exit == 0 {
			t.Errorf("exit code 0 when the plugin answers %s", reply)
		}
	}
})

var _ = row("B34", func(t *T) {
	n := t.Node()
	n.works()
	for _, reply := range []string{`{"error": {"code": 123, "msg": "no"}}`, `{"exit": 3}`, `{"print": "garbage"}`, `{"exit": 2, "stderr": "boom"}`} {
		n.script("rec-cluster", `{"ADD": `+reply+`}`)
		if e := n.container().add().failed(); e.Code == 0 || e.Msg == "" {
			t.Errorf("plugin answers %s: error %+v", reply, e)
		}
	}
})

// unreadable calls the entry plugin with a standard input that cannot be read.
func unreadable(p *pod) *outcome {
	p.Helper()
	dir, err := os.Open(p.dir)
	p.must(err)
	defer dir.Close()
	cmd := exec.Command(p.suite.impl.entry)
	for name, value := range p.env("ADD") {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	p.node.ns.Do(p, func() { err = cmd.Start() })
	p.must(err)
	_ = cmd.Wait() // the exit code says it
	return &outcome{T: p.T, command: "ADD", exit: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// A dict is a JSON object.
type dict = map[string]any

// A node is where pods come up: a network namespace, folders, and a namespace of the API server.
type node struct {
	*T
	ns        *nettest.NS
	dir       string
	bin       string // plugins, and where the recorder writes down its calls
	path      string // CNI_PATH
	namespace string
	version   string
	keys      dict // of the entry configuration, in place of the ones that every node has; nil leaves one out
	relay     *relay
	usesAPI   bool
}

func (s *suite) referencePlugins() string { return refplugins.Dir(s.t) }

// Node makes a node. Types that begin with "rec" are recorders.
func (t *T) Node() *node {
	t.Helper()
	t.nodes++
	n := &node{T: t, ns: nettest.NewNS(t), dir: t.TempDir(), version: "1.1.0", keys: dict{}, namespace: strings.ToLower(t.id)}
	if t.nodes > 1 {
		n.namespace = fmt.Sprintf("%s-%d", n.namespace, t.nodes)
	}
	n.bin = filepath.Join(n.dir, "bin")
	n.path = n.bin
	for _, dir := range []string{"bin", "conf", "state", "ipam"} {
		n.must(os.Mkdir(filepath.Join(n.dir, dir), 0o755))
	}
	for _, name := range []string{"rec-cluster", "rec-a", "rec-b", "rec-c", "rec-ipam"} {
		n.must(os.Symlink(filepath.Join(t.suite.bin, "recorder"), filepath.Join(n.bin, name)))
	}
	for _, name := range interfacePlugins {
		target := filepath.Join(t.suite.reference, name)
		if t.suite.impl.plugins {
			target = filepath.Join(t.suite.bin, "braid")
		}
		n.must(os.Symlink(target, filepath.Join(n.bin, name)))
	}
	for _, name := range []string{"portmap", "bandwidth", "tuning"} {
		n.must(os.Symlink(filepath.Join(t.suite.reference, name), filepath.Join(n.bin, name)))
	}
	return n
}

func (n *node) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

// write puts a file into a folder of the node, and returns its path.
func (n *node) write(name, content string) string {
	n.Helper()
	path := filepath.Join(n.dir, name)
	n.must(os.MkdirAll(filepath.Dir(path), 0o755))
	n.must(os.WriteFile(path, []byte(n.expand(content)), 0o644))
	return path
}

// expand fills in $DIR, the node's folder of reservations, and $NS, its namespace in the API server.
func (n *node) expand(s string) string {
	return strings.NewReplacer("$DIR", filepath.Join(n.dir, "ipam"), "$NS", n.namespace).Replace(s)
}

// script says what a recorder answers, by command or by COMMAND@NETWORK.
func (n *node) script(plugin, replies string) { n.write("bin/"+plugin+".json", replies) }

// API connects the node to the API server.
func (n *node) api() {
	n.Helper()
	if n.usesAPI {
		return
	}
	n.usesAPI = true
	c := n.suite.api()
	n.ns.Do(n, func() {
		l, err := net.Listen("tcp", apiAddress)
		n.must(err)
		n.relay = newRelay(l, host(c.URL))
	})
	n.Cleanup(n.relay.close)
	c.Create(dict{"kind": "Namespace", "metadata": dict{"name": n.namespace}})
	if n.suite.impl.daemon {
		n.startDaemon()
	}
}

// nodeName is that of every node: no two see each other's pods, since they are of different namespaces.
const nodeName = "conformance"

// socket is where the node's daemon listens, if it has one.
func (n *node) socket() string { return filepath.Join(n.dir, "d.sock") }

// startDaemon starts the daemon, and waits until it knows the cluster.
func (n *node) startDaemon() {
	n.Helper()
	const health = "127.0.0.1:9477"
	start(n, n.ns, filepath.Join(n.suite.bin, "braidd"), "daemon", "--kubeconfig", n.suite.kubeconfig, "--cni-dir", filepath.Join(n.dir, "state"),
		"--socket", n.socket(), "--dhcp-socket", "", "--node-name", nodeName, "--listen", health, "--log-level", "error")
	get := func(path string) (answer []byte) {
		n.ns.Do(n, func() {
			c, err := net.Dial("tcp", health)
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path)
			answer, _ = io.ReadAll(c) // what there is of it
		})
		return answer
	}
	until(n.T, func() bool {
		return bytes.Contains(get("/readyz"), []byte(" 200 ")) && (&client.Client{Socket: protocol.SocketOf(n.socket())}).Ping() == nil
	})
	n.Cleanup(func() {
		if bytes.Contains(get("/metrics"), []byte("\nbraid_worker_calls_total{")) {
			n.suite.byWorker.Add(1)
		}
	})
}

// cut has the API server gone for the node.
func (n *node) cut() { n.relay.close() }

// nad creates a NetworkAttachmentDefinition, "" being one without spec.config.
func (n *node) nad(name, config string) {
	n.Helper()
	n.nadIn(n.namespace, name, dict{"config": n.expand(config)})
}

func (n *node) nadIn(namespace, name string, spec any) {
	n.Helper()
	n.api()
	object := dict{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": dict{"namespace": namespace, "name": name},
	}
	if spec != nil {
		object["spec"] = spec
	}
	n.suite.api().Create(object)
}

const nadPath = "/apis/k8s.cni.cncf.io/v1/namespaces/%s/network-attachment-definitions/%s"

func (n *node) deleteNAD(name string) {
	n.Helper()
	n.suite.api().Do(http.MethodDelete, fmt.Sprintf(nadPath, n.namespace, name), nil, nil)
}

// otherNamespace creates a second namespace.
func (n *node) otherNamespace() string {
	n.Helper()
	n.api()
	other := n.namespace + "-other"
	n.suite.api().Create(dict{"kind": "Namespace", "metadata": dict{"name": other}})
	return other
}

// A pod is a container as its runtime sees it.
type pod struct {
	*node
	name, namespace, uid string
	id, ifName           string
	ns                   *nettest.NS
	args                 string // CNI_ARGS
}

// container makes a container that is no pod of any API server.
func (n *node) container() *pod {
	n.Helper()
	return &pod{node: n, ns: nettest.NewNS(n), id: nettest.Name("c"), ifName: "eth0"}
}

// pod creates a pod that selects networks; "" is one without annotation.
func (n *node) pod(networks string) *pod {
	n.Helper()
	annotations := dict{}
	if networks != "" {
		annotations["k8s.v1.cni.cncf.io/networks"] = networks
	}
	return n.podIn(n.namespace, annotations)
}

func (n *node) podIn(namespace string, annotations dict) *pod {
	n.Helper()
	n.api()
	p := n.container()
	p.name, p.namespace = nettest.Name("pod-"), namespace
	for key, value := range annotations {
		if s, ok := value.(string); ok {
			annotations[key] = n.expand(s)
		}
	}
	n.suite.api().Create(dict{
		"kind": "Pod", "metadata": dict{"namespace": namespace, "name": p.name, "annotations": annotations},
		"spec": dict{"nodeName": nodeName, "containers": []any{dict{"name": "c", "image": "example.org/c"}}},
	})
	p.uid = p.object().Metadata.UID
	p.args = fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID=%s", namespace, p.name, p.id, p.uid)
	return p
}

type podObject struct {
	Metadata struct {
		UID         string
		Annotations map[string]string
	}
}

func (p *pod) url() string { return "/api/v1/namespaces/" + p.namespace + "/pods/" + p.name }

func (p *pod) object() (o podObject) {
	p.Helper()
	p.suite.api().Do(http.MethodGet, p.url(), nil, &o)
	return o
}

// annotate changes the pod's selection of networks.
func (p *pod) annotate(networks string) {
	p.Helper()
	var object dict
	p.suite.api().Do(http.MethodGet, p.url(), nil, &object)
	object["metadata"].(dict)["annotations"].(dict)["k8s.v1.cni.cncf.io/networks"] = p.expand(networks)
	p.suite.api().Do(http.MethodPut, p.url(), object, nil)
}

func (p *pod) delete() {
	p.Helper()
	p.suite.api().Do(http.MethodDelete, p.url(), dict{"gracePeriodSeconds": 0}, nil)
}

// status returns the entries of network-status, as the API server has them.
func (p *pod) status() (list []dict) {
	p.Helper()
	annotation := p.object().Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]
	if annotation == "" {
		p.Fatal("the pod has no annotation network-status")
	}
	if err := json.Unmarshal([]byte(annotation), &list); err != nil {
		p.Fatalf("network-status is no list of maps: %v: %s", err, annotation)
	}
	return list
}

// statusOf returns the entry of a network, of which there must be one.
func (p *pod) statusOf(name string) dict {
	p.Helper()
	var found []dict
	list := p.status()
	for _, s := range list {
		if s["name"] == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		p.Fatalf("network-status has %d entries of %s, want 1: %v", len(found), name, list)
	}
	return found[0]
}

// entry is the configuration of the meta-plugin.
func (n *node) entry() []byte {
	n.Helper()
	entry := dict{
		"cniVersion": n.version, "name": "pods", "binDir": n.bin, "confDir": filepath.Join(n.dir, "conf"), "cniDir": filepath.Join(n.dir, "state"),
	}
	if n.usesAPI {
		entry["kubeconfig"] = n.suite.kubeconfig
	}
	if n.keys["clusterNetwork"] == nil {
		entry["delegates"] = []any{dict{"cniVersion": n.version, "name": "cluster", "type": "rec-cluster"}}
	}
	n.suite.impl.config(n, entry)
	for key, value := range n.keys {
		if entry[key] = value; value == nil {
			delete(entry, key)
		}
	}
	b, err := json.Marshal(entry)
	n.must(err)
	return []byte(n.expand(string(b)))
}

// An outcome is what a plugin binary has answered.
type outcome struct {
	*T
	command        string
	exit           int
	stdout, stderr string
}

// exec executes a binary in the node.
func (n *node) exec(binary string, env map[string]string, stdin []byte) *outcome {
	n.Helper()
	ctx, cancel := context.WithTimeout(n.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + n.dir}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Dir = n.dir
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	cmd.WaitDelay = 5 * time.Second
	var err error
	n.ns.Do(n, func() { err = cmd.Start() })
	n.must(err)
	if err = cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		n.Fatalf("%s: %v", filepath.Base(binary), err)
	}
	return &outcome{T: n.T, command: env["CNI_COMMAND"], exit: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// env is the environment of a command for a pod.
func (p *pod) env(command string) map[string]string {
	return map[string]string{
		"CNI_COMMAND": command, "CNI_CONTAINERID": p.id, "CNI_NETNS": p.ns.Path(), "CNI_IFNAME": p.ifName, "CNI_ARGS": p.args, "CNI_PATH": p.path,
	}
}

// call calls the meta-plugin.
func (p *pod) call(command string) *outcome {
	p.Helper()
	return p.exec(p.suite.impl.entry, p.env(command), p.entry())
}

// add calls ADD. As a kubelet, it tries again if the API server was too slow for an implementation that waits for it
// shorter than a test is to depend on.
func (p *pod) add() *outcome {
	p.Helper()
	for attempt := 1; ; attempt++ {
		before := len(p.calls())
		o := p.call("ADD")
		if o.exit == 0 && len(p.calls()) == before && len(p.ns.Links(p)) == 0 {
			p.Errorf("ADD: exit code 0, and nothing was attached")
		}
		if p.suite.impl.own || attempt == 5 || len(p.calls()) > before || !strings.Contains(o.stdout, "error waiting for pod") ||
			!strings.Contains(o.stdout, "deadline exceeded") {
			return o
		}
	}
}

func (p *pod) del() *outcome   { p.Helper(); return p.call("DEL") }
func (p *pod) check() *outcome { p.Helper(); return p.call("CHECK") }

// works is for rows about what must fail: a plain pod does not.
func (n *node) works() {
	n.Helper()
	p := n.container()
	if n.usesAPI {
		p = n.pod("")
	}
	p.add().ok()
	p.del().ok()
	n.forget()
}

// with is env with some variables changed; "-" removes one.
func with(env map[string]string, changes ...string) map[string]string {
	for i := 0; i < len(changes); i += 2 {
		if env[changes[i]] = changes[i+1]; changes[i+1] == "-" {
			delete(env, changes[i])
		}
	}
	return env
}

// global calls the meta-plugin for no container.
func (n *node) global(command string, valid ...types.GCAttachment) *outcome {
	n.Helper()
	stdin := n.entry()
	if command == "GC" {
		stdin = set(n, stdin, "cni.dev/valid-attachments", slices.Concat([]types.GCAttachment{}, valid))
	}
	return n.exec(n.suite.impl.entry, map[string]string{"CNI_COMMAND": command, "CNI_PATH": n.path}, stdin)
}

// set sets a key of a configuration.
func set(n *node, config []byte, key string, value any) []byte {
	n.Helper()
	object := map[string]json.RawMessage{}
	n.must(json.Unmarshal(config, &object))
	b, err := json.Marshal(value)
	n.must(err)
	object[key] = b
	out, err := json.Marshal(object)
	n.must(err)
	return out
}

// plugin calls a plugin of the node by its name.
func (p *pod) plugin(name, command, config string) *outcome {
	p.Helper()
	return p.exec(filepath.Join(p.bin, name), p.env(command), []byte(p.expand(config)))
}

// ok ends the row unless the plugin has succeeded.
func (o *outcome) ok() *outcome {
	o.Helper()
	if o.exit != 0 {
		o.Fatalf("%s: exit code %d, want 0: %s", o.command, o.exit, o.said())
	}
	return o
}

// failed complains unless the plugin has failed, with one error document and no panic.
func (o *outcome) failed() cniError {
	o.Helper()
	if o.exit == 0 {
		o.Errorf("%s: exit code 0, want a failure", o.command)
		return cniError{}
	}
	return o.err()
}

// fails is failed with a code.
func (o *outcome) fails(code uint) cniError {
	o.Helper()
	e := o.failed()
	if o.exit != 0 && e.Code != code {
		o.Errorf("%s: error code %d, want %d: %s", o.command, e.Code, code, e.Msg)
	}
	return e
}

// said is what the plugin has to say, for messages.
func (o *outcome) said() string {
	if strings.Contains(o.stderr, "panic:") {
		_, panicked, _ := strings.Cut(o.stderr, "panic:")
		line, _, _ := strings.Cut(panicked, "\n")
		return "panic:" + line
	}
	var e cniError
	if json.Unmarshal([]byte(o.stdout), &e) == nil && e.Msg != "" {
		return e.Msg
	}
	return strings.TrimSpace(o.stdout + " " + o.stderr)
}

type cniError struct {
	CNIVersion string
	Code       uint
	Msg        string
	Details    string
}

func (e cniError) text() string { return e.Msg + " " + e.Details }

// err decodes an error document, which must be all of standard output.
func (o *outcome) err() (e cniError) {
	o.Helper()
	if err := json.Unmarshal([]byte(o.stdout), &e); err != nil {
		o.Errorf("%s: standard output is not one error document: %s", o.command, o.said())
	} else if e.Code == 0 && e.Msg == "" {
		o.Errorf("%s: the error document has neither code nor message: %s", o.command, o.stdout)
	} else if strings.Contains(o.stderr, "panic:") {
		o.Errorf("%s: panic", o.command)
	}
	return e
}

// raw decodes standard output of a success.
func (o *outcome) raw() (object dict) {
	o.Helper()
	o.ok()
	if err := json.Unmarshal([]byte(o.stdout), &object); err != nil {
		o.Fatalf("%s: standard output is not one JSON document: %v: %s", o.command, err, o.stdout)
	}
	return object
}

// result decodes a result of any version.
func (o *outcome) result() *types100.Result {
	o.Helper()
	o.raw()
	r, err := create.CreateFromBytes([]byte(o.stdout))
	if err == nil {
		var result *types100.Result
		if result, err = types100.NewResultFromResult(r); err == nil {
			return result
		}
	}
	o.Fatalf("%s: result: %v: %s", o.command, err, o.stdout)
	return nil
}

// A call is what a recorder was asked.
type call struct {
	Type, Command string
	Env           map[string]string
	Stdin         string
	Netns         string
	Start, End    int64
}

// calls returns what recorders were asked, in the order of beginning, VERSION left out. Each filter is a type or a
// command.
func (n *node) calls(filters ...string) (list []call) {
	n.Helper()
	b, err := os.ReadFile(filepath.Join(n.bin, "calls.jsonl"))
	if err != nil && !os.IsNotExist(err) {
		n.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var c call
		n.must(json.Unmarshal([]byte(line), &c))
		if c.Command == "VERSION" || slices.ContainsFunc(filters, func(f string) bool { return f != c.Type && f != c.Command }) {
			continue
		}
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b call) int { return int(a.Start - b.Start) })
	return list
}

// forget removes the calls so far.
func (n *node) forget() {
	n.Helper()
	if err := os.Remove(filepath.Join(n.bin, "calls.jsonl")); !os.IsNotExist(err) {
		n.must(err)
	}
}

// one returns the only call that the filters leave.
func (n *node) one(filters ...string) call {
	n.Helper()
	list := n.calls(filters...)
	if len(list) != 1 {
		n.Fatalf("%s was called %d times, want once: %s", strings.Join(filters, " "), len(list), trace(list))
	}
	return list[0]
}

// trace is a list of calls on a line.
func trace(list []call) string {
	var words []string
	for _, c := range list {
		words = append(words, fmt.Sprintf("%s %s %s", c.Command, c.Type, c.Env["CNI_IFNAME"]))
	}
	return strings.Join(words, ", ")
}

// wantTrace compares all calls, as "COMMAND type interface" with commas.
func (n *node) wantTrace(want string, filters ...string) {
	n.Helper()
	if got := trace(n.calls(filters...)); got != want {
		n.Errorf("calls: %q, want %q", got, want)
	}
}

// conf decodes standard input of a call.
func (c call) conf() (object dict) {
	_ = json.Unmarshal([]byte(c.Stdin), &object) // nil shows
	return object
}

// at walks into an object: at(o, "runtimeConfig", "ips", 0).
func at(value any, path ...any) any {
	for _, step := range path {
		switch s := step.(type) {
		case string:
			object, _ := value.(dict)
			value = object[s]
		case int:
			list, _ := value.([]any)
			if s >= len(list) {
				return nil
			}
			value = list[s]
		}
	}
	return value
}

// text is a value as JSON, keys sorted.
func text(value any) string {
	b, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// want compares two values as JSON.
func (t *T) want(what string, got any, want string) {
	t.Helper()
	if s := text(got); s != want {
		t.Errorf("%s: %s, want %s", what, s, want)
	}
}

// addresses of an interface of a namespace, without those of the IPv6 link-local network.
func (n *node) addresses(ns *nettest.NS, name string) (found []string) {
	n.Helper()
	list, err := ns.Handle().AddrList(ns.Link(n, name), netlink.FAMILY_ALL)
	n.must(err)
	for _, a := range list {
		if !a.IP.IsLinkLocalUnicast() {
			found = append(found, a.IPNet.String())
		}
	}
	slices.Sort(found)
	return found
}

// defaultRoutes are "via GATEWAY dev INTERFACE".
func (p *pod) defaultRoutes(family int) (routes []string) {
	p.Helper()
	all, err := p.ns.Handle().RouteList(nil, family)
	p.must(err)
	for _, r := range all {
		if r.Dst != nil {
			if ones, _ := r.Dst.Mask.Size(); ones != 0 || !r.Dst.IP.IsUnspecified() {
				continue
			}
		}
		link, err := p.ns.Handle().LinkByIndex(r.LinkIndex)
		p.must(err)
		routes = append(routes, "via "+r.Gw.String()+" dev "+link.Attrs().Name)
	}
	slices.Sort(routes)
	return routes
}

// reservations are the addresses that host-local holds in the node.
func (n *node) reservations() (found []string) {
	n.Helper()
	for _, pattern := range []string{"ipam/*/*.*.*.*", "ipam/*/*:*"} {
		files, err := filepath.Glob(filepath.Join(n.dir, pattern))
		n.must(err)
		for _, f := range files {
			if !strings.HasPrefix(filepath.Base(f), "last_reserved_ip") {
				found = append(found, filepath.Base(f))
			}
		}
	}
	return found
}

// links of the node, of a kind.
func (n *node) links(kind string) (names []string) {
	n.Helper()
	list, err := n.ns.Handle().LinkList()
	n.must(err)
	for _, l := range list {
		if l.Type() == kind {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// ruleset of the node's nftables.
func (n *node) ruleset() string {
	n.Helper()
	return n.run("nft", "list", "ruleset")
}

// run runs a program in the node, or ends the row.
func (n *node) run(program string, args ...string) string {
	n.Helper()
	cmd := exec.Command(program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	var err error
	n.ns.Do(n, func() { err = cmd.Start() })
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		n.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// rawJSON is a value that is JSON already.
func rawJSON(s string) json.RawMessage { return json.RawMessage(s) }

//go:build storm && linux

package storm

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/netdev"
)

// A pod is a container that gets, had or is to lose its networks.
type pod struct {
	*world
	id     string
	ns     *nettest.NS
	result []byte // of its ADD
}

func (w *world) pod() *pod {
	w.Helper()
	return &pod{world: w, id: fmt.Sprint("c", w.pods.Add(1)), ns: nettest.NewNS(w)}
}

func (w *world) newPods(n int) (pods []*pod) {
	w.Helper()
	for range n {
		pods = append(pods, w.pod())
	}
	return pods
}

// env is that of a call for the pod.
func (p *pod) env(command, netns string) []string {
	return []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=" + filepath.Dir(binary("")),
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web", "PATH=" + os.Getenv("PATH"),
	}
}

// A call is a process of the plugin.
type call struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	err            error // it has not started
	cancel         func()
}

// start starts the plugin, as a runtime does.
func (w *world) start(env []string, config io.Reader) *call {
	w.calls.Add(1)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	c := &call{cmd: exec.CommandContext(ctx, binary(w.plugin)), cancel: cancel}
	c.cmd.Env, c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = env, config, &c.stdout, &c.stderr
	c.err = c.cmd.Start()
	return c
}

// wait returns what the plugin has printed. The error is the one that it prints.
func (c *call) wait() ([]byte, error) {
	defer c.cancel()
	if c.err != nil {
		return nil, c.err
	}
	err := c.cmd.Wait()
	if err == nil {
		return c.stdout.Bytes(), nil
	}
	var printed struct {
		Code int
		Msg  string
	}
	if json.Unmarshal(c.stdout.Bytes(), &printed) == nil && printed.Msg != "" {
		return nil, fmt.Errorf("%s (code %d)", printed.Msg, printed.Code)
	}
	return nil, fmt.Errorf("%w: %q %q", err, c.stdout.Bytes(), c.stderr.Bytes())
}

func (c *call) kill() { _ = c.cmd.Process.Kill() }

// killed says whether the process was, before it could end.
func (c *call) killed() bool { return c.cmd.ProcessState.ExitCode() < 0 }

// A gate holds processes back, which wait for their configuration, until all are there.
type gate chan struct{}

type held struct {
	gate gate
	io.Reader
}

func (h held) Read(b []byte) (int, error) {
	<-h.gate
	return h.Reader.Read(b)
}

// startAdd starts an ADD, startDel a DEL of a runtime that has no result, and startCheck a CHECK. They begin when the gate is
// opened, or at once if there is none.
func (p *pod) startAdd(g gate) *call   { return p.begin(g, "ADD", p.config("")) }
func (p *pod) startDel(g gate) *call   { return p.begin(g, "DEL", p.attachmentConfig()) }
func (p *pod) startCheck(g gate) *call { return p.begin(g, "CHECK", p.attachmentConfig()) }

func (p *pod) begin(g gate, command string, config []byte) *call {
	var stdin io.Reader = bytes.NewReader(config)
	if g != nil {
		stdin = held{g, stdin}
	}
	return p.start(p.env(command, p.ns.Path()), stdin)
}

// attachmentConfig is what runtimes hand over once there is a result.
func (p *pod) attachmentConfig() []byte {
	if p.result == nil {
		return p.config("")
	}
	return p.config(`, "prevResult": ` + string(p.result))
}

// added takes the result of an ADD.
func (p *pod) added(c *call) error {
	out, err := c.wait()
	if err != nil {
		return fmt.Errorf("ADD of %s: %w", p.id, err)
	}
	p.result = out
	return nil
}

func (p *pod) add() error { return p.added(p.startAdd(nil)) }

func (p *pod) del() error {
	if _, err := p.startDel(nil).wait(); err != nil {
		return fmt.Errorf("DEL of %s: %w", p.id, err)
	}
	p.result = nil
	return nil
}

func (p *pod) check() error {
	if _, err := p.startCheck(nil).wait(); err != nil {
		return fmt.Errorf("CHECK of %s: %w", p.id, err)
	}
	return nil
}

// atOnce has a process for each pod, lets all of them begin when the last one is there, and returns the error of each.
func (w *world) atOnce(pods []*pod, start func(*pod, gate) *call) []error {
	g := make(gate)
	calls := make([]*call, len(pods))
	for i, p := range pods {
		calls[i] = start(p, g)
	}
	close(g)
	errs := make([]error, len(pods))
	for i, p := range pods {
		out, err := calls[i].wait()
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("%s: %w", p.id, err)
		case len(out) > 0: // of an ADD
			p.result = out
		}
	}
	return errs
}

// all is atOnce where none may fail.
func (w *world) all(pods []*pod, start func(*pod, gate) *call) {
	w.Helper()
	for _, err := range w.atOnce(pods, start) {
		if err != nil {
			w.Error(err)
		}
	}
}

// workers run do side by side.
func workers(n int, do func(worker int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { do(i) })
	}
	group.Wait()
}

// byResult returns the addresses of the pod, as "ADDRESS INTERFACE", by its result.
func (p *pod) byResult() (list []string) {
	p.Helper()
	var res types100.Result
	if err := json.Unmarshal(p.result, &res); err != nil {
		p.Errorf("result of %s: %v: %s", p.id, err, p.result)
	}
	for _, ip := range res.IPs {
		list = append(list, ip.Address.String()+" "+res.Interfaces[*ip.Interface].Name)
	}
	slices.Sort(list)
	return list
}

// byKernel returns them by what the interfaces of the pod have.
func (p *pod) byKernel() (list []string) {
	p.Helper()
	h := p.ns.Handle()
	links, err := netdev.Dump(h.LinkList)
	p.must(err)
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	addrs, err := netdev.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	p.must(err)
	for _, a := range addrs {
		if !a.IP.IsLoopback() && !a.IP.IsLinkLocalUnicast() {
			list = append(list, a.IPNet.String()+" "+names[a.LinkIndex])
		}
	}
	slices.Sort(list)
	return list
}

// empty fails the test if anything is left inside of the pod.
func (p *pod) empty() {
	p.Helper()
	things := p.ns.Links(p)
	rules, err := netdev.Dump(func() ([]netlink.Rule, error) { return p.ns.Handle().RuleList(netlink.FAMILY_ALL) })
	p.must(err)
	for _, r := range rules {
		if r.Table != unix.RT_TABLE_LOCAL && r.Table != unix.RT_TABLE_MAIN && r.Table != unix.RT_TABLE_DEFAULT {
			things = append(things, "rule "+r.String())
		}
	}
	for _, thing := range things {
		p.Errorf("left in %s: %s", p.id, thing)
	}
}

// reservations returns what the store of addresses has, "CONTAINER INTERFACE" by address.
func (w *world) reservations() map[string]string {
	w.Helper()
	found := make(map[string]string)
	for _, pattern := range []string{"*.*.*.*", "*:*"} {
		paths, err := filepath.Glob(filepath.Join(w.dir, "ipam", "*", pattern))
		w.must(err)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if os.IsNotExist(err) {
				continue
			}
			w.must(err)
			address := filepath.Base(path)
			owner := strings.Replace(string(b), "\r\n", " ", 1)
			if other, twice := found[address]; twice {
				w.Errorf("%s is reserved for %s and for %s", address, owner, other)
			}
			found[address] = owner
		}
	}
	return found
}

// reserved returns what the store has for the pod.
func (p *pod) reserved() (list []string) {
	for address, owner := range p.reservations() {
		if id, ifName, _ := strings.Cut(owner, " "); id == p.id {
			list = append(list, address+" "+ifName)
		}
	}
	slices.Sort(list)
	return list
}

// record returns that of the journal, nil if there is none.
func (p *pod) record() *journal.Record {
	j, err := journal.Open(filepath.Join(p.dir, "braid", "attachments"))
	p.must(err)
	r, err := j.Get(p.id, "eth0")
	if err != nil {
		return nil
	}
	return r
}

// right fails the test unless these pods, and no others beside the witness, have all that their results say, in the kernel
// and in the store, and nothing else. Nobody has an address of another.
func (w *world) right(pods ...*pod) {
	w.Helper()
	if !slices.Contains(pods, w.witness) {
		pods = append(slices.Clip(pods), w.witness)
	}
	want := make(map[string]string) // the reservations
	var ids []string
	for _, p := range pods {
		ids = append(ids, p.id+":eth0.json")
		addresses := p.byResult()
		if n := 2 + len(strings.Split(w.networks, ",")); len(addresses) != n {
			w.Errorf("%s has %d addresses, want %d: %q", p.id, len(addresses), n, addresses)
		}
		if kernel := p.byKernel(); !slices.Equal(kernel, addresses) {
			w.Errorf("%s has the addresses %q, by its result %q", p.id, kernel, addresses)
		}
		for _, a := range addresses {
			address, ifName, _ := strings.Cut(a, " ")
			address, _, _ = strings.Cut(address, "/")
			if other, twice := want[address]; twice {
				w.Errorf("%s was given to %s of %s, and to %s", address, ifName, p.id, other)
			}
			want[address] = p.id + " " + ifName
		}
	}
	have := w.reservations()
	maps.DeleteFunc(want, func(address, _ string) bool { return leased(address) })
	if !maps.Equal(have, want) {
		w.Errorf("reserved: %v\nwant: %v", have, want)
	}
	slices.Sort(ids)
	records, err := filepath.Glob(filepath.Join(w.dir, "braid", "attachments", "*:*"))
	w.must(err)
	for i := range records {
		records[i] = filepath.Base(records[i])
	}
	slices.Sort(records)
	if !slices.Equal(records, ids) {
		w.Errorf("the journal has %q, want %q", records, ids)
	}
	w.all(pods, (*pod).startCheck)
}

// gone fails the test if anything of the pod is left, while others come and go.
func (p *pod) gone() {
	p.Helper()
	if r := p.record(); r != nil {
		p.Errorf("the journal still has %s: %+v", p.id, r)
	}
	if list := p.reserved(); len(list) > 0 {
		p.Errorf("%s still has %q", p.id, list)
	}
	p.empty()
}

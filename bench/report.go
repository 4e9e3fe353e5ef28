package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func (r *Results) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o644)
}

func load(path string) (*Results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	return r, json.Unmarshal(b, r)
}

// machine says what this is.
func machine() (lines []string) {
	cpu, memory := "unknown CPU", "unknown memory"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
			}
		}
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		memory = fmt.Sprintf("%.0f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
	}
	var u unix.Utsname
	_ = unix.Uname(&u)
	load, _ := os.ReadFile("/proc/loadavg")
	goVersion, _ := exec.Command("go", "version").Output()
	commit, _ := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	cpus, _ := exec.Command("nproc").Output()
	return []string{
		fmt.Sprintf("%s cores of %s, %s", strings.TrimSpace(string(cpus)), cpu, memory),
		"Linux " + unix.ByteSliceToString(u.Release[:]),
		strings.TrimSpace(string(goVersion)),
		"Braid " + strings.TrimSpace(string(commit)),
		"Multus v4.3.0, reference plugins v1.9.1, Kubernetes as in e2e/cluster/kubebin/go.mod",
		"load average when the run began: " + strings.Join(strings.Fields(string(load))[:3], " "),
	}
}

// write writes benchmarks.md and its plots. What stands between the two marks of the file that is there already, the
// analysis by people, stays.
func (r *Results) write(dir string) error {
	path := filepath.Join(dir, "benchmarks.md")
	analysis := ""
	if old, err := os.ReadFile(path); err == nil {
		if _, rest, ok := strings.Cut(string(old), analysisBegin); ok {
			analysis, _, _ = strings.Cut(rest, analysisEnd)
		}
	}
	plots := filepath.Join(dir, "benchmarks")
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	var b strings.Builder
	r.introduction(&b)
	b.WriteString("\n" + analysisBegin + analysis + analysisEnd + "\n")
	r.latencyTables(&b)
	r.stormTable(&b)
	r.growthTables(&b)
	r.countTable(&b)
	r.valueTable(&b)
	for name, p := range r.plots() {
		if len(p.curves) == 0 {
			continue
		}
		if err := os.WriteFile(filepath.Join(plots, name+".svg"), []byte(p.svg()), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

const (
	analysisBegin = "<!-- analysis: written by people, kept when the figures are written again -->\n"
	analysisEnd   = "<!-- end of the analysis -->\n"
)

func (r *Results) introduction(b *strings.Builder) {
	b.WriteString("# Benchmarks\n\nWritten by `make bench`, which measures all peers in one run, by turns, call by call")
	if r.Quick {
		b.WriteString("; this one is of `make bench-quick`: few rounds")
	}
	b.WriteString(". To repeat it: `make bench`, as root, on a machine that does nothing else; `make bench-quick` has the most important in three minutes.\n\n")
	for _, line := range r.Machine {
		fmt.Fprintf(b, "- %s\n", line)
	}
	for _, line := range r.Notes {
		fmt.Fprintf(b, "- %s\n", line)
	}
	b.WriteString(`
The peers:

| name | what it is |
|---|---|
| multus thin | Multus as one binary, its networks' plugins executed |
| multus thick | Multus' shim and daemon |
| reference | the reference plugins, called by the runtime for each network: no meta-plugin, no API server |
| braid | Braid alone: each ADD asks the API server |
| braid+daemon | Braid, with ` + "`braidd daemon`" + ` on the node: the runtime executes ` + "`braid-shim`" + ` |
| braid plugins | Braid's own bridge, macvlan and host-local in the place of the reference plugins |
| floor | the least program: one process, the necessary netlink requests and nothing else ([bench/floor](../bench/floor/main.go)) |
| floor+journal | the same, with a durable record before and after, as everybody needs who is to survive kill -9 and the loss of power |

Every pod has a default network, a bridge that is its gateway, with an address of host-local; further networks are bridges of their own,
or macvlan interfaces of one parent, with host-local too. Default network and log level are the same for all. Behind all of them is a
real kube-apiserver with etcd (without fsync) on loopback. Each call goes through libcni; a namespace is used again, so that
no peer pays for taking away that of another. "CPU" is user and system time of all processes of a call, and of the peer's daemon and its children until
its next call. Ratios are medians of the ratios of calls of the same round.

## Goals

| work | goal | found | met |
|---|---|---|---|
`)
	for _, g := range r.evaluate() {
		b.WriteString(g.row())
	}
}

func (r *Results) latencyTables(b *strings.Builder) {
	kinds := []string{"macvlan", "bridge", "macvlan, dual-stack", "macvlan, dual-stack, optimistic", "bridge, dual-stack"}
	for _, op := range []string{"ADD", "DEL"} {
		fmt.Fprintf(b, "\n## %s\n\nMedian / p95 in ms (CPU in ms); failed calls, if any.\n\n", op)
		r.table(b, op, kinds, func(s, _ *Series) string {
			cell := fmt.Sprintf("%.1f / %.1f (%.1f)", median(s.walls()), quantile(s.walls(), 0.95), s.cpu())
			if n := s.failed(); n > 0 {
				cell += fmt.Sprintf(" **%d of %d failed**", n, len(s.Samples))
			}
			return cell
		}, "")
		for _, to := range []string{thickPeer, thinPeer, floorPeer} {
			if !contains(r.Peers, to) {
				continue
			}
			fmt.Fprintf(b, "\n%s, ratio to %s:\n\n", op, to)
			r.table(b, op, kinds, func(s, base *Series) string {
				if base == nil {
					return "–"
				}
				return fmt.Sprintf("%.3f", paired(s, base))
			}, to)
		}
		for _, kind := range []string{"macvlan", "bridge"} {
			if r.find("latency", kind, 1, r.best(), op) != nil {
				fmt.Fprintf(b, "\n![%s, %s](benchmarks/%s-%s.svg)\n", op, kind, strings.ToLower(op), kind)
			}
		}
	}
}

// table has a row for each kind and number of networks, a column for each peer.
func (r *Results) table(b *strings.Builder, op string, kinds []string, cell func(s, base *Series) string, base string) {
	fmt.Fprintf(b, "| networks | more | %s |\n|---|---|%s\n", strings.Join(r.Peers, " | "), strings.Repeat("---|", len(r.Peers)))
	for _, kind := range kinds {
		for _, n := range r.xs("latency", kind) {
			fmt.Fprintf(b, "| %s | %d |", kind, n)
			for _, p := range r.Peers {
				if s := r.find("latency", kind, n, p, op); s != nil {
					fmt.Fprintf(b, " %s |", cell(s, r.find("latency", kind, n, base, op)))
				} else {
					b.WriteString(" |")
				}
			}
			b.WriteString("\n")
		}
	}
}

// xs returns what a section of a kind was measured at, in order.
func (r *Results) xs(section, kind string) (xs []int) {
	for _, s := range r.Series {
		if s.Section == section && s.Kind == kind && !slices.Contains(xs, s.X) {
			xs = append(xs, s.X)
		}
	}
	slices.Sort(xs)
	return xs
}

func (r *Results) stormTable(b *strings.Builder) {
	if len(r.Storms) == 0 {
		return
	}
	b.WriteString("\n## Storms\n\nPods attached all at once, then detached all at once.\n\n" +
		"| networks | at once | peer | verb | pods/s | failed | p50 ms | p99 ms | max ms | CPU ms a pod |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, s := range r.Storms {
		failed := fmt.Sprintf("%d of %d", s.Failed, s.Pods)
		if s.Failed > 0 {
			failed = "**" + failed + "**"
		}
		fmt.Fprintf(b, "| %d %s | %d | %s | %s | %.1f | %s | %.0f | %.0f | %.0f | %.1f |\n", s.Networks, s.Kind, s.AtOnce, s.Peer, s.Op, s.PodsPerSecond, failed, s.P50, s.P99, s.Max, s.CPUPerPod)
	}
	for _, s := range r.Storms {
		if s.Failed > 0 && s.Peer != braidPeer && s.Peer != braidDaemonPeer {
			fmt.Fprintf(b, "\n%s with %d at once, an error: `%s`\n", s.Peer, s.AtOnce, strings.ReplaceAll(short(s.Error), "`", "'"))
		}
	}
}

var growths = []struct{ section, kind, title, x string }{
	{"allocation", "host-local", "Allocation of one address", "reservations"},
	{"ports", "bridge", "One port more at a bridge", "ports"},
	{"masquerade", "bridge", "One pod more that is masqueraded", "pods"},
	{"definitions", "macvlan", "One macvlan network, of many NetworkAttachmentDefinitions", "NADs in the API server"},
	{"dhcp", "macvlan", "Networks with addresses by DHCP", "networks"},
}

func (r *Results) growthTables(b *strings.Builder) {
	for _, g := range growths {
		xs := r.xs(g.section, g.kind)
		if len(xs) == 0 {
			continue
		}
		fmt.Fprintf(b, "\n## %s\n\nMedian / p95 in ms (CPU in ms).\n\n| peer | verb |", g.title)
		for _, x := range xs {
			fmt.Fprintf(b, " %s %s |", number(float64(x)), g.x)
		}
		b.WriteString("\n|---|---|" + strings.Repeat("---|", len(xs)) + "\n")
		for _, p := range r.peersOf(g.section) {
			for _, op := range []string{"ADD", "DEL"} {
				fmt.Fprintf(b, "| %s | %s |", p, op)
				for _, x := range xs {
					if s := r.find(g.section, g.kind, x, p, op); s != nil {
						fmt.Fprintf(b, " %.1f / %.1f (%.1f) |", median(s.walls()), quantile(s.walls(), 0.95), s.cpu())
					} else {
						b.WriteString(" – |")
					}
				}
				b.WriteString("\n")
			}
		}
		if len(xs) > 1 {
			fmt.Fprintf(b, "\n![%s](benchmarks/%s.svg)\n", g.title, g.section)
		}
	}
}

func (r *Results) peersOf(section string) (peers []string) {
	for _, s := range r.Series {
		if s.Section == section && !contains(peers, s.Peer) {
			peers = append(peers, s.Peer)
		}
	}
	return peers
}

func (r *Results) countTable(b *strings.Builder) {
	if len(r.Counts) == 0 {
		return
	}
	b.WriteString("\n## What a call needs\n\nProcesses executed, requests that the API server got until 1.5 s after the call, peak memory of the largest process.\n\n" +
		"| networks | peer | verb | processes | API requests | MiB |\n|---|---|---|---|---|---|\n")
	for _, c := range r.Counts {
		var requests []string
		for _, k := range slices.Sorted(maps.Keys(c.Requests)) {
			requests = append(requests, fmt.Sprintf("%d %s", c.Requests[k], k))
		}
		fmt.Fprintf(b, "| %d %s | %s | %s | %d | %s | %.1f |\n", c.Networks, c.Kind, c.Peer, c.Op, c.Processes, strings.Join(requests, ", "), float64(c.PeakKiB)/1024)
	}
}

func (r *Results) valueTable(b *strings.Builder) {
	if len(r.Values) == 0 {
		return
	}
	b.WriteString("\n## Single figures\n\n| what | |\n|---|---|\n")
	for _, k := range slices.Sorted(maps.Keys(r.Values)) {
		fmt.Fprintf(b, "| %s | %.1f |\n", k, r.Values[k])
	}
}

func (r *Results) plots() map[string]*plot {
	plots := make(map[string]*plot)
	for _, op := range []string{"ADD", "DEL"} {
		for _, kind := range []string{"macvlan", "bridge"} {
			plots[strings.ToLower(op)+"-"+kind] = r.plot("latency", kind, op, op+" of a pod, "+kind, "further networks", false)
		}
	}
	for _, g := range growths {
		plots[g.section] = r.plot(g.section, g.kind, "ADD", g.title+", ADD", g.x, true)
	}
	return plots
}

func (r *Results) plot(section, kind, op, title, x string, log bool) *plot {
	p := &plot{title: title, x: x, y: "ms, median", log: log}
	for _, peer := range r.peersOf(section) {
		c := curve{name: peer}
		for _, x := range r.xs(section, kind) {
			if s := r.find(section, kind, x, peer, op); s != nil {
				c.points = append(c.points, [2]float64{float64(x), median(s.walls())})
			}
		}
		if len(c.points) > 1 {
			p.curves = append(p.curves, c)
		}
	}
	return p
}

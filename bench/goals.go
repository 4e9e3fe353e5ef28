package main

import (
	"fmt"
	"math"
	"strings"
)

// A goal is what Braid promises, and what was found.
type goal struct {
	work  string
	limit string
	found []string
	met   bool
	known bool // whether it was measured
}

// evaluate compares the results with the goals.
func (r *Results) evaluate() (goals []goal) {
	// A goal with several figures, each of which has to be within its limit.
	add := func(work, limit string, values []float64, limits []float64, most bool, format string) {
		g := goal{work: work, limit: limit, met: true}
		for i, v := range values {
			if math.IsNaN(v) {
				g.found = append(g.found, "–")
				continue
			}
			g.known = true
			g.found = append(g.found, fmt.Sprintf(format, v))
			if most && v > limits[i] || !most && v < limits[i] {
				g.met = false
			}
		}
		goals = append(goals, g)
	}
	ratios := func(kind, op, ours, theirs string) (v []float64) {
		for _, n := range []int{1, 4, 8} {
			v = append(v, paired(r.find("latency", kind, n, ours, op), r.find("latency", kind, n, theirs, op)))
		}
		return v
	}
	for _, kind := range []string{"macvlan", "bridge"} {
		add("ADD with the daemon, 1 / 4 / 8 further "+kind+" networks, against Multus thick", "at most 0.20 / 0.13 / 0.10",
			ratios(kind, "ADD", braidDaemonPeer, thickPeer), []float64{.20, .13, .10}, true, "%.3f")
		add("ADD one-shot, 1 / 4 / 8 further "+kind+" networks, against Multus thin", "at most 0.35 / 0.25 / 0.20",
			ratios(kind, "ADD", braidPeer, thinPeer), []float64{.35, .25, .20}, true, "%.3f")
		add("DEL, 1 / 4 / 8 further "+kind+" networks, against Multus thick", "at most 0.32 / 0.18 / 0.11",
			ratios(kind, "DEL", r.best(), thickPeer), []float64{.32, .18, .11}, true, "%.3f")
	}
	more := func(op string) float64 {
		a, b := r.find("latency", "macvlan", 0, r.best(), op), r.find("latency", "macvlan", 8, r.best(), op)
		if a == nil || b == nil {
			return math.NaN()
		}
		return (median(b.walls()) - median(a.walls())) / 8
	}
	add("one more macvlan network, ADD / DEL, ms", "at most 2 / 1", []float64{more("ADD"), more("DEL")}, []float64{2, 1}, true, "%.2f")
	for _, kind := range []string{"macvlan", "bridge"} {
		add("ADD with the daemon against the least program, 1 / 4 / 8 further "+kind+" networks", "at most 1.3",
			ratios(kind, "ADD", braidDaemonPeer, floorPeer), []float64{1.3, 1.3, 1.3}, true, "%.3f")
	}
	storm := func(peer string) *Storm {
		for i := range r.Storms {
			if s := &r.Storms[i]; s.Peer == peer && s.Op == "ADD" && s.AtOnce == 100 && s.Kind == "macvlan" {
				return s
			}
		}
		return nil
	}
	factor, failed := math.NaN(), math.NaN()
	if ours, theirs := storm(r.best()), storm(thickPeer); ours != nil && theirs != nil {
		factor, failed = ours.PodsPerSecond/theirs.PodsPerSecond, float64(ours.Failed)
	}
	add("storm of 100 pods with 4 networks each, pods/s against Multus thick", "at least 6 times", []float64{factor}, []float64{6}, false, "%.1f times")
	add("failures in that storm", "none", []float64{failed}, []float64{0}, true, "%.0f")
	allocation := func(reservations int) float64 {
		s := r.find("allocation", "host-local", reservations, standalonePeer, "ADD")
		if s == nil {
			return math.NaN()
		}
		return median(s.walls())
	}
	add("host-local allocation, 60,000 reservations against 10", "at most 1.2", []float64{allocation(60_000) / allocation(10)}, []float64{1.2}, true, "%.2f")
	// Of the calls with and without it, which take turns: what else the machine does hits both.
	masquerade := func(pods int) float64 {
		find := func(peer string) *Series { return r.find("masquerade", "bridge", pods, peer, "ADD") }
		return pairedDiff(find(standalonePeer), find(standalonePeer+withoutMasquerade))
	}
	add("masquerade, 1,000 pods against 1, ms", "at most 1 more", []float64{masquerade(1000) - masquerade(1)}, []float64{1}, true, "%+.2f")
	dual := func(at place, n int) float64 {
		return paired(r.find("latency", at.String(), n, r.best(), "ADD"), r.find("latency", at.String(), n, r.best()+singleStack, "ADD"))
	}
	waiting, optimistic, bridge := place{kind: "macvlan", dual: true}, place{kind: "macvlan", dual: true, optimistic: true}, place{kind: "bridge", dual: true}
	add("dual-stack ADD against IPv4 only, 1 / 4 macvlan networks", "at most 1.3", []float64{dual(waiting, 1), dual(waiting, 4)}, []float64{1.3, 1.3}, true, "%.2f")
	add(`the same with "enabledad": "optimistic"`, "at most 1.3", []float64{dual(optimistic, 1), dual(optimistic, 4)}, []float64{1.3, 1.3}, true, "%.2f")
	add("dual-stack ADD against IPv4 only, 1 / 4 bridge networks", "at most 1.3", []float64{dual(bridge, 1), dual(bridge, 4)}, []float64{1.3, 1.3}, true, "%.2f")
	count := func(peer string, f func(Count) float64) float64 {
		for _, c := range r.Counts {
			if c.Peer == peer && c.Op == "ADD" && c.Networks == 4 {
				return f(c)
			}
		}
		return math.NaN()
	}
	processes := count(r.best(), func(c Count) float64 { return float64(c.Processes) })
	requests := math.NaN()
	if _, ok := r.Values["ADD of "+braidDaemonPeer+" while the API server is stopped, ms"]; ok {
		requests = 0 // it came to its end without an answer to any
	}
	add("processes per ADD with the daemon / API requests on its way", "1 / 0", []float64{processes, requests}, []float64{1, 0}, true, "%.0f")
	value := func(name string) float64 {
		if v, ok := r.Values[name]; ok {
			return v
		}
		return math.NaN()
	}
	peak := func(c Count) float64 { return float64(c.PeakKiB) / 1024 }
	add("peak memory of the plugin, with the daemon / without, MiB", "at most 16",
		[]float64{count(r.best(), peak), count(braidPeer, peak)}, []float64{16, 16}, true, "%.1f")
	add("memory of the daemon with 1,000 NADs and 100 pods, MiB", "at most 60",
		[]float64{value("memory of the daemon of " + braidDaemonPeer + ", 1000 NADs, MiB")}, []float64{60}, true, "%.1f")
	return goals
}

// best is the peer that the goals are about: with the daemon, or without where this run had none.
func (r *Results) best() string {
	if contains(r.Peers, braidDaemonPeer) {
		return braidDaemonPeer
	}
	return braidPeer
}

func (g goal) row() string {
	verdict := "not measured"
	if g.known {
		verdict = "**no**"
		if g.met {
			verdict = "yes"
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s |\n", g.work, g.limit, strings.Join(g.found, " / "), verdict)
}

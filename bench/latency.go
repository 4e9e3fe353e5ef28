package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// pause lets the kernel and the daemons end what a call has left for later, so that the next one does not pay for it.
const pause = 20 * time.Millisecond

// A turn is a peer's call in a loop.
type turn struct {
	peer  *peer
	steps []step
	c     func() container
}

// latency measures ADD and DEL at a place, the peers by turns.
func (b *bench) latency(section string, at place, x, rounds int, peers []*peer) {
	b.t.Logf("%s: %s, %d further networks: %d rounds", section, at, at.n, rounds)
	turns := b.turnsAt(at, peers)
	b.settle()
	b.rounds(section, at.String(), x, rounds, at.n+1, turns)
}

// singleStack ends the name of a peer whose calls take turns with its own of dual stack.
const singleStack = ", IPv4 only"

// dualStack is latency at a place of dual stack. The peer that the goals are about is called with IPv4 only as well.
func (b *bench) dualStack(at place, rounds int, peers []*peer) {
	b.t.Logf("latency: %s, %d further networks: %d rounds", at, at.n, rounds)
	turns := b.turnsAt(at, peers)
	for _, u := range b.turnsAt(place{kind: at.kind, n: at.n}, b.local(b.results.best())) {
		q := *u.peer
		q.name += singleStack
		u.peer = &q
		turns = append(turns, u)
	}
	b.settle()
	b.rounds("latency", at.String(), at.n, rounds, at.n+1, turns)
}

// turnsAt makes the pods that the peers attach to a place, with their networks.
func (b *bench) turnsAt(at place, peers []*peer) (turns []turn) {
	for _, p := range peers {
		b.pod(p, at, 0)
		turns = append(turns, turn{p, p.steps(at, 0), func() container { return b.pod(p, at, 0) }})
	}
	return turns
}

// rounds runs the loop. The first round, which makes bridges and indexes, is not counted. In each round the order is
// another one, so that no peer always pays for the one before it.
func (b *bench) rounds(section, kind string, x, rounds, links int, turns []turn) {
	ns := b.namespaces(len(b.peers))[0]
	for round := range rounds + 1 {
		order := rand.Perm(len(turns))
		samples := make([][2]Sample, len(turns))
		for _, i := range order {
			u := turns[i]
			c := u.c()
			c.netns = ns.Path()
			before := u.peer.daemon.cpu()
			u.peer.caller.used()
			wall, err := u.peer.caller.add(c, u.steps)
			if found := len(ns.Links(b.t)); err == nil && found != links {
				err = fmt.Errorf("%d interfaces after ADD, want %d", found, links)
			}
			time.Sleep(pause)
			between := u.peer.daemon.cpu()
			samples[i][0] = sample(wall, u.peer.caller.used()+between-before, err)
			wall, err = u.peer.caller.del(c, u.steps)
			if left := b.linksGone(ns.Path()); err == nil && len(left) > 0 {
				err = fmt.Errorf("left after DEL: %v", left)
			}
			time.Sleep(pause)
			samples[i][1] = sample(wall, u.peer.caller.used()+u.peer.daemon.cpu()-between, err)
			b.clean(ns)
		}
		if round == 0 {
			for i, s := range samples {
				for _, x := range s {
					if x.Err != "" {
						b.t.Errorf("%s: %s: %s", section, turns[i].peer.name, x.Err)
					}
				}
			}
			continue
		}
		for i, u := range turns {
			for j, op := range []string{"ADD", "DEL"} {
				s := b.results.series(section, kind, x, u.peer.name, op)
				s.Samples = append(s.Samples, samples[i][j])
			}
		}
	}
	for _, u := range turns {
		add, del := b.results.find(section, kind, x, u.peer.name, "ADD"), b.results.find(section, kind, x, u.peer.name, "DEL")
		if add == nil || del == nil {
			b.t.Errorf("%s: %s: no call succeeded", section, u.peer.name)
			continue
		}
		b.t.Logf("  %-14s ADD %7.1f ms (CPU %6.1f)  DEL %7.1f ms (CPU %6.1f)  failed %d+%d",
			u.peer.name, median(add.walls()), add.cpu(), median(del.walls()), del.cpu(), add.failed(), del.failed())
	}
}

func sample(wall, cpu time.Duration, err error) Sample {
	s := Sample{Wall: ms(wall), CPU: ms(cpu)}
	if err != nil {
		s.Err = err.Error()
	}
	return s
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// storm attaches pods all at once, and detaches them all at once.
func (b *bench) storm(p *peer, at place, atOnce, repeats int) {
	namespaces := b.namespaces(atOnce)
	steps := make([][]step, atOnce)
	for i := range atOnce {
		b.pod(p, at, i)
		steps[i] = p.steps(at, i)
	}
	b.settle()
	total := [2]Storm{}
	walls := [2][]float64{}
	elapsed := [2]time.Duration{}
	cpu := [2]time.Duration{}
	for range repeats {
		containers := make([]container, atOnce)
		for i := range containers {
			containers[i] = b.pod(p, at, i)
			containers[i].netns = namespaces[i].Path()
		}
		for j, call := range []func(container, []step) (time.Duration, error){p.caller.add, p.caller.del} {
			before := p.daemon.cpu()
			p.caller.used()
			durations, errs := make([]time.Duration, atOnce), make([]error, atOnce)
			begin := time.Now()
			var wg sync.WaitGroup
			for i := range atOnce {
				wg.Go(func() { durations[i], errs[i] = call(containers[i], steps[i]) })
			}
			wg.Wait()
			elapsed[j] += time.Since(begin)
			time.Sleep(200 * time.Millisecond)
			cpu[j] += p.caller.used() + p.daemon.cpu() - before
			for i := range atOnce {
				total[j].Pods++
				if errs[i] != nil {
					total[j].Failed++
					total[j].Error = errs[i].Error()
					continue
				}
				walls[j] = append(walls[j], ms(durations[i]))
			}
		}
		for _, ns := range namespaces {
			b.clean(ns)
		}
	}
	for j, op := range []string{"ADD", "DEL"} {
		s := total[j]
		s.Kind, s.Peer, s.Op, s.Networks, s.AtOnce = at.String(), p.name, op, at.n, atOnce
		s.PodsPerSecond = float64(s.Pods-s.Failed) / elapsed[j].Seconds()
		s.P50, s.P99, s.CPUPerPod = median(walls[j]), quantile(walls[j], 0.99), ms(cpu[j])/float64(s.Pods)
		if len(walls[j]) > 0 {
			s.Max = slices.Max(walls[j])
		}
		b.results.Storms = append(b.results.Storms, s)
		b.t.Logf("  storm of %d, %s, %d networks: %-14s %s %6.1f pods/s, %d of %d failed, p50 %.0f ms, p99 %.0f ms", atOnce, at, at.n, p.name, op, s.PodsPerSecond, s.Failed, s.Pods, s.P50, s.P99)
	}
}

package main

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// late is how long after a call a daemon may still send requests for it.
const late = 1500 * time.Millisecond

// counts finds out what one ADD and one DEL of each peer need: processes, API requests, memory. None of the calls is
// timed.
func (b *bench) counts(at place) {
	b.t.Logf("counts: %s, %d further networks", at, at.n)
	ns := b.namespaces(1)[0]
	watch := b.watchExecs()
	defer watch.close()
	for _, p := range b.peers {
		steps := p.steps(at, 0)
		b.pod(p, at, 0)
		b.settle()
		for round := range 3 { // the first one makes bridges; the last one tells memory
			if round == 1 && p.daemon != nil {
				time.Sleep(late) // what it sends of the first one
			}
			c := b.pod(p, at, 0)
			c.netns = ns.Path()
			if round == 2 {
				p.caller.launch = filepath.Join(b.bin, "tools", "launch")
			}
			for _, op := range []string{"ADD", "DEL"} {
				call := p.caller.add
				if op == "DEL" {
					call = p.caller.del
				}
				before := b.requests()
				watch.count()
				p.caller.peak = 0
				_, err := call(c, steps)
				if err != nil {
					b.t.Errorf("counts: %s: %s: %v", p.name, op, err)
				}
				processes := watch.count()
				switch round {
				case 1:
					if p.daemon != nil {
						time.Sleep(late) // what a daemon sends later counts too
					}
					n := Count{Kind: at.String(), Peer: p.name, Op: op, Networks: at.n, Processes: processes, Requests: difference(b.requests(), before)}
					b.results.Counts = append(b.results.Counts, n)
				case 2:
					for i := range b.results.Counts {
						if n := &b.results.Counts[i]; n.Peer == p.name && n.Op == op && n.Networks == at.n && n.Kind == at.String() {
							n.PeakKiB = p.caller.peak
							b.t.Logf("  %-14s %s: %d processes, requests %v, %.1f MiB", p.name, op, n.Processes, n.Requests, float64(n.PeakKiB)/1024)
						}
					}
				}
			}
		}
		p.caller.launch = ""
		b.clean(ns)
	}
	b.withoutAPIServer(at)
}

// withoutAPIServer shows that an ADD of the peer with the daemon sends no request: it comes to its end while the API
// server is stopped.
func (b *bench) withoutAPIServer(at place) {
	for _, p := range b.local(braidDaemonPeer) {
		c := b.pod(p, at, 0)
		b.settle()
		c.netns = b.namespaces(1)[0].Path()
		steps := p.steps(at, 0)
		b.cluster.PauseAPIServer(true)
		wall, err := p.caller.add(c, steps)
		delWall, delErr := p.caller.del(c, steps)
		b.cluster.PauseAPIServer(false)
		if err != nil || delErr != nil {
			b.t.Errorf("%s with a stopped API server: %v, %v", p.name, err, delErr)
			return
		}
		b.results.Values["ADD of "+p.name+" while the API server is stopped, ms"] = ms(wall)
		b.results.Values["DEL of "+p.name+" while the API server is stopped, ms"] = ms(delWall)
		b.t.Logf("  %s with a stopped API server: ADD %.1f ms, DEL %.1f ms", p.name, ms(wall), ms(delWall))
	}
}

// requests returns how many requests for pods, networks and events the API server has served, by verb and resource.
func (b *bench) requests() map[string]int {
	n := make(map[string]int)
	for line := range strings.Lines(b.cluster.Get("/metrics")) {
		labels, found := strings.CutPrefix(line, "apiserver_request_total{")
		if !found {
			continue
		}
		labels, value, _ := strings.Cut(labels, "} ")
		set := make(map[string]string)
		for _, l := range strings.Split(labels, ",") {
			k, v, _ := strings.Cut(l, "=")
			set[k] = strings.Trim(v, `"`)
		}
		resource := set["resource"]
		if resource != "pods" && resource != "network-attachment-definitions" && resource != "events" || set["verb"] == "WATCH" {
			continue
		}
		if s := set["subresource"]; s != "" {
			resource += "/" + s
		}
		f, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
		n[set["verb"]+" "+resource] += int(f)
	}
	return n
}

func difference(after, before map[string]int) map[string]int {
	d := maps.Clone(after)
	for k := range d {
		if d[k] -= before[k]; d[k] == 0 {
			delete(d, k)
		}
	}
	return d
}

// An execWatch counts the programs that are executed from the folders of the peers.
type execWatch struct {
	fd int
}

// watchExecs asks the kernel to tell of them: no program has to be wrapped or traced, so nothing changes for it.
func (b *bench) watchExecs() *execWatch {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_NONBLOCK|unix.FAN_CLOEXEC, unix.O_RDONLY)
	b.t.must(err)
	for _, dir := range []string{"braid", "reference", "multus", "floor"} {
		if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD, unix.FAN_OPEN_EXEC|unix.FAN_EVENT_ON_CHILD, unix.AT_FDCWD, filepath.Join(b.bin, dir)); err != nil {
			b.t.Fatalf("fanotify %s: %v", dir, err)
		}
	}
	return &execWatch{fd: fd}
}

// count returns how many there were since it was last called.
func (w *execWatch) count() (n int) {
	buf := make([]byte, 64<<10)
	for {
		length, err := unix.Read(w.fd, buf)
		if err != nil || length <= 0 {
			return n
		}
		for r := bytes.NewReader(buf[:length]); ; {
			var event unix.FanotifyEventMetadata
			if binary.Read(r, binary.NativeEndian, &event) != nil {
				break
			}
			_, _ = r.Seek(int64(event.Event_len)-int64(unsafe.Sizeof(event)), 1)
			_ = syscall.Close(int(event.Fd))
			n++
		}
	}
}

func (w *execWatch) close() { _ = os.NewFile(uintptr(w.fd), "fanotify").Close() }

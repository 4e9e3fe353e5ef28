package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"bytes"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"
)

// A step is one network that libcni is asked to attach: the only one for a meta-plugin.
type step struct {
	list   *libcni.NetworkConfigList
	ifName string
}

// A caller calls plugins as container runtimes do, by libcni, and takes note of what they cost.
type caller struct {
	path     []string // where plugins are
	cacheDir string   // of libcni
	launch   string   // runs plugins and tells their memory, if not empty
	version.PluginDecoder

	mu   sync.Mutex
	cpu  time.Duration
	peak int // KiB
}

var _ invoke.Exec = (*caller)(nil)

// ExecPlugin implements [invoke.Exec].
func (r *caller) ExecPlugin(ctx context.Context, plugin string, stdin []byte, env []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, plugin)
	peak := ""
	if r.launch != "" {
		f, err := os.CreateTemp("/run", "peak-")
		if err != nil {
			return nil, err
		}
		f.Close()
		peak = f.Name()
		defer os.Remove(peak)
		cmd = exec.CommandContext(ctx, r.launch, peak, plugin)
	}
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState != nil {
		r.mu.Lock()
		r.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if b, err := os.ReadFile(peak); peak != "" && err == nil {
			kib, _ := strconv.Atoi(string(b))
			r.peak = max(r.peak, kib)
		}
		r.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s %s", filepath.Base(plugin), err, short(stdout.String()), short(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// FindInPath implements [invoke.Exec].
func (r *caller) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[max(0, len(s)-400):]
}

// A container is what a runtime has of a pod.
type container struct {
	id, netns string
	pod       string
	uid       string
	// annotations of the pod. containerd hands them to a plugin that says that it can use them.
	annotations map[string]string
}

const (
	callTimeout    = 3 * time.Minute
	podAnnotations = "io.kubernetes.cri.pod-annotations" // capability
)

// add attaches a container to networks, one after the other, and returns how long that took.
func (r *caller) add(c container, steps []step) (wall time.Duration, err error) {
	return r.each(c, steps, func(ctx context.Context, cni *libcni.CNIConfig, s step, rt *libcni.RuntimeConf) error {
		_, err := cni.AddNetworkList(ctx, s.list, rt)
		return err
	})
}

// del detaches it, in the order of add, going on after an error.
func (r *caller) del(c container, steps []step) (wall time.Duration, err error) {
	return r.each(c, steps, func(ctx context.Context, cni *libcni.CNIConfig, s step, rt *libcni.RuntimeConf) error {
		return cni.DelNetworkList(ctx, s.list, rt)
	})
}

func (r *caller) each(c container, steps []step, f func(context.Context, *libcni.CNIConfig, step, *libcni.RuntimeConf) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	cni := libcni.NewCNIConfigWithCacheDir(r.path, r.cacheDir, r)
	start := time.Now()
	var errs []error
	for _, s := range steps {
		rt := &libcni.RuntimeConf{ContainerID: c.id, NetNS: c.netns, IfName: s.ifName, Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", c.pod},
			{"K8S_POD_INFRA_CONTAINER_ID", c.id}, {"K8S_POD_UID", c.uid},
		}}
		if c.annotations != nil {
			rt.CapabilityArgs = map[string]any{podAnnotations: c.annotations}
		}
		errs = append(errs, f(ctx, cni, s, rt))
	}
	return time.Since(start), errors.Join(errs...)
}

// used returns the CPU time of the processes since it was last called.
func (r *caller) used() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	cpu := r.cpu
	r.cpu = 0
	return cpu
}

func conflist(t *tb, format string, args ...any) *libcni.NetworkConfigList {
	list, err := libcni.NetworkConfFromBytes(fmt.Appendf(nil, format, args...))
	t.must(err)
	return list
}

// A daemon is a long-lived process of a peer.
type daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// startDaemon starts a program that ends with the run.
func startDaemon(t *tb, name string, env []string, path string, args ...string) *daemon {
	log, err := os.Create(filepath.Join(t.dir, name+".log"))
	t.must(err)
	defer log.Close()
	d := &daemon{cmd: exec.Command(path, args...), log: log.Name(), done: make(chan struct{})}
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // the main goroutine keeps its thread
	t.must(d.cmd.Start())
	go func() {
		_ = d.cmd.Wait()
		close(d.done)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.done:
		case <-time.After(5 * time.Second):
			_ = d.cmd.Process.Kill()
			<-d.done
		}
	})
	return d
}

// until waits for a condition that the daemon is to bring about.
func (d *daemon) until(t *tb, what string, condition func() bool) {
	for deadline := time.Now().Add(60 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		select {
		case <-d.done:
			t.Fatalf("%s: the daemon has ended:\n%s", what, tail(d.log))
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute:\n%s", what, tail(d.log))
		}
	}
}

// pids are those of the daemon and of the processes that it has started and that are there.
func (d *daemon) pids() []int {
	list := []int{d.cmd.Process.Pid}
	for i := 0; i < len(list); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", list[i]))
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for _, child := range strings.Fields(string(b)) {
				pid, _ := strconv.Atoi(child)
				list = append(list, pid)
			}
		}
	}
	return list
}

// cpu is the time that the daemon has used, with all processes that it has started.
func (d *daemon) cpu() time.Duration {
	if d == nil {
		return 0
	}
	ticks := 0
	for _, pid := range d.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it has ended, and is in what its parent has waited for
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
		for _, f := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.Atoi(f)
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memory returns what the daemon, with the processes that it has started, has in memory now, and had at most, in KiB.
func (d *daemon) memory() (now, peak int) {
	for _, pid := range d.pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			var kib int
			if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
				now += kib
			}
			if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
				peak += kib
			}
		}
	}
	return now, peak
}

func tail(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, _ := io.ReadAll(f)
	return string(b[max(0, len(b)-2000):])
}

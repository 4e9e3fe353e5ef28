package manifests

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/internal/atomicfile"
	"github.com/braid-cni/braid/internal/flock"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// A Resolver answers from a folder of manifests, which it reads anew for each request.
type Resolver struct {
	Dir string

	// StatusDir is where Report writes NAMESPACE_NAME.json, a [resolve.Report], for each pod. It is made if it does not
	// exist. A later report of the pod replaces the file; nothing but the reader of the file removes it, as little as
	// DEL removes the annotation of a pod.
	StatusDir string

	Log *slog.Logger // takes the reports if there is no StatusDir
}

var _ resolve.Resolver = (*Resolver)(nil)

// Resolve implements [resolve.Resolver]. A folder with a mistake in any file answers nothing.
//
// A pod whose manifest has no UID is taken for the one that is asked for.
func (r *Resolver) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	objects, err := Read(r.Dir)
	if err != nil {
		return nil, &resolve.Error{Reason: resolve.Invalid, Message: fmt.Sprintf("read manifests: %v", err)}
	}
	answer, _, err := lookup.Resolve(ctx, folder{r.Dir, objects}, q)
	return answer, err
}

// Report implements [resolve.Resolver].
func (r *Resolver) Report(ctx context.Context, report *resolve.Report) error {
	pod := report.Pod.Namespace + "/" + report.Pod.Name
	if r.StatusDir != "" {
		if err := r.write(ctx, report); err != nil {
			return &resolve.Error{Reason: resolve.Invalid, Message: fmt.Sprintf("write status of pod %s: %v", pod, err)}
		}
		return nil
	}
	for _, e := range report.Events {
		r.Log.InfoContext(ctx, e.Message, "pod", pod, "type", e.Type, "reason", e.Reason)
	}
	if report.Status != nil {
		r.Log.InfoContext(ctx, "network-status", "pod", pod, "status", string(report.Status))
	}
	return nil
}

// prepared is the name in StatusDir of what is written, until it takes its place. There is one: what a killed process has left
// of it goes with the next report, of whichever pod.
const prepared = ".report"

func (r *Resolver) write(ctx context.Context, report *resolve.Report) error {
	// The names become that of a file. Neither can have an underscore.
	for _, name := range []string{report.Pod.Namespace, report.Pod.Name} {
		if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
			return fmt.Errorf("found name %q: %s", name, wrong[0])
		}
	}
	if err := os.MkdirAll(r.StatusDir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, r.StatusDir)
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(r.StatusDir, report.Pod.Namespace+"_"+report.Pod.Name+".json")
	file := *report
	if file.Status == nil {
		file.Status = oldStatus(path)
	}
	doc, err := json.MarshalIndent(file, "", "    ")
	if err != nil {
		return err
	}
	return atomicfile.WriteVia(filepath.Join(r.StatusDir, prepared), path, append(doc, '\n'), 0o644)
}

// lock keeps other processes out of a folder until unlock is called.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = flock.Lock(ctx, fd, unix.LOCK_EX)
	}
	if err != nil {
		return nil, &os.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { _ = unix.Close(fd) }, nil
}

// maxStatus is more than what a report has, in bytes.
const maxStatus = 16 << 20

// oldStatus returns the status that an earlier report left, if it can be read.
func oldStatus(path string) json.RawMessage {
	var old resolve.Report
	if doc, err := atomicfile.Read(path, maxStatus); err != nil || json.Unmarshal(doc, &old) != nil {
		return nil
	}
	return old.Status
}

// A folder is the source of one answer.
type folder struct {
	dir string
	*Objects
}

// Pod implements [lookup.Source].
func (f folder) Pod(_ context.Context, want resolve.Pod) (*lookup.Pod, error) {
	for _, p := range f.Pods {
		if p.Namespace != want.Namespace || p.Name != want.Name {
			continue
		}
		pod := &lookup.Pod{UID: string(p.UID), Annotations: p.Annotations}
		if pod.UID != "" && !pod.Is(want) {
			return nil, notFound("pod %s/%s in %s has UID %s, want %s", want.Namespace, want.Name, f.dir, pod.UID, want.UID)
		}
		return pod, nil
	}
	return nil, notFound("pod %s/%s not found in %s", want.Namespace, want.Name, f.dir)
}

// Network implements [lookup.Source].
func (f folder) Network(_ context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	for _, n := range f.Networks {
		if n.Namespace == name.Namespace && n.Name == name.Name {
			return &resolve.Network{Config: n.Spec.Config, Annotations: n.Annotations}, nil
		}
	}
	return nil, nil
}

func notFound(format string, args ...any) error {
	return &resolve.Error{Reason: resolve.NotFound, Message: fmt.Sprintf(format, args...)}
}

// Package delegate is the meta-plugin: a plugin made of other plugins. It learns which networks a pod selects, plans
// the attachments ([NewPlan]), makes them, and answers with one merged result. Every verb but ADD works from the journal
// alone.
package delegate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/program"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/resolve"
)

const reportTime = 5 * time.Second // for the event of a failed ADD

// A Delegator serves any entry configuration. It holds no state but its Memory, and is safe for concurrent use.
type Delegator struct {
	Own      NewPlugins  // required
	Resolver NewResolver // required where a configuration names an API server or manifests
	Stderr   io.Writer   // where logs go unless the configuration names a file; required
	BootID   string      // of the running kernel; required
	Observer Observer    // nil if nobody observes
	// Caller says whether the plugin process that waits for a call still does. It is nil in that process itself. The call of
	// one that does not wait any more fails with [cni.ErrElsewhere], before anything is changed.
	Caller func() error
	// Executor runs plugins of others; nil means that this process does. Where there is a Caller this process executes nothing:
	// without Executor a call that needs the plugin of somebody else fails with [cni.ErrElsewhere] too.
	Executor program.Runner

	// Memory is for a process that serves many calls; nil remembers nothing from one to the next.
	Memory *memo.Memory

	// Later does what a runtime need not wait for, such as to tell the Observer. It is nil in a process that does not stay to do
	// it.
	Later func(do func())

	// DeviceInfo is the folder of the files of the Device Information Specification; empty for the one that it names.
	DeviceInfo string
}

// NewPlugins returns the plugins that run in-process, by type. The plugins that they use themselves, for addresses, they
// look up with find, which keeps to what the operator has configured.
type NewPlugins func(find cni.Lookup) map[string]cni.Plugin

// NewResolver connects to what knows the pods and networks of a cluster. Closing it ends the connection.
type NewResolver func(c *conf.Config, log *slog.Logger) (interface {
	resolve.Resolver
	io.Closer
}, error)

var _ cni.Late = (*Delegator)(nil)

// A call is one request with what its configuration says.
type call struct {
	*Delegator
	req     *cni.Request
	conf    *conf.Config
	journal *journal.Journal
	path    []string              // where binaries are looked up
	own     map[string]cni.Plugin // by type
	log     *slog.Logger
}

func (d *Delegator) call(req *cni.Request) (*call, error) {
	c, err := conf.ParseWith(d.Memory, req.Config)
	if err != nil {
		return nil, err
	}
	return d.callWith(req, c)
}

func (d *Delegator) callWith(req *cni.Request, c *conf.Config) (*call, error) {
	j, err := journal.Open(filepath.Join(c.CNIDir, "attachments"))
	if err != nil {
		return nil, err
	}
	j.Memory = d.Memory
	j.Later = d.Later
	log := newLogger(c, d.Stderr).With("container", req.ContainerID, "ifname", req.IfName)
	for _, key := range c.Ignored {
		log.Warn("key has no effect", "key", key)
	}
	elsewhere := slices.DeleteFunc(slices.Clone(req.Path), func(dir string) bool { return dir == c.BinDir })
	path := slices.Insert(elsewhere, 0, c.BinDir)
	k := &call{Delegator: d, req: req, conf: c, journal: j, path: path, log: log}
	k.own = d.Own(k.find)
	return k, nil
}

// find is the lookup of plugins: Braid's own, unless the operator wants the binary of that type executed.
func (c *call) find(pluginType string) cni.Plugin {
	if own, ok := c.own[pluginType]; ok && !slices.Contains(c.conf.Exec, pluginType) {
		return own
	}
	return c.exec(pluginType)
}

// exec is the plugin of somebody else.
func (c *call) exec(pluginType string) cni.Exec {
	return cni.Exec{Type: pluginType, Stderr: c.Stderr, Timeout: c.conf.Deadlines.Plugin, Executor: c.Executor}
}

// mayDo says whether this process may do the call, for which it holds the lock of the container, by way of some chains.
func (c *call) mayDo(chains ...*chain.Chain) error {
	if c.Caller == nil {
		return nil
	}
	if err := c.Caller(); err != nil {
		return errors.Join(cni.ErrElsewhere, err)
	}
	for _, ch := range chains {
		if c.Executor == nil && !ch.InProcess() {
			return cni.ErrElsewhere
		}
	}
	return nil
}

// chains are those that have made the attachments of a record.
func (c *call) chains(r *journal.Record) (list []*chain.Chain) {
	for i := range r.Attachments {
		list = append(list, c.chainOf(&r.Attachments[i]))
	}
	return list
}

// findBinary prefers what is installed on the node to what Braid has.
func (c *call) findBinary(pluginType string) cni.Plugin {
	binary := c.exec(pluginType)
	if _, err := binary.Find(c.path); err != nil {
		return c.find(pluginType)
	}
	return binary
}

// pod is what the runtime says of the pod; its name is empty if the container is no pod of Kubernetes. Podman hands over
// a name without a namespace, for a plugin of its own (dnsname).
func (c *call) pod() resolve.Pod {
	namespace, _ := c.req.Arg("K8S_POD_NAMESPACE")
	name, _ := c.req.Arg("K8S_POD_NAME")
	uid, _ := c.req.Arg("K8S_POD_UID")
	if namespace == "" {
		return resolve.Pod{}
	}
	return resolve.Pod{Namespace: namespace, Name: name, UID: uid}
}

// checkPod refuses names that no pod can have. They become parts of requests and of names of files.
func (c *call) checkPod() error {
	pod := c.pod()
	if pod.Namespace == "" || pod.Name == "" || conf.IsPod(pod.Namespace, pod.Name) {
		return nil
	}
	return types.NewError(types.ErrInvalidEnvironmentVariables, fmt.Sprintf("invalid environment: CNI_ARGS has K8S_POD_NAMESPACE %.80q and K8S_POD_NAME %.80q: "+
		"want the names of a namespace and a pod", pod.Namespace, pod.Name), "")
}

// undo takes back what a record says may exist, last attachment first. What could not be undone stays in the record,
// for the next DEL, GC or sweep; a record of which nothing is left is removed.
func (c *call) undo(ctx context.Context, r *journal.Record) error {
	left, err := c.takeDown(ctx, r)
	if err != nil && left == nil {
		return err // nothing has been done
	}
	r.Done, r.Attachments, r.Pending = false, left, nil
	if len(left) == 0 {
		return c.journal.Remove(r.ContainerID, r.IfName)
	}
	return errors.Join(err, c.journal.Put(r))
}

// takeDown is undo without a change of the journal. Left is what could not be undone.
func (c *call) takeDown(ctx context.Context, r *journal.Record) (left []journal.Attachment, err error) {
	if ns, err := netdev.Open(r.Netns); err == nil {
		defer ns.Close() // it is opened once for all that look at it
	}
	switch alive, err := c.alive(r); {
	case err != nil:
		return nil, err
	case !alive:
		r.Netns = ""
	}
	var errs []error
	begun := len(r.Attachments) // the interfaces of attachments from here on are deleted, or about to be
	deleted := func() {}        // waits for that
	for i := len(r.Attachments) - 1; i >= 0; i-- {
		a := &r.Attachments[i]
		if !c.deletedFirst(a) {
			deleted()
		} else if i < begun {
			for begun = i; begun > 0 && c.deletedFirst(&r.Attachments[begun-1]); begun-- {
			}
			deleted = c.deleteTogether(r, r.Attachments[begun:i+1])
		}
		err := c.chainOf(a).Del(ctx, r.At(a), a.Capabilities, a.Result)
		if err == nil {
			err = c.deviceInfo().remove(r.At(a), a.Name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("network %s: %s: %w", a.Name, a.IfName, err))
			left = slices.Insert(left, 0, *a)
		}
	}
	deleted()
	return left, errors.Join(errs...)
}

// alive says whether the network namespace of a record still exists. That of another boot does not, whatever lies at
// its path today; and a path like /proc/PID/ns/net can lead to that of another pod by now, or to the node's own. The error
// is that it cannot be told: nothing is undone then, since what is in a namespace would be taken for gone with it.
func (c *call) alive(r *journal.Record) (bool, error) {
	if r.Netns == "" || c.otherBoot(r) {
		return false, nil
	}
	here, err := isAt(r, r.Netns)
	for _, gone := range []error{unix.ENOENT, unix.ENOTDIR, unix.ENAMETOOLONG, unix.ELOOP, unix.EINVAL, unix.ESRCH} {
		if errors.Is(err, gone) {
			return false, nil
		}
	}
	return here, err
}

// isAt says whether the network namespace of a record is the one at a path. If that cannot be opened, its inode has to do.
func isAt(r *journal.Record, path string) (bool, error) {
	inode, err := inodeOf(path)
	if err != nil || inode != r.NetnsInode || r.NetnsCookie == 0 {
		return err == nil && inode == r.NetnsInode, err
	}
	ns, err := netdev.Open(path)
	if errors.Is(err, netdev.ErrGone) {
		return false, nil
	}
	if err != nil {
		return true, nil
	}
	defer ns.Close()
	cookie := ns.Cookie()
	return cookie == 0 || cookie == r.NetnsCookie, nil
}

// otherBoot says whether it is certain that a record is of another boot. The identity of this one may be unreadable.
func (d *Delegator) otherBoot(r *journal.Record) bool {
	return r.BootID != "" && d.BootID != "" && r.BootID != d.BootID
}

// inodeOf tells a namespace from another that exists at the same time.
func inodeOf(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	return st.Ino, nil
}

// tryAgain gives an error the code that says so.
func tryAgain(err error) error {
	return types.NewError(types.ErrTryAgainLater, err.Error(), "")
}

// ready waits for the file by which the default network's provider says that it can be used.
//
// Network CRD specification (6.1.2): the implementation "must then block any pod network attachment/detachment
// operations until the cluster-wide default network is ready". DEL does not wait: it must always work.
func (c *call) ready(ctx context.Context) error {
	file := c.conf.ReadinessIndicatorFile
	if file == "" {
		return nil
	}
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return tryAgain(fmt.Errorf("default network is not ready: readinessindicatorfile %s does not exist", file))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// newLogger writes what is logged to the configured file, or to standard error.
func newLogger(c *conf.Config, stderr io.Writer) *slog.Logger {
	w := stderr
	if c.Log.File != "" {
		w = appender(c.Log.File)
		if c.Log.ToStderr {
			w = io.MultiWriter(w, stderr)
		}
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: c.Log.Level}))
}

// An appender opens its file for each line, so that nothing has to be closed and a file rotated away is let go.
type appender string

func (a appender) Write(b []byte) (int, error) {
	f, err := os.OpenFile(string(a), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Write(b)
}

func names(plan []Planned) string {
	var s []string
	for _, p := range plan {
		s = append(s, p.Name+"@"+p.IfName)
	}
	return strings.Join(s, " ")
}

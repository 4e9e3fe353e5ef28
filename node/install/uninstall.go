package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

// An InUseError says which pods have networks that nobody can take from them once Braid is gone.
type InUseError struct {
	Pods []string // "namespace/name: network@interface, ..."
	Err  error    // why some records could not be read; nil if all were
}

func (e *InUseError) Error() string {
	msg := "pods have networks that only Braid can undo: delete them first, or drain the node; of pods that are gone, braidd sweep undoes them"
	for _, pod := range e.Pods {
		msg += "\n  " + pod
	}
	if e.Err != nil {
		msg += "\n  and unknown ones: " + e.Err.Error()
	}
	return msg
}

func (e *InUseError) Unwrap() error { return e.Err }

// Uninstall takes away what [Install] put on the node, and restores what was there. What others have changed since stays as
// they left it. It can be interrupted and run again; where nothing is installed it succeeds.
//
// If pods still have networks that only Braid can undo the error is an *[InUseError] and nothing has changed, unless force
// is given; their records then stay on the node.
func Uninstall(ctx context.Context, cniDir string, force bool, log *slog.Logger) error {
	if _, err := load(cniDir); errors.Is(err, ErrNotInstalled) {
		log.Info("nothing is installed here", "state", statePath(cniDir))
		return nil
	}
	unlock, err := lock(ctx, cniDir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := load(cniDir)
	if errors.Is(err, ErrNotInstalled) {
		return nil
	}
	if err != nil {
		return err
	}
	if used := s.inUse(); used != nil {
		if !force {
			return fmt.Errorf("%w\nor give --force, which leaves them behind", used)
		}
		log.Warn("uninstalling although it is in use", "err", used)
	}
	s.Removing = true // a guard that still runs leaves alone what is gone
	if err := s.save(); err != nil {
		return err
	}
	if err := s.removeAll(ctx); err != nil {
		return err
	}
	log.Info("uninstalled")
	return nil
}

// inUse returns the pods that need Braid.
func (s *state) inUse() error {
	dir := s.records()
	if !exists(dir) {
		return nil
	}
	j, err := journal.Open(dir)
	if err != nil {
		return err
	}
	records, err := j.All()
	var pods []string
	for _, r := range records {
		if !s.needsBraid(r) {
			continue
		}
		var networks []string
		for _, a := range r.Attachments {
			networks = append(networks, a.Name+"@"+a.IfName)
		}
		pod := r.Pod
		if pod == "" {
			pod = "container " + r.ContainerID
		}
		pods = append(pods, pod+": "+strings.Join(networks, ", "))
	}
	if len(pods) == 0 && err == nil {
		return nil
	}
	slices.Sort(pods)
	return &InUseError{pods, err}
}

func (s *state) records() string { return filepath.Join(s.Options.CNIDir, "attachments") }

// needsBraid says that nobody but Braid can undo a record: it has networks beyond the default one, or Braid's own plugins
// have made that, whose rules for masquerading no other plugin of the type knows.
func (s *state) needsBraid(r *journal.Record) bool {
	executed := s.executed()
	return slices.ContainsFunc(r.Attachments, func(a journal.Attachment) bool {
		return !a.Default || slices.ContainsFunc(a.Network.Plugins, func(p conf.Plugin) bool {
			return slices.Contains(ownPlugins, p.Type) && !slices.Contains(executed, p.Type)
		})
	})
}

// executed are the types that are executed although Braid has them.
func (s *state) executed() []string {
	var c struct{ Exec []string }
	_ = json.Unmarshal(s.Options.Config, &c) // it was valid when it was installed
	return c.Exec
}

// removeBridge removes the bridge of Braid's own network, whose address would be in the way of another CNI that gets the same
// pod CIDR. A bridge that still has ports stays: --force leaves pods behind.
func (s *state) removeBridge() error {
	if s.find(s.Options.bridgeConf()) == nil {
		return nil
	}
	bridge, err := netlink.LinkByName(ownBridge)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the bridge %s: %w", ownBridge, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("look for ports of the bridge %s: %w", ownBridge, err)
	}
	if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == bridge.Attrs().Index }) {
		return nil
	}
	return netlink.LinkDel(bridge)
}

// removeAll takes the configuration away first: from then on the runtime does not call the plugin.
func (s *state) removeAll(ctx context.Context) error {
	if err := s.removeConf(); err != nil {
		return err
	}
	if err := s.removeBridge(); err != nil {
		return err
	}
	for _, f := range slices.Backward(slices.Clone(s.Files)) {
		if err := s.takeAway(f); err != nil {
			return err
		}
	}
	if err := s.removeInterrupted(); err != nil {
		return err
	}
	if err := s.forgetPods(ctx); err != nil {
		return err
	}
	for _, dir := range slices.Backward(s.Dirs) {
		if err := removeEmpty(dir); err != nil {
			return err
		}
	}
	for _, session := range []string{conf.TLSSession, conf.TLSSession + ".tmp"} { // which ADDs have left
		if err := remove(filepath.Join(s.Options.CNIDir, session)); err != nil {
			return err
		}
	}
	if err := removeEmpty(filepath.Join(s.Options.CNIDir, "replaced")); err != nil {
		return err
	}
	// The state goes last: as long as it is there, what is missing can be done. The lock file stays, somebody may wait for it.
	return remove(statePath(s.Options.CNIDir))
}

// removeConf removes our configuration, under whatever name others have given it too.
func (s *state) removeConf() error {
	for _, name := range []string{confName, earlyName} {
		if f := s.find(filepath.Join(s.Options.ConfDir, name)); f != nil {
			if err := s.takeAway(f); err != nil {
				return err
			}
		}
	}
	return s.removeRenamed()
}

// removeRenamed removes what others have renamed our configuration to.
func (s *state) removeRenamed() error {
	paths, err := renamedOwn(s.Options.ConfDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil || validate(b) != nil || !strings.Contains(string(b), s.Options.CNIDir) {
			continue // somebody else's, or not to be told any more
		}
		if err := remove(path); err != nil {
			return err
		}
	}
	return nil
}

// forgetPods removes the records of pods whose default network another CNI will undo.
func (s *state) forgetPods(ctx context.Context) error {
	dir := s.records()
	if !exists(dir) {
		return nil
	}
	j, err := journal.Open(dir)
	if err != nil {
		return err
	}
	records, _ := j.All() // those that cannot be read stay
	kept := 0
	for _, r := range records {
		if s.needsBraid(r) {
			kept++
			continue
		}
		if err := forgetPod(ctx, j, r); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || kept > 0 || slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "lock" }) {
		return err
	}
	return errors.Join(remove(filepath.Join(dir, "lock")), removeEmpty(dir))
}

func forgetPod(ctx context.Context, j *journal.Journal, r *journal.Record) error {
	unlock, err := j.Lock(ctx, r.ContainerID)
	if err != nil {
		return err
	}
	defer unlock()
	return j.Remove(r.ContainerID, r.IfName)
}

// removeEmpty removes a folder unless something is in it, or it is where a container has one of the node's.
func removeEmpty(dir string) error {
	err := os.Remove(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if entries, readErr := os.ReadDir(dir); readErr == nil && len(entries) > 0 || isMountPoint(err) {
		return nil
	}
	return err
}

package install

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A Guard keeps the installation of a node as it should be. Whatever is changed is put back at once; if it is changed again
// and again, with growing pauses.
type Guard struct {
	cniDir string
	log    *slog.Logger
	report func(Notice)

	settle time.Duration // after a change, for whoever makes several
	poll   time.Duration // for changes that were not noticed
	grace  time.Duration // for a default network that is gone, before another one takes its place
	paces  map[string]*pace

	// Of the check that runs, or of the last one.
	again        time.Time // when there is something to do, zero for never
	changed      bool      // there is something to save
	known        map[string]bool
	primarySince time.Time // when the default network was found missing; zero if it is there

	mu      sync.Mutex
	failure error
}

// NewGuard returns a guard of the installation whose plugin has the cniDir. Report is called for each notice, from one
// goroutine; it may be nil.
func NewGuard(cniDir string, log *slog.Logger, report func(Notice)) *Guard {
	return &Guard{
		cniDir: cniDir, log: log, report: report,
		settle: 20 * time.Millisecond, poll: 10 * time.Second, grace: 30 * time.Second,
		paces: map[string]*pace{}, known: map[string]bool{},
	}
}

// Ready says why the configuration is not in place; nil if it is, or if there is no installation to guard.
func (g *Guard) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failure
}

// Run guards until ctx ends. Then it returns nil, and everything stays as it is.
func (g *Guard) Run(ctx context.Context) error {
	w := &watcher{}
	if n, err := fsnotify.NewWatcher(); err == nil {
		defer n.Close()
		w.Watcher, w.events, w.errors = n, n.Events, n.Errors
	} else {
		g.log.Warn("files cannot be watched, so they are looked at every second", "err", err)
		g.poll = time.Second
	}
	for {
		next := g.check(ctx, w)
		if !w.wait(ctx, next, g.settle) {
			return nil
		}
	}
}

// check puts everything right that is not, and returns when to look again.
func (g *Guard) check(ctx context.Context, w *watcher) (next time.Time) {
	g.again = time.Time{}
	err := g.mend(ctx, w)
	if ctx.Err() != nil {
		return time.Now()
	}
	g.mu.Lock()
	g.failure = err
	g.mu.Unlock()
	if err != nil {
		g.problem(Notice{Reason: Failed, Path: g.cniDir, Message: err.Error()})
	} else {
		g.solved(Failed)
	}
	next = time.Now().Add(g.poll)
	if !g.again.IsZero() && g.again.Before(next) {
		next = g.again
	}
	return next
}

func (g *Guard) mend(ctx context.Context, w *watcher) error {
	unlock, err := lock(ctx, g.cniDir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := load(g.cniDir)
	if errors.Is(err, ErrNotInstalled) || err == nil && s.Removing {
		return nil
	}
	if err != nil {
		return err
	}
	w.watch(s.Options.ConfDir, filepath.Dir(s.Primary), s.Options.kubeconfigDir(), s.Options.BinDir)
	g.changed = false
	err = errors.Join(g.mendPrimary(ctx, s), g.mendConf(s), g.mendKubeconfig(s), g.mendBinaries(s))
	if g.changed {
		err = errors.Join(err, s.save())
	}
	return err
}

// mendConf puts the configuration in its place.
func (g *Guard) mendConf(s *state) error {
	content, err := s.compose()
	if err != nil {
		return err
	}
	names, err := confFiles(s.Options.ConfDir)
	if err != nil {
		return err
	}
	own, first := placeFor(names)
	path := filepath.Join(s.Options.ConfDir, own)
	is, err := identity(path)
	if err != nil {
		return err
	}
	if first != "" && own > first {
		g.problem(Notice{Reason: ConfShadowed, Path: filepath.Join(s.Options.ConfDir, first),
			Message: fmt.Sprintf("%s sorts before every name that Braid's configuration can have: remove it, or the runtime uses it in place of Braid", first)})
	} else {
		g.solved(ConfShadowed)
	}
	moved := exists(filepath.Join(s.Options.ConfDir, otherName(own)))
	if is == sumOf(content) && !moved {
		return nil
	}
	n := confNotice(s, path, is, first, moved)
	if !g.may(path) {
		return fmt.Errorf("%s: %s; it keeps happening, so the next attempt waits", path, n.Message)
	}
	if _, err := s.putConf(g.log); err != nil {
		return err
	}
	g.mended(n)
	return s.removeRenamed()
}

func confNotice(s *state, path, is, first string, moved bool) Notice {
	n := Notice{Path: path, Mended: true}
	switch {
	case moved && first != "":
		n.Reason = ConfShadowed
		n.Message = fmt.Sprintf("%s sorts before %s; Braid's configuration has another name now", first, confName)
	case moved:
		n.Reason = ConfShadowed
		n.Message = "nothing sorts before the usual name any more"
	case is == "":
		n.Reason, n.Message = ConfMissing, "it was removed"
		if renamed, _ := renamedOwn(s.Options.ConfDir); len(renamed) > 0 {
			n.Message = "another CNI has renamed it to " + filepath.Base(renamed[0])
		}
	default:
		n.Reason, n.Message = ConfAltered, "it is not as it was written"
	}
	return n
}

// mendPrimary looks after the configuration of the default network.
func (g *Guard) mendPrimary(ctx context.Context, s *state) error {
	o := &s.Options
	if o.ClusterNetwork == Auto {
		if err := g.adopt(s); err != nil {
			return err
		}
	}
	if s.Primary == o.bridgeConf() {
		return g.mendBridge(ctx, s)
	}
	_, err := readPrimary(s.Primary)
	gone := !exists(s.Primary)
	if !gone {
		g.primarySince = time.Time{}
		g.solved(PrimaryMissing)
	}
	switch {
	case err == nil:
		g.solved(PrimaryInvalid)
	case gone:
		g.problem(Notice{Reason: PrimaryMissing, Path: s.Primary, Message: "the configuration of the default network is gone, and pods wait for it" + whereTo(s.Primary)})
	default:
		g.problem(Notice{Reason: PrimaryInvalid, Path: s.Primary, Message: "the configuration of the default network cannot be used, and pods wait: " + err.Error()})
	}
	return nil
}

// whereTo says what a file may have been renamed to.
func whereTo(path string) string {
	renamed, err := filepath.Glob(path + ".*")
	if err != nil || len(renamed) == 0 {
		return ""
	}
	return "; it may have been renamed to " + strings.Join(renamed, ", ")
}

// adopt takes the configuration that a runtime would use without Braid. One that comes before the present one is taken at
// once, as the runtime would. The next one is only taken some time after the present one is gone: a CNI that is restarted
// may take its own away for a moment.
func (g *Guard) adopt(s *state) error {
	path, n, _, err := findPrimary(s.Options.ConfDir)
	if err != nil || path == "" || path == s.Primary {
		return err
	}
	if s.keepsPrimary(path) {
		if exists(s.Primary) {
			return nil // and not valid: mendPrimary says so
		}
		if g.primarySince.IsZero() {
			g.primarySince = time.Now()
		}
		if until := g.primarySince.Add(g.grace); time.Now().Before(until) {
			g.wake(until)
			return nil
		}
	}
	old := s.Primary
	s.use(path, n.Name)
	g.primarySince = time.Time{}
	g.mended(Notice{Reason: PrimaryChanged, Path: path, Message: "it is the default network of new pods now, in place of " + old})
	return nil
}

// mendBridge puts back the configuration of Braid's own bridge.
func (g *Guard) mendBridge(ctx context.Context, s *state) error {
	path := s.Options.bridgeConf()
	if ours, err := s.isOurs(path); err != nil || ours {
		return err
	}
	reason := PrimaryInvalid
	if !exists(path) {
		reason = PrimaryMissing
	}
	if !g.may(path) {
		return fmt.Errorf("%s: changed again and again, so the next attempt waits", path)
	}
	content, err := s.Options.composeBridge(ctx, s.PodCIDRs)
	if err != nil {
		return err
	}
	if err := s.mkdir(s.Options.NetworksDir, 0o755); err != nil {
		return err
	}
	if err := s.putBytes(path, 0o644, content); err != nil {
		return err
	}
	g.mended(Notice{Reason: reason, Path: path, Message: "the configuration of Braid's own bridge was changed"})
	return nil
}

func (g *Guard) mendKubeconfig(s *state) error {
	path := s.Options.kubeconfig()
	if s.Options.Kubeconfig != "" {
		return nil
	}
	if ours, err := s.isOurs(path); err != nil || ours {
		return err
	}
	reason := ConfAltered
	if !exists(path) {
		reason = ConfMissing
	}
	if !g.may(path) {
		return fmt.Errorf("%s: changed again and again, so the next attempt waits", path)
	}
	if err := s.putKubeconfig(); err != nil {
		return err
	}
	g.mended(Notice{Reason: reason, Path: path, Message: "the kubeconfig is not as it was written"})
	return nil
}

// mendBinaries brings back what was removed. What was replaced is left to the next install: it may be a newer one.
func (g *Guard) mendBinaries(s *state) error {
	var missing string
	for _, f := range s.Files {
		if filepath.Dir(f.Path) == s.Options.BinDir && !exists(f.Path) {
			missing = f.Path
		}
	}
	if missing == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.Options.Source, "braid")); err != nil {
		return fmt.Errorf("%s was removed, and cannot be brought back: %w", missing, err)
	}
	if !g.may(s.Options.BinDir) {
		return fmt.Errorf("%s: removed again and again, so the next attempt waits", missing)
	}
	if err := s.mkdir(s.Options.BinDir, 0o755); err != nil {
		return err
	}
	if err := s.putBinaries(g.log); err != nil {
		return err
	}
	g.mended(Notice{Reason: BinaryMissing, Path: missing, Message: "it was removed"})
	return nil
}

// A pace keeps two who want a file otherwise from writing it all the time.
type pace struct {
	last  time.Time // when it was mended
	pause time.Duration
}

const (
	firstPause = 250 * time.Millisecond
	longPause  = 10 * time.Second
	quietTime  = time.Minute // without a change, after which all is forgotten
)

// may tells whether a file can be mended now. If not, there will be another check when it can.
func (g *Guard) may(path string) bool {
	p := g.paces[path]
	now := time.Now()
	if p == nil || now.Sub(p.last) > quietTime {
		g.paces[path] = &pace{last: now, pause: firstPause}
		return true
	}
	if until := p.last.Add(p.pause); now.Before(until) {
		g.wake(until)
		return false
	}
	p.last, p.pause = now, min(2*p.pause, longPause)
	return true
}

func (g *Guard) wake(at time.Time) {
	if g.again.IsZero() || at.Before(g.again) {
		g.again = at
	}
}

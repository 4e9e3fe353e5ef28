package install

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A watcher watches folders. One that is removed and made again is watched again with the next check. It may be without a
// Watcher: the kernel gives a user a limited number.
type watcher struct {
	*fsnotify.Watcher
	events <-chan fsnotify.Event
	errors <-chan error
}

func (w *watcher) watch(dirs ...string) {
	for _, dir := range dirs {
		if w.Watcher != nil {
			_ = w.Add(dir) // of one that is not there the poll takes care
		}
	}
}

// wait returns when a file has changed, or at a time; false when ctx has ended.
func (w *watcher) wait(ctx context.Context, until time.Time, settle time.Duration) bool {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case e := <-w.events:
			// Temporary files of ours come and go under names that nobody reads.
			if !strings.HasPrefix(filepath.Base(e.Name), tmpPrefix) && time.Until(until) > settle {
				until = time.Now().Add(settle)
				timer.Reset(settle)
			}
		case <-w.errors: // an overflow: something has changed
			timer.Reset(settle)
		}
	}
}

package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Tidy removes what killed processes and losses of power have left of writing records. It leaves out containers that somebody
// is at work on. [Journal.LockAll] does the same, for all.
func (j *Journal) Tidy() error {
	now, cancel := context.WithCancel(context.Background())
	cancel() // wait for no lock
	return j.tidy(func(containerID, path string) error {
		unlock, err := j.Lock(now, containerID)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		defer unlock()
		return removeTorn(path)
	})
}

// tidy hands over each file that was not written to its end.
func (j *Journal) tidy(do func(containerID, path string) error) error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", j.dir, err)
	}
	var errs []error
	for _, e := range entries {
		containerID, _, ok := strings.Cut(e.Name(), ":")
		if path := filepath.Join(j.dir, e.Name()); ok && isTorn(path) {
			errs = append(errs, do(containerID, path))
		}
	}
	return errors.Join(errs...)
}

func isTorn(path string) bool {
	if strings.HasSuffix(path, ".json"+temporary) {
		return true
	}
	if !strings.HasSuffix(path, ".json") || !isLost(path) {
		return false
	}
	_, err := read(path)
	return errors.Is(err, ErrNotFound)
}

// removeTorn looks again: by now somebody may have written the record, and released its lock.
func removeTorn(path string) error {
	if !isTorn(path) {
		return nil
	}
	return remove(path)
}

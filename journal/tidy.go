package journal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Tidy removes what killed processes have left of writing records. It leaves out containers that somebody is at work on.
// [Journal.LockAll] does the same, for all.
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
		return remove(path)
	})
}

// tidy hands over each file that was not written to its end.
func (j *Journal) tidy(do func(containerID, path string) error) error {
	paths, err := filepath.Glob(filepath.Join(j.dir, "*:*.json"+temporary))
	if err != nil {
		return fmt.Errorf("list %s: %w", j.dir, err)
	}
	var errs []error
	for _, path := range paths {
		containerID, _, _ := strings.Cut(filepath.Base(path), ":")
		errs = append(errs, do(containerID, path))
	}
	return errors.Join(errs...)
}

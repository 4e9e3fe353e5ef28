package atomicfile

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Writable returns an error if it is certain that no file can be made in a folder, or in the one that it would have to be made
// in: it is on a disk that is read-only or full. Nothing is written.
func Writable(dir string) error {
	for {
		err := unix.Access(dir, unix.W_OK)
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			if err != nil {
				return fmt.Errorf("%s cannot be written to: %w", dir, err)
			}
			break
		}
		dir = filepath.Dir(dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("statfs %s: %w", dir, err)
	}
	switch { // a file system without a bound says 0 of both
	case fs.Blocks > 0 && fs.Bfree == 0:
		return fmt.Errorf("%s cannot be written to: the disk is full: %w", dir, unix.ENOSPC)
	case fs.Files > 0 && fs.Ffree == 0:
		return fmt.Errorf("%s cannot be written to: the disk has no inode left: %w", dir, unix.ENOSPC)
	}
	return nil
}

// Package atomicfile writes files that are either old or new, never torn, whatever moment the power goes.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// TmpPrefix begins the names of the temporary files of [Write], of which a process that is killed leaves one.
const TmpPrefix = ".tmp-"

// Write replaces the file at path by data: temporary file in the same folder, fsync, rename, fsync of the folder.
// When it fails no temporary file stays, and the old one is as it was, unless it was the last step that failed.
func Write(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), TmpPrefix+"*")
	if err != nil {
		return err
	}
	if err := replace(f, path, data, perm); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteVia is Write with a temporary file in the same folder whose path is given, so that what a killed process has left
// can be found: the next WriteVia takes its place. No two may be at work on one path at the same time.
func WriteVia(temporary, path string, data []byte, perm os.FileMode) error {
	if err := Replace(temporary, path, data, perm); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Replace is WriteVia but for its last step: until [SyncDir], a loss of power may leave the old file, or none if there was
// none.
func Replace(temporary, path string, data []byte, perm os.FileMode) error {
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return replace(f, path, data, perm)
}

// replace writes a temporary file and puts it in the place of another one.
func replace(f *os.File, path string, data []byte, perm os.FileMode) (err error) {
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// MkdirAll is os.MkdirAll, with the names of the folders that it makes durable: what is written there is found again.
func MkdirAll(dir string, perm os.FileMode) error {
	_, err := os.Stat(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return os.MkdirAll(dir, perm) // which says what is wrong with it
	}
	parent := filepath.Dir(dir)
	if err := MkdirAll(parent, perm); err != nil {
		return err
	}
	if err := os.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Package atomicfile writes files that are either old or new, never torn, whatever moment the power goes, and reads them back.
// Neither goes through a symbolic link at the name of a file: whoever can plant one must not choose what is read and written.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/plainfile"
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
	f, err := plainfile.Open(temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	return replace(f, path, data, perm)
}

// replace writes a temporary file and puts it in the place of another one.
func replace(f *os.File, path string, data []byte, perm os.FileMode) error {
	err := f.Chmod(perm)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// MkdirAll is os.MkdirAll, with the names of the folders that it makes durable: what is written there is found again.
func MkdirAll(dir string, perm os.FileMode) error {
	info, err := os.Stat(dir)
	if err == nil && info.IsDir() {
		return nil
	}
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
	d, err := plainfile.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ErrNotRegular is wrapped by the error of reading what is a link, a folder, a pipe or a device.
var ErrNotRegular = errors.New("is no regular file")

// ErrTooLarge is wrapped by the error of reading a file that exceeds its bound.
var ErrTooLarge = errors.New("is too large")

// Read returns the content of a regular file of limit bytes at most. It does not wait for the other end of a pipe.
func Read(path string, limit int64) ([]byte, error) {
	f, err := plainfile.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link, a socket
		return nil, fmt.Errorf("%s %w", path, ErrNotRegular)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s %w", path, ErrNotRegular)
	case info.Size() > limit:
		return nil, fmt.Errorf("%s %w: %d bytes exceed the limit of %d", path, ErrTooLarge, info.Size(), limit)
	}
	b := make([]byte, info.Size())
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it has become shorter
		err = nil
	}
	return b[:n], err
}

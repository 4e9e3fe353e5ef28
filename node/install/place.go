package install

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/atomicfile"
)

// tmpPrefix marks what an install that was interrupted leaves behind: not executable, hence no plugin, and of no extension
// that a runtime reads. The next install removes it.
const tmpPrefix = ".braid-tmp-"

// place puts content at path: old or new, never in between, whatever moment the power goes. A binary that runs can be
// replaced this way: its old content lives on without a name.
func place(path string, perm os.FileMode, content io.Reader) error {
	return placeAs(path, perm, content, func(string) error { return nil })
}

// placeAs is place; finish is called with the name that the file has until it is whole.
func placeAs(path string, perm os.FileMode, content io.Reader, finish func(path string) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	f, err := os.CreateTemp(filepath.Dir(path), tmpPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := finish(f.Name()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

func placeBytes(path string, perm os.FileMode, content []byte) error {
	return place(path, perm, bytes.NewReader(content))
}

// placeLink puts a symbolic link at path, in place of whatever file is there.
func placeLink(path, target string) error {
	tmp, err := os.MkdirTemp(filepath.Dir(path), tmpPrefix+"*") // a name of our own, for a link that cannot be made unnamed
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	link := filepath.Join(tmp, "link")
	if err := os.Symlink(target, link); err != nil {
		return err
	}
	if err := os.Rename(link, path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// removeInterrupted removes what interrupted installs left. The caller has the lock of the installer.
func (s *state) removeInterrupted() error {
	var errs []error
	for _, dir := range append(s.Options.dirs(), s.Options.CNIDir) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), tmpPrefix) {
				errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	return errors.Join(errs...)
}

// remove removes a file. It succeeds if there is none.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// identity of what is at a path: the hash of a file's content, where a link leads to, or "" if nothing is there.
func identity(path string) (string, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return linkTo(target), err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is no file: %s", path, info.Mode())
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return sum(h.Sum(nil)), nil
}

func sum(hash []byte) string { return "sha256:" + hex.EncodeToString(hash) }

func sumOf(content []byte) string {
	h := sha256.Sum256(content)
	return sum(h[:])
}

func linkTo(target string) string { return "link:" + target }

func isMountPoint(removeErr error) bool { return errors.Is(removeErr, unix.EBUSY) }

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// binaries are what the image has, in the order in which they come: the shim is of no use without what it falls back on. The worker
// does calls only if it runs the braid that lies there, and braid does them else, so that calls go on meanwhile.
var binaries = []string{"braid", "braidd", "braid-shim"}

// formerBinaries are what the images of earlier versions had besides.
var formerBinaries = []string{"braid-resolve"}

// putBinaries puts the binaries in the folder of the plugins, and the names of own plugins beside them.
func (s *state) putBinaries(log *slog.Logger) error {
	for _, name := range binaries {
		if err := s.putBinary(name); err != nil {
			return err
		}
	}
	for _, name := range s.Options.links() {
		if err := s.putLink(name, log); err != nil {
			return err
		}
	}
	return s.removeOld()
}

func (s *state) putBinary(name string) error {
	source, path := filepath.Join(s.Options.Source, name), filepath.Join(s.Options.BinDir, name)
	if same, err := sameFile(source, path); err != nil || same {
		return err // installed by hand, in place
	}
	want, err := identity(source)
	if err != nil {
		return err
	}
	if want == "" {
		return fmt.Errorf("%s does not exist: --source has to name the folder with %v", source, binaries)
	}
	if err := s.giveWay(path); err != nil {
		return err
	}
	return s.put(path, want, func() error {
		f, err := os.Open(source)
		if err != nil {
			return err
		}
		defer f.Close()
		return place(path, 0o755, f)
	})
}

func sameFile(a, b string) (bool, error) {
	ai, aErr := os.Stat(a)
	bi, bErr := os.Stat(b)
	if errors.Is(aErr, fs.ErrNotExist) || errors.Is(bErr, fs.ErrNotExist) {
		return false, nil
	}
	err := errors.Join(aErr, bErr)
	return err == nil && os.SameFile(ai, bi), err
}

// putLink gives an own plugin its name, unless the name is taken.
func (s *state) putLink(name string, log *slog.Logger) error {
	path := filepath.Join(s.Options.BinDir, name)
	ours, err := s.isOurs(path)
	if err != nil {
		return err
	}
	if exists(path) && !ours {
		if !s.Options.Overwrite {
			log.Info("a plugin of this name is there and stays", "path", path)
			return nil
		}
		if err := s.giveWay(path); err != nil {
			return err
		}
	}
	return s.put(path, linkTo("braid"), func() error { return placeLink(path, "braid") })
}

// removeOld takes back binaries and names that an earlier install gave and that are not wanted any more.
func (s *state) removeOld() error {
	links, known := s.Options.links(), slices.Concat(ownPlugins, formerBinaries)
	for _, f := range slices.Clone(s.Files) {
		name := filepath.Base(f.Path)
		if filepath.Dir(f.Path) != s.Options.BinDir || !slices.Contains(known, name) || slices.Contains(links, name) {
			continue
		}
		if err := s.takeAway(f); err != nil {
			return err
		}
	}
	return nil
}

// giveWay keeps what is at a path, if it is not ours, for the uninstall.
func (s *state) giveWay(path string) error {
	f := s.file(path)
	ours, err := s.isOurs(path)
	if err != nil || ours || !exists(path) || f.Backup != "" && exists(f.Backup) {
		return err
	}
	dir := filepath.Join(s.Options.CNIDir, "replaced")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	backup := filepath.Join(dir, filepath.Base(path))
	if err := copyAsIs(path, backup); err != nil {
		return err
	}
	f.Backup = backup
	return s.save()
}

// takeAway removes a file that is ours, and puts back what had to give way for it. One that others have put in its place
// stays.
func (s *state) takeAway(f *file) error {
	ours, err := s.isOurs(f.Path)
	if err != nil {
		return err
	}
	switch {
	case f.Backup != "" && (ours || !exists(f.Path)):
		if err := copyAsIs(f.Backup, f.Path); err != nil {
			return err
		}
	case ours:
		if err := remove(f.Path); err != nil {
			return err
		}
	}
	s.forget(f)
	if err := s.save(); err != nil {
		return err
	}
	if f.Backup != "" {
		return remove(f.Backup)
	}
	return nil
}

// copyAsIs copies a file or a link with its owner, mode and time.
func copyAsIs(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return placeLink(to, target)
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	return placeAs(to, info.Mode(), f, func(path string) error {
		if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
		if err := os.Chmod(path, info.Mode()); err != nil { // chown takes setuid away
			return err
		}
		return os.Chtimes(path, info.ModTime(), info.ModTime())
	})
}

package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/flock"
)

// A state is what was put on the node, in install.json of the plugin's cniDir. It is written before something is done.
type state struct {
	Version int     `json:"version"`
	Options Options `json:"options"`

	// Removing says that an uninstall has begun: nothing is mended any more.
	Removing bool `json:"removing,omitempty"`

	// Network is the name of the network as the runtime knows it. It stays as it was first chosen: runtimes keep results
	// of pods under this name.
	Network string `json:"network,omitempty"`
	// Primary is the configuration of the default network: that of another CNI, or of Braid's own bridge.
	Primary string `json:"primary,omitempty"`
	// PodCIDRs are those that the API server had for the node. They never change.
	PodCIDRs []string `json:"podCIDRs,omitempty"`
	// Result is what ADD answers, by the container runtime that the node has.
	Result string `json:"result,omitempty"`

	Files []*file  `json:"files,omitempty"`
	Dirs  []string `json:"dirs,omitempty"` // made by the installer, outermost first
}

// A file is one that was put on the node.
type file struct {
	Path   string   `json:"path"`
	Ours   []string `json:"ours"`             // identities; several only if an install was interrupted
	Backup string   `json:"backup,omitempty"` // where that is kept which had to give way
}

const stateVersion = 1

// ErrNotInstalled says that there is no install.json.
var ErrNotInstalled = errors.New("not installed")

func statePath(cniDir string) string { return filepath.Join(cniDir, "install.json") }

// load reads the state. The error is ErrNotInstalled if there is none.
func load(cniDir string) (*state, error) {
	b, err := os.ReadFile(statePath(cniDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotInstalled
	}
	if err != nil {
		return nil, err
	}
	s := new(state)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("read %s: %w; to install anew, remove it", statePath(cniDir), err)
	}
	if s.Version > stateVersion {
		return nil, fmt.Errorf("read %s: its version %d was written by a newer Braid (this one knows %d)", statePath(cniDir), s.Version, stateVersion)
	}
	return s, nil
}

// Installed returns the options of the installation whose plugin has the cniDir. The error is [ErrNotInstalled] if there is
// none.
func Installed(cniDir string) (*Options, error) {
	s, err := load(cniDir)
	if err != nil {
		return nil, err
	}
	return &s.Options, nil
}

func (s *state) save() error {
	s.Version = stateVersion
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return placeBytes(statePath(s.Options.CNIDir), 0o600, append(b, '\n'))
}

// find returns the entry of a path, nil if there is none.
func (s *state) find(path string) *file {
	for _, f := range s.Files {
		if f.Path == path {
			return f
		}
	}
	return nil
}

// file returns the entry of a path, a new one if there is none.
func (s *state) file(path string) *file {
	if f := s.find(path); f != nil {
		return f
	}
	f := &file{Path: path}
	s.Files = append(s.Files, f)
	return f
}

// forget takes an entry from the list.
func (s *state) forget(f *file) {
	s.Files = slices.DeleteFunc(s.Files, func(other *file) bool { return other == f })
}

// isOurs tells if what is at a path is what was put there.
func (s *state) isOurs(path string) (bool, error) {
	f := s.find(path)
	if f == nil {
		return false, nil
	}
	is, err := identity(path)
	return is != "" && (slices.Contains(f.Ours, is) || slices.Contains(f.Ours, anyContent)), err
}

// put makes path what identity says by way of do, and notes it before. Nothing is done if it is so already. That the old
// content is gone is noted in memory: the caller saves when all is done.
func (s *state) put(path, want string, do func() error) error {
	is, err := identity(path)
	if err != nil {
		return err
	}
	f := s.file(path)
	if is == want {
		if len(f.Ours) == 1 && f.Ours[0] == want {
			return nil
		}
		f.Ours = []string{want} // an install that was interrupted, or the same file put there by hand
		return nil
	}
	if !slices.Contains(f.Ours, want) {
		f.Ours = append(f.Ours, want)
		if err := s.save(); err != nil {
			return err
		}
	}
	if err := do(); err != nil {
		return err
	}
	f.Ours = []string{want}
	return nil
}

// putBytes is put of a small file.
func (s *state) putBytes(path string, perm os.FileMode, content []byte) error {
	return s.put(path, sumOf(content), func() error { return placeBytes(path, perm, content) })
}

// mkdir makes a folder and those above it, which anybody may enter, and notes which ones it made.
func (s *state) mkdir(path string, perm os.FileMode) error {
	var missing []string
	for dir := path; !exists(dir); dir = filepath.Dir(dir) {
		missing = append(missing, dir)
	}
	for _, dir := range slices.Backward(missing) {
		mode := os.FileMode(0o755)
		if dir == path {
			mode = perm
		}
		if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if !slices.Contains(s.Dirs, dir) {
			s.Dirs = append(s.Dirs, dir)
		}
	}
	return nil
}

// lock keeps two installs, or an install and a guard, from working at the same time.
func lock(ctx context.Context, cniDir string) (unlock func(), err error) {
	if err := os.MkdirAll(cniDir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(cniDir, "install.lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := flock.Lock(ctx, fd, unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = unix.Close(fd) }, nil
}

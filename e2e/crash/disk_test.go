//go:build crash && linux && amd64

package crash

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// A disk knows what of some folders a loss of power leaves: content that was synced, and names in folders that were. What
// there is when it begins to watch counts as synced.
type disk struct {
	*world
	vault string                       // has a second name of each file, so that one that was removed can come back
	names map[string]map[string]uint64 // of each folder that is safe: what is in it, by inode; 0 for folders
	safe  map[uint64]content
}

type content struct {
	bytes []byte
	mtime unix.Timespec
}

// roots are the folders that Braid syncs itself. Leases are the keeper's.
var roots = []string{"braid", "ipam"}

// newDisk begins to watch.
func (w *world) newDisk() *disk {
	d := &disk{world: w, vault: filepath.Join(w.dir, "vault"), names: make(map[string]map[string]uint64), safe: make(map[uint64]content)}
	w.must(errors.Join(os.RemoveAll(d.vault), os.Mkdir(d.vault, 0o700)))
	d.names[w.dir] = d.list(w.dir)
	for _, root := range roots {
		d.walk(filepath.Join(w.dir, root), func(path string, isDir bool) {
			if isDir {
				d.names[path] = d.list(path)
				return
			}
			d.sync(path)
		})
	}
	return d
}

// called is told each call of the program that is about to be made.
func (d *disk) called(c *tracer.Call) {
	if c.Name != "fsync" || !slices.ContainsFunc(roots, func(r string) bool { return below(filepath.Join(d.dir, r), c.Object) }) && c.Object != d.dir {
		return
	}
	if info, err := os.Stat(c.Object); err == nil && info.IsDir() {
		d.names[c.Object] = d.list(c.Object)
	} else if err == nil {
		d.sync(c.Object)
	}
}

func below(root, path string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// sync notes that the content of a file is safe.
func (d *disk) sync(path string) {
	var st unix.Stat_t
	d.must(unix.Stat(path, &st))
	b, err := os.ReadFile(path)
	d.must(err)
	d.safe[st.Ino] = content{b, st.Mtim}
	d.keep(path, st.Ino)
}

// keep gives a file its second name.
func (d *disk) keep(path string, ino uint64) {
	if err := os.Link(path, d.kept(ino)); err != nil && !errors.Is(err, fs.ErrExist) {
		d.Fatal(err)
	}
}

func (d *disk) kept(ino uint64) string { return filepath.Join(d.vault, strconv.FormatUint(ino, 10)) }

// list returns what is in a folder.
func (d *disk) list(dir string) map[string]uint64 {
	entries, err := os.ReadDir(dir)
	d.must(err)
	list := make(map[string]uint64)
	for _, e := range entries {
		var st unix.Stat_t
		path := filepath.Join(dir, e.Name())
		d.must(unix.Lstat(path, &st))
		if e.IsDir() {
			st.Ino = 0
		} else if dir != d.dir {
			d.keep(path, st.Ino)
		}
		list[e.Name()] = st.Ino
	}
	return list
}

func (d *disk) walk(root string, do func(path string, isDir bool)) {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			do(path, e.IsDir())
		}
		return err
	})
	d.must(err)
}

// A loss is what a file system may make of what was not synced.
type loss struct {
	name    string
	names   bool // are lost: what was made is not there, what was removed is
	mixed   bool // but content that was written later is not
	content func(safe, present []byte) []byte
}

var losses = []loss{
	{"nothing that was not synced is there", true, false, func(safe, _ []byte) []byte { return safe }},
	{"files have their names and no content", false, false, func(safe, _ []byte) []byte { return safe }},
	{"what was written is zeroes", false, false, zeroes},
	{"content is there and names are not", true, true, func(_, present []byte) []byte { return present }},
}

// zeroes leaves what was synced and only added to.
func zeroes(safe, present []byte) []byte {
	then := make([]byte, len(present))
	if bytes.HasPrefix(present, safe) {
		copy(then, safe)
	}
	return then
}

// lose makes of the folders what the loss of power makes of them.
func (d *disk) lose(l loss) {
	if l.names {
		d.loseNames(d.dir)
	}
	for _, root := range roots {
		d.walk(filepath.Join(d.dir, root), func(path string, isDir bool) {
			if isDir {
				return
			}
			var st unix.Stat_t
			d.must(unix.Stat(path, &st))
			present, err := os.ReadFile(path)
			d.must(err)
			safe := d.safe[st.Ino] // none: it was never synced
			if slices.Equal(safe.bytes, present) {
				return
			}
			if then := l.content(safe.bytes, present); !slices.Equal(then, present) {
				d.must(os.WriteFile(path, then, 0))
				times := []unix.Timespec{safe.mtime, safe.mtime}
				d.must(unix.UtimesNanoAt(unix.AT_FDCWD, path, times, 0))
			}
		})
	}
}

// loseNames puts into a folder what it had when it was synced, and nothing else; in the folder of the world, the roots.
func (d *disk) loseNames(dir string) {
	want, have := d.names[dir], d.list(dir)
	if dir == d.dir {
		other := func(name string, _ uint64) bool { return !slices.Contains(roots, name) }
		maps.DeleteFunc(have, other)
		want = maps.Clone(want)
		maps.DeleteFunc(want, other)
	}
	for name, ino := range have {
		if i, ok := want[name]; !ok || i != ino {
			d.must(os.RemoveAll(filepath.Join(dir, name)))
		}
	}
	for name, ino := range want {
		path := filepath.Join(dir, name)
		switch i, ok := have[name]; {
		case ino == 0 && !ok:
			d.must(os.Mkdir(path, 0o755))
			d.loseNames(path)
		case ino == 0:
			d.loseNames(path)
		case !ok || i != ino:
			d.must(os.Link(d.kept(ino), path))
		}
	}
}

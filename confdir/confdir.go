// Package confdir finds networks in CNI configuration files.
package confdir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

// A NotFoundError says that no file has the network.
type NotFoundError struct {
	Dir  string
	Name string // empty if any network was wanted
	// Skipped are files that could not be read as a configuration. The network may be in one of them.
	Skipped []error
}

func (e *NotFoundError) Error() string {
	msg := "no network configuration in " + e.Dir
	if e.Name != "" {
		msg = fmt.Sprintf("no configuration of network %q in %s", e.Name, e.Dir)
	}
	for i, err := range e.Skipped {
		if i == 0 {
			msg += "; not readable are "
		} else {
			msg += ", "
		}
		msg += err.Error()
	}
	return msg
}

// Network finds a network by its name in the files of a folder, which are asked in the order of their names:
//
// "If a CNI .configlist file is present on-disk whose JSON "name" key matches the name of the
// NetworkAttachmentDefinition object", then "If a CNI .config file is present on-disk [...]", "Otherwise, the network
// request must fail". (The extensions are .conflist, and .conf or .json, everywhere else.)
//
// A file that cannot be read as JSON does not keep another one from being found. A file that has the name must be valid.
// Errors are of type *[NotFoundError], or what [conf.ParseNetwork] and the file system return.
func Network(m *memo.Memory, dir, name string) (*conf.Network, error) {
	notFound := &NotFoundError{Dir: dir, Name: name}
	for _, extensions := range [][]string{{".conflist"}, {".conf", ".json"}} {
		paths, err := files(dir, extensions...)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			b, err := read(path)
			if err != nil {
				notFound.Skipped = append(notFound.Skipped, err)
				continue
			}
			if found, err := nameIn(m, b); err != nil {
				notFound.Skipped = append(notFound.Skipped, fmt.Errorf("%s: %w", path, err))
			} else if found == name {
				return parse(m, path, b)
			}
		}
	}
	return nil, notFound
}

// FromPath reads the network in a file, or in the first file of a folder that is a configuration by its extension.
// Errors are as those of [Network].
func FromPath(m *memo.Memory, path string) (*conf.Network, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NotFoundError{Dir: path}
	}
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		paths, err := files(path, ".conf", ".conflist", ".json")
		if err != nil {
			return nil, err
		}
		if len(paths) == 0 {
			return nil, &NotFoundError{Dir: path}
		}
		path = paths[0]
	}
	b, err := read(path)
	if err != nil {
		return nil, err
	}
	return parse(m, path, b)
}

// nameIn reads the name of the network in a file.
func nameIn(m *memo.Memory, b []byte) (string, error) {
	type nameOf string
	return memo.Of(m, nameOf(b), len(b), func() (string, error) {
		var file struct {
			Name string `json:"name"`
		}
		err := json.Unmarshal(b, &file)
		return file.Name, err
	})
}

// parse decodes a file by its extension. Only lists have further plugins in a folder.
func parse(m *memo.Memory, path string, b []byte) (n *conf.Network, err error) {
	if filepath.Ext(path) == ".conflist" {
		n, err = parseList(m, filepath.Dir(path), b)
	} else {
		n, err = conf.ParseNetworkWith(m, string(b), "")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}

// parseList decodes a list. What there may be of it in a folder is looked for each time.
func parseList(m *memo.Memory, dir string, b []byte) (*conf.Network, error) {
	type textOf string
	type list struct {
		network *conf.Network // without the plugins of the folder
		folder  string        // empty if the list wants none
	}
	inline, err := memo.Of(m, textOf(b), len(b), func() (l list, err error) {
		l.network, err = conf.ParseList(b, func(name string) ([]json.RawMessage, error) {
			l.folder = name
			return nil, nil
		})
		return l, err
	})
	if err == nil && inline.folder == "" {
		return inline.network, nil
	}
	if err == nil {
		if more, err := plugins(filepath.Join(dir, inline.folder)); err == nil && len(more) == 0 {
			return inline.network, nil
		}
	}
	return conf.ParseList(b, func(name string) ([]json.RawMessage, error) { return plugins(filepath.Join(dir, name)) })
}

// plugins reads the plugin configurations in a folder.
//
// "All aggregated plugin configuration objects must be validated, and each plugin with a valid configuration object must
// be invoked."
func plugins(dir string) (list []json.RawMessage, err error) {
	paths, err := files(dir, ".conf")
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		b, err := read(path)
		if err != nil {
			return nil, err
		}
		if err := conf.CheckJSON(b, conf.MaxNetwork); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, b)
	}
	return list, nil
}

// files lists the files of a folder with the extensions, sorted by name. A folder that does not exist has none.
func files(dir string, extensions ...string) (paths []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() && slices.Contains(extensions, filepath.Ext(e.Name())) && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

func read(path string) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if b, err = io.ReadAll(io.LimitReader(f, conf.MaxNetwork+1)); err != nil {
		return nil, err
	}
	if len(b) > conf.MaxNetwork {
		return nil, fmt.Errorf("%s: more than %d bytes", path, conf.MaxNetwork)
	}
	return b, nil
}

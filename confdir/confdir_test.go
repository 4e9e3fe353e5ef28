package confdir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/confdir"
)

// folder writes the files of an archive.
func folder(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func pluginTypes(n *conf.Network) string {
	var list []string
	for _, p := range n.Plugins {
		list = append(list, p.Type)
	}
	return strings.Join(list, " ")
}

func TestNetwork(t *testing.T) {
	for _, test := range []struct {
		name, files string
		want        string // types of the plugins
	}{
		{
			"a list comes before a plugin whose file is sorted first",
			`
-- 10-blue.conf --
{"name": "blue", "type": "from-conf"}
-- 20-blue.conflist --
{"name": "blue", "plugins": [{"type": "from-list"}]}
`, "from-list",
		}, {
			"the first of two lists, by the name in the file and not of the file",
			`
-- blue.conflist --
{"name": "red", "plugins": [{"type": "other"}]}
-- 20.conflist --
{"name": "blue", "plugins": [{"type": "second"}]}
-- 10.conflist --
{"name": "blue", "plugins": [{"type": "first"}]}
`, "first",
		}, {
			".json is .conf",
			`
-- 10-blue.json --
{"name": "blue", "type": "from-json"}
-- 20-blue.conf --
{"name": "blue", "type": "from-conf"}
`, "from-json",
		}, {
			"files beside it that are no configurations",
			`
-- 00.conflist --
{"name": "blue", "plugins":
-- 01.conf --
-- 02.conflist --
[]
-- 03.conflist.bak --
{"name": "blue", "plugins": [{"type": "backup"}]}
-- .04.conflist --
{"name": "blue", "plugins": [{"type": "of-an-editor"}]}
-- 05.conflist/blue.conflist --
{"name": "blue", "plugins": [{"type": "in-a-folder"}]}
-- 10-blue.conf --
{"name": "blue", "type": "found"}
`, "found",
		}, {
			"plugins in the folder of the network come last, sorted by file",
			`
-- 10.conflist --
{"name": "blue", "plugins": [{"type": "inlined"}]}
-- blue/20.conf --
{"type": "second"}
-- blue/10.conf --
{"type": "first"}
-- blue/30.json --
{"type": "not-a-conf"}
-- red/10.conf --
{"type": "of-another-network"}
`, "inlined first second",
		}, {
			"all plugins in the folder",
			`
-- 10.conflist --
{"name": "blue"}
-- blue/10.conf --
{"type": "first"}
`, "first",
		}, {
			"no plugins of the folder",
			`
-- 10.conflist --
{"name": "blue", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "inlined"}]}
-- blue/10.conf --
{"type": "first"}
`, "inlined",
		}, {
			"a lone plugin has no folder",
			`
-- 10.conf --
{"name": "blue", "type": "alone"}
-- blue/10.conf --
{"type": "first"}
`, "alone",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := confdir.Network(nil, folder(t, test.files), "blue")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, pluginTypes(n)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if n.Name != "blue" {
				t.Errorf("got name %q", n.Name)
			}
		})
	}
}

func TestNetworkThatIsNotFound(t *testing.T) {
	dir := folder(t, `
-- 10.conflist --
{"name": "blue",
-- 20.conf --
{"name": "red", "type": "a"}
-- 30.conf --
{"name": 7, "type": "a"}
`)
	_, err := confdir.Network(nil, dir, "blue")
	notFound, ok := errors.AsType[*confdir.NotFoundError](err)
	if !ok || len(notFound.Skipped) != 2 {
		t.Fatalf("got %v, want a NotFoundError that skipped two files", err)
	}
	for _, want := range []string{`no configuration of network "blue" in ` + dir, "10.conflist", "30.conf"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if strings.Contains(err.Error(), "20.conf") {
		t.Errorf("got %v, but 20.conf is a configuration", err)
	}

	_, err = confdir.Network(nil, filepath.Join(dir, "missing"), "blue")
	if _, ok := errors.AsType[*confdir.NotFoundError](err); !ok {
		t.Errorf("without the folder: got %v, want a NotFoundError", err)
	}
}

// A file that has the name, or belongs to the network, must be right. Nothing else is taken in its place.
func TestNetworkThatIsInvalid(t *testing.T) {
	for _, test := range []struct{ name, files, file, want string }{
		{"no plugin", `
-- 10.conflist --
{"name": "blue", "plugins": []}
-- 20.conflist --
{"name": "blue", "plugins": [{"type": "a"}]}
`, "10.conflist", "plugins: found an empty list"},
		{"an invalid plugin in its folder", `
-- 10.conflist --
{"name": "blue", "plugins": [{"type": "a"}]}
-- blue/10.conf --
{"type": "../b"}
`, "10.conflist", `plugins[1].type: found "../b"`},
		{"no JSON in its folder", `
-- 10.conflist --
{"name": "blue", "plugins": [{"type": "a"}]}
-- blue/10.conf --
type: b
`, "blue/10.conf", "invalid character"},
		{"a key twice in its folder", `
-- 10.conflist --
{"name": "blue", "plugins": [{"type": "a"}]}
-- blue/10.conf --
{"type": "b", "x": 1, "X": 2}
`, "blue/10.conf", `keys "x" and "X" differ in case only`},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := folder(t, test.files)
			n, err := confdir.Network(nil, dir, "blue")
			if err == nil {
				t.Fatalf("got %+v, want an error", n)
			}
			cniErr, ok := errors.AsType[*types.Error](err)
			if !ok || cniErr.Code != types.ErrInvalidNetworkConfig {
				t.Errorf("got %v, want code 7", err)
			}
			for _, want := range []string{filepath.Join(dir, test.file), test.want} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestFromPath(t *testing.T) {
	dir := folder(t, `
-- 05-notes.txt --
nothing
-- 10-blue.conflist --
{"name": "blue", "plugins": [{"type": "inlined"}]}
-- 20-red.conf --
{"name": "red", "type": "alone"}
-- 30-nameless.conf --
{"type": "alone"}
-- blue/10.conf --
{"type": "first"}
-- empty/notes.txt --
nothing
`)
	for path, want := range map[string]string{"": "inlined first", "10-blue.conflist": "inlined first", "20-red.conf": "alone"} {
		n, err := confdir.FromPath(nil, filepath.Join(dir, path))
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if got := pluginTypes(n); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
	for _, path := range []string{"missing", "missing.conf", "empty"} {
		_, err := confdir.FromPath(nil, filepath.Join(dir, path))
		if _, ok := errors.AsType[*confdir.NotFoundError](err); !ok {
			t.Errorf("%s: got %v, want a NotFoundError", path, err)
		}
	}
	if _, err := confdir.FromPath(nil, filepath.Join(dir, "30-nameless.conf")); err == nil || !strings.Contains(err.Error(), "name: missing") {
		t.Errorf("without a name: got %v", err)
	}
}

func TestFilesAreBounded(t *testing.T) {
	dir := t.TempDir()
	big := `{"name": "blue", "type": "a", "x": "` + strings.Repeat("x", conf.MaxNetwork) + `"}`
	if err := os.WriteFile(filepath.Join(dir, "10.conf"), []byte(big), 0o644); err != nil {
		t.Fatal(err)
	}
	_, byPath := confdir.FromPath(nil, filepath.Join(dir, "10.conf"))
	_, byName := confdir.Network(nil, dir, "blue")
	for _, err := range []error{byPath, byName} {
		if err == nil || !strings.Contains(err.Error(), "10.conf: more than 262144 bytes") {
			t.Errorf("got %v, want the limit", err)
		}
	}
}

func TestFolderThatCannotBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := confdir.Network(nil, file, "blue")
	if pathErr, ok := errors.AsType[*fs.PathError](err); !ok {
		t.Errorf("got %v (%v), want the error of the file system", err, pathErr)
	}
}

// FuzzNetwork: a file gives a network of the name that was asked for, or an error that names the file.
func FuzzNetwork(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"blue","plugins":[{"type":"a"}]}`), "10.conflist")
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"blue","type":"../a"}`), "10.conf")
	f.Add([]byte(`{"name":"blue","name":"red"}`), ".conf")
	f.Fuzz(func(t *testing.T, content []byte, file string) {
		dir := t.TempDir()
		if filepath.Base(file) != file || os.WriteFile(filepath.Join(dir, file), content, 0o600) != nil {
			return
		}
		n, err := confdir.Network(nil, dir, "blue")
		if err == nil && (n.Name != "blue" || len(n.Plugins) == 0) {
			t.Errorf("%s is %+v", content, n)
		}
		if n, err := confdir.FromPath(nil, dir); err == nil && (n.Name == "" || len(n.Plugins) == 0) || err != nil && !strings.Contains(err.Error(), dir) {
			t.Errorf("%s is %+v, %v", content, n, err)
		}
	})
}

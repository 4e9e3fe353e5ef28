package deptest

import (
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/braid-cni/braid"

func TestLayers(t *testing.T) {
	for pkg, imports := range production(t) {
		from, ok := layerOf(pkg)
		if !ok {
			t.Errorf("%s has no place in the table of layers", pkg)
			continue
		}
		for _, to := range imports {
			to, own := strings.CutPrefix(to, module+"/")
			if !own {
				continue
			}
			if matches(testSupport, to) {
				t.Errorf("%s imports %s, which is for tests only", pkg, to)
				continue
			}
			switch layer, ok := layerOf(to); {
			case !ok: // reported where the package itself is looked at
			case layer < from:
				t.Errorf("%s (%s) imports %s (%s): an arrow back", pkg, layers[from].name, to, layers[layer].name)
			case layer == from && !allowedSideways(pkg, to):
				t.Errorf("%s imports %s of its own layer (%s), which the table does not list", pkg, to, layers[from].name)
			}
		}
	}
}

func TestReserved(t *testing.T) {
	for pkg, imports := range production(t) {
		for _, rule := range reserved {
			for _, path := range imports {
				if matches(rule.imports, path) && !matches(rule.by, pkg) {
					t.Errorf("%s imports %s: %s", pkg, path, rule.why)
				}
			}
		}
	}
}

func TestBraidLinksLittle(t *testing.T) {
	linked(t, "cmd/braid", func(imported, by string) {
		if why, ok := keptOut(imported, by); !ok {
			t.Errorf("cmd/braid links %s by way of %s: %s", imported, by, why)
		}
		if match("node/...", by) && !slices.ContainsFunc(ofDaemonInBraid, func(r struct{ imports, why string }) bool { return match(r.imports, by) }) {
			t.Errorf("cmd/braid links %s, which is of the daemon, and not on the list of what it may", by)
		}
	})
}

func TestShimLinksLittle(t *testing.T) {
	linked(t, "cmd/braid-shim", func(imported, by string) {
		if !slices.ContainsFunc(linkedByShim, func(r struct{ imports, why string }) bool { return match(r.imports, imported) }) {
			t.Errorf("cmd/braid-shim links %s by way of %s, which is not on the list of what it may", imported, by)
		}
	})
}

// linked calls back with every package from outside that a program, or a package of Braid below it, imports.
func linked(t *testing.T, program string, found func(imported, by string)) {
	t.Helper()
	tree := production(t)
	seen := map[string]bool{}
	var walk func(pkg, by string)
	walk = func(pkg, by string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		imports, ok := tree[pkg]
		if !ok {
			t.Errorf("%s imports %s: no such package", by, pkg)
		}
		for _, imported := range imports {
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				walk(own, pkg)
			} else {
				found(imported, pkg)
			}
		}
	}
	walk(program, "nobody")
}

// keptOut tells whether cmd/braid, or a package of Braid below it, may import a package from outside.
func keptOut(imported, by string) (why string, ok bool) {
	for _, rule := range httpInBraid {
		if rule.by == by && rule.imports == imported {
			return "", true
		}
	}
	for _, rule := range notInBraid {
		if match(rule.imports, imported) {
			return rule.why, false
		}
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		return "", true // the standard library
	}
	for _, rule := range linkedByBraid {
		if match(rule.imports, imported) {
			return "", true
		}
	}
	return "not on the list of what it may link", false
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"cni", "cni", true},
		{"cni", "cni/cnitest", false},
		{"kube/...", "kube", true},
		{"kube/...", "kube/lookup", true},
		{"kube/...", "kubectl", false},
	} {
		if got := match(c.pattern, c.path); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.path, got)
		}
	}
}

func layerOf(pkg string) (int, bool) {
	i := slices.IndexFunc(layers, func(l layer) bool { return matches(l.packages, pkg) })
	return i, i >= 0
}

func allowedSideways(from, to string) bool {
	for _, s := range sideways {
		if match(s.from, from) && match(s.to, to) {
			return true
		}
	}
	return false
}

func matches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, path) })
}

func match(pattern, path string) bool {
	below, tree := strings.CutSuffix(pattern, "/...")
	return path == below || tree && strings.HasPrefix(path, below+"/")
}

// production maps every package of the module that is not for tests to what its non-test files import. The source is
// read here, not by `go list`: go test knows which files a test has read and only then notices that a cached success
// is out of date.
func production(t *testing.T) map[string][]string {
	t.Helper()
	tree := map[string]map[string]bool{}
	root := os.DirFS("../..")
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return enter(root, name)
		case path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || matches(testSupport, path.Dir(name)):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("../..", name), nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := tree[path.Dir(name)]
		if pkg == nil {
			pkg = map[string]bool{}
			tree[path.Dir(name)] = pkg
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			pkg[imported] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(tree) < 10 {
		t.Fatalf("found %d packages only: %v", len(tree), slices.Sorted(maps.Keys(tree)))
	}
	imports := map[string][]string{}
	for pkg, set := range tree {
		imports[pkg] = slices.Sorted(maps.Keys(set))
	}
	return imports
}

// enter returns fs.SkipDir for folders with no packages of this module.
func enter(root fs.FS, dir string) error {
	base := path.Base(dir)
	if base == "testdata" || dir != "." && (base[0] == '.' || base[0] == '_') {
		return fs.SkipDir
	}
	switch _, err := fs.Stat(root, path.Join(dir, "go.mod")); {
	case dir != "." && err == nil:
		return fs.SkipDir // a nested module
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

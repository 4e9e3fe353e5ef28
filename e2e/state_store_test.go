package e2e

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/e2e/figures"
)

// junk is what can lie in a folder of host-local's reservations, by name: an empty text stands for a folder.
var junk = map[string]string{
	"10.244.0.2":                  "\x00\xff\xfe\x01binary",
	"10.244.0.4":                  "",
	"10.244.0.5":                  "other-runtime\r\neth0",
	"10.244.0.6":                  "one line without an end",
	"10.244.0.7":                  "\r\n\r\nx\r\n",
	"10.244.0.8":                  strings.Repeat("x", 100_000),
	"10.244.0.9":                  "c-web\r\neth7", // another interface of the same container
	"10.244.0.255":                "broadcast\r\neth0",
	"10.99.0.2":                   "c-of-another-range\r\neth0",
	"fd00:244::2":                 "other-runtime\neth0", // as older versions of the reference wrote it
	"fd00:244::3":                 "other-runtime",
	"fd00:244:0:0::4":             "c-odd\r\neth0", // other spellings of addresses reserve nothing
	"FD00:244::5":                 "c-odd\r\neth0",
	"fd00%3A244%3A%3A6":           "c-odd\r\neth0",
	"fe80::1%eth0":                "c-odd\r\neth0",
	"::ffff:10.244.0.10":          "c-odd\r\neth0",
	"10.244.0.011":                "c-odd\r\neth0",
	"10.244.0.12.bak":             "c-odd\r\neth0",
	"10.244.0.13 ":                "c-odd\r\neth0",
	".hidden":                     "x",
	"notes.txt":                   "do not delete",
	"a\nname":                     "x",
	strings.Repeat("n", 255):      "x",
	"sub":                         "",
	"sub/10.244.0.14":             "c-sub\r\neth0",
	"last_reserved_ip.0":          "\x00not an address",
	"last_reserved_ip.7":          "10.244.0.200",
	"last_reserved_ip.1":          "",
	"last_reserved_ip.":           "x",
	"-rf":                         "x",
	"\xff\xfe":                    "no UTF-8",
	"10.244.0.3:c-web:eth0.json":  "{}",
	"$(reboot)":                   "x",
	"10.244.0.20\r":               "c-odd\r\neth0",
	"10.244.0.300":                "c-odd\r\neth0",
	"0x0af40015":                  "c-odd\r\neth0",
	"fd00:244::1:2:3:4:5:6:7:8:9": "c-odd\r\neth0",
}

// contents is a digest of each file below a folder, and what else there is.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, what := path[len(dir)+1:], d.Type().String()
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("%x", sha256.Sum256(b))
		}
		found[name] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestJunkInTheStore: a folder of reservations that others share, with everything in it that should not be there. No address
// of another is given out, what is none of Braid's is as before, and the reference goes on sharing it.
func TestJunkInTheStore(t *testing.T) {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	dir := filepath.Join(n.dir, "ipam", "cluster")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil && text == "" {
			err = os.MkdirAll(path, 0o755)
		} else if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range junk {
		write(name, text)
	}
	const strays = 3000
	for i := range strays {
		write(fmt.Sprintf("stray-%d", i), "x")
	}
	for name, make := range map[string]func(string) error{
		"10.244.0.15": func(path string) error { return os.Symlink("/etc/hostname", path) },
		"10.244.0.16": func(path string) error { return os.Symlink("nowhere", path) },
		"10.244.0.17": func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"lock":        func(path string) error { return os.Mkdir(path, 0o755) },
	} {
		if err := make(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	before := contents(t, dir)
	unchanged := func(after string) {
		t.Helper()
		now := contents(t, dir)
		for name := range now {
			if strings.HasPrefix(name, ".braid") || name == "last_reserved_ip.0" || name == "last_reserved_ip.1" { // its own
				delete(now, name)
			}
		}
		want := make(map[string]string)
		for name, what := range before {
			if name != "last_reserved_ip.0" && name != "last_reserved_ip.1" {
				want[name] = what
			}
		}
		if diff := cmp.Diff(want, now); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", after, diff)
		}
	}
	if err := n.gc(); err != nil { // of which nobody is valid: but whose files have no owner are not Braid's to judge
		t.Errorf("GC: %v", err)
	}
	// GC frees what has an owner that is not listed, as that of the reference does.
	for _, name := range []string{"10.244.0.5", "10.244.0.7", "10.244.0.9", "10.244.0.255", "10.99.0.2", "fd00:244::2", "fd00:244::3"} {
		if text, ok := junk[name]; ok {
			if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
				write(name, text)
			}
		}
	}
	unchanged("GC")
	web, db := n.pod("web", ""), n.pod("db", "")
	given := addresses(t, web.mustAdd())["eth0"]
	given = append(given, addresses(t, db.mustAdd())["eth0"]...)
	for _, a := range given {
		name, _, _ := strings.Cut(a, "/")
		if before[name] != "" {
			t.Errorf("%s is given to a pod, and reserved by somebody else", a)
		}
	}
	for _, p := range []*pod{web, db} {
		if err := p.check(); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	if err := web.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	web.mustDel()
	db.mustDel()
	unchanged("ADD and DEL")
	// All that is free, and nothing else, can be given out.
	slices.Sort(given)
	if len(slices.Compact(given)) != 4 {
		t.Errorf("addresses: %q", given)
	}
	figures.Note(t, "test", "kinds of junk in a store of host-local", len(junk)+4)
}

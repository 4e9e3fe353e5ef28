package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/journal"
)

// A journal that others can write would have root undo what they say.
func TestFolderOfOthers(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"group":      func(dir string) error { return os.Chmod(dir, 0o770) },
		"everybody":  func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"other user": func(dir string) error { return os.Chown(dir, 65534, 65534) },
	} {
		_, dir := open(t)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := journal.Open(dir); err == nil || !strings.Contains(err.Error(), "nobody else can write (0700)") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestModes(t *testing.T) {
	j, dir := open(t)
	unlock, err := j.Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if err := j.Put(record(t, "c1")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": os.ModeDir | 0o700, "lock": 0o600, "c1:eth0.json": 0o600} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
}

// Links at the names of its files are not followed, and what is no file is no record.
func TestPlanted(t *testing.T) {
	j, dir := open(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.Symlink(victim, at("c1:eth0.json")), unix.Mkfifo(at("c2:eth0.json"), 0o600), os.Mkdir(at("c3:eth0.json"), 0o700),
		os.Symlink(victim, at("c4:eth0.json.tmp")), os.Symlink(victim, at("lock"))); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"c1", "c2", "c3"} {
		var corrupt *journal.CorruptError
		if _, err := j.Get(id, "eth0"); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", id, err)
		}
		if _, err := journal.ReadRaw(at(id + ":eth0.json")); err == nil {
			t.Errorf("%s is read", id)
		}
	}
	if records, err := j.All(); len(records) != 0 || err == nil {
		t.Errorf("records %v (%v)", records, err)
	}
	if err := j.Put(record(t, "c4")); err != nil {
		t.Errorf("beside a link at the name of its temporary file: %v", err)
	}
	if err := j.Put(record(t, "c4")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("written by way of a link: %v", err)
	}
	if _, err := j.Lock(t.Context(), "c1"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("locked by way of a link: %v", err)
	}
	if err := j.SetAside("c1", "eth0"); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the victim has %q (%v)", got, err)
	}
}

func TestLimit(t *testing.T) {
	const limit = 16 << 20
	j, dir := open(t)
	r := record(t, "c1")
	if err := j.Put(r); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "c1:eth0.json"))
	if err != nil {
		t.Fatal(err)
	}
	r.Args += strings.Repeat("x", limit-int(info.Size()))
	if err := j.Put(r); err != nil {
		t.Fatalf("at the limit: %v", err)
	}
	if got, err := j.Get("c1", "eth0"); err != nil || len(got.Args) != len(r.Args) {
		t.Fatalf("at the limit: %v", err)
	}
	r.Args += "x"
	if err := j.Put(r); err == nil || !strings.Contains(err.Error(), "has 16777217 bytes: at most 16777216 are possible") {
		t.Errorf("above: %v", err)
	}
	if got, err := j.Get("c1", "eth0"); err != nil || len(got.Args) != len(r.Args)-1 {
		t.Errorf("the record before is lost: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c1:eth0.json"), make([]byte, limit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var corrupt *journal.CorruptError
	if _, err := j.Get("c1", "eth0"); !errors.As(err, &corrupt) {
		t.Errorf("above, read: %v", err)
	}
}

// FuzzRecord: whatever is in the file of a record, what is read of it can be written and read again, is of this container,
// and has all that undoing needs. Anything else is said to be corrupt, or of a newer version, and can be set aside.
func FuzzRecord(f *testing.F) {
	dir, err := os.MkdirTemp("/dev/shm", "braid-journal-") // in memory: each input is written durably twice
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	j, err := journal.Open(dir)
	if err == nil {
		err = j.Put(record(f, "c1"))
	}
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(dir, "c1:eth0.json")
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(append(good[:len(good):len(good)], "\n{\"done\":true,\"results\":[null],\"pending\":{}}\n\n{\"don"...))
	f.Add(append([]byte{0}, good...))
	f.Add([]byte(strings.Replace(string(good), `"c1"`, `"c2"`, 1)))
	f.Add([]byte(strings.Replace(string(good), `"version":1`, `"version":2`, 1)))
	f.Add([]byte(`{"version":1,"containerID":"c1","ifName":"eth0","attachments":[{"ifName":"..","network":{"name":"../..","plugins":[{"type":"../x"}]},"result":{"cniVersion":"1.0.0","ips":[null]}}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := j.Get("c1", "eth0")
		all, allErr := j.All()
		if (err == nil) != (len(all) == 1) || (err == nil) != (allErr == nil) {
			t.Fatalf("alone: %v; among all: %d, %v", err, len(all), allErr)
		}
		if err != nil {
			if len(err.Error()) > 4<<10 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if r.ContainerID != "c1" || r.IfName != "eth0" {
			t.Fatalf("of %s %s", r.ContainerID, r.IfName)
		}
		for i := range r.Attachments {
			a := &r.Attachments[i]
			if a.Network == nil || len(a.Network.Plugins) == 0 || a.IfName == "" {
				t.Fatalf("attachment %+v cannot be undone", a)
			}
			for _, p := range a.Network.Plugins {
				if strings.ContainsAny(p.Type+p.IPAM, `/\`) || strings.ContainsAny(a.Network.Name, `/\`) {
					t.Fatalf("attachment %+v has a path for a name", a)
				}
			}
			_ = r.At(a)
		}
		if err := j.Put(r); err != nil {
			t.Fatal(err)
		}
		first, _ := os.ReadFile(path)
		again, err := j.Get("c1", "eth0")
		if err == nil {
			err = j.Put(again)
		}
		if second, _ := os.ReadFile(path); err != nil || string(first) != string(second) {
			t.Errorf("%s became %s (%v)", first, second, err)
		}
	})
}

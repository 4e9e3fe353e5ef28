package lease

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// FuzzRequest: a document of the protocol is read within its bounds, and comes back as it was.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"verb":"ADD","spec":{"containerID":"c","network":"n","ifName":"net1","netns":"/n","ipv4":true,"provide":[{"code":12,"value":"YQ=="}],"request":"Kg=="}}`))
	f.Add([]byte(`{"version":1,"verb":"GC","spec":{"network":"n"},"valid":[{"containerID":"c","ifname":"net1"}]}`))
	f.Add([]byte(`{"version":-1,"verb":7,"x":{}}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		var r, again Request
		if Read(bytes.NewReader(doc), &r) != nil {
			return
		}
		if r.Spec.Validate() == nil && (r.Spec.ContainerID == "" || len(r.Spec.Provide) > maxOptions || len(r.Spec.Identifier()) > maxIdentifier) {
			t.Errorf("%s is accepted", doc)
		}
		first, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		if err := Read(bytes.NewReader(first), &again); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second, _ := json.Marshal(&again); !bytes.Equal(first, second) {
			t.Errorf("%s became %s", first, second)
		}
	})
}

// FuzzRecord: a record is that of its attachment, of this boot, or none; all that are no records are removed.
func FuzzRecord(f *testing.F) {
	dir := f.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	key := Key{"c", "n", "net1"}
	if err := s.Put(&Record{Spec: Spec{Key: key, Netns: "/n", IPv4: true}, IPv4: &Binding{}}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(s.path(key))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-2])
	f.Add(bytes.Replace(good, []byte(`"net1"`), []byte(`"net2"`), 1))
	f.Add(bytes.Replace(good, []byte(`"version": 1`), []byte(`"version": 2`), 1))
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(s.path(key), content, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(key)
		if r != nil && (err != nil || r.Spec.Key != key || r.BootID != s.bootID || r.IPv4 == nil && r.IPv6 == nil) {
			t.Fatalf("%s is %+v, %v", content, r, err)
		}
		records, _ := s.All()
		if (r != nil) != (len(records) == 1) {
			t.Fatalf("alone %v, among all %v", r, records)
		}
		if r == nil {
			if _, left := os.Lstat(s.path(key)); (left == nil) != errors.Is(err, errNewer) {
				t.Fatalf("%s: %v; stays: %v", content, err, left == nil)
			}
			return
		}
		held := r.Held()
		held.Result()
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
	})
}

package journal_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

// holdLock makes this test binary a process that holds a lock until it is killed.
const holdLock = "BRAID_TEST_HOLD_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdLock); dir != "" {
		j, err := journal.Open(dir)
		if err == nil {
			_, err = j.Lock(context.Background(), "c1")
		}
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Stdout.WriteString("locked")
		time.Sleep(time.Hour) // not select: the runtime would find a deadlock
	}
	os.Exit(m.Run())
}

func open(t testing.TB) (*journal.Journal, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "attachments")
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return j, dir
}

func record(t testing.TB, containerID string) *journal.Record {
	t.Helper()
	network, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0","type":"macvlan","vendor":9007199254740993}`), "blue")
	if err != nil {
		t.Fatal(err)
	}
	return &journal.Record{
		Created: time.Unix(1, 0).UTC(), BootID: "b", Network: "pods", ContainerID: containerID, Netns: "/n", IfName: "eth0", Args: "A=B",
		Attachments: []journal.Attachment{{
			Name: "ns/blue", IfName: "net1", Network: network, Capabilities: map[string]any{"mac": "02:00:00:00:00:01"},
			Result: &types100.Result{CNIVersion: "1.1.0", Interfaces: []*types100.Interface{{Name: "net1", Sandbox: "/n"}}},
		}},
	}
}

func TestPutGetRemove(t *testing.T) {
	j, _ := open(t)
	if _, err := j.Get("c1", "eth0"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("Get of nothing: %v", err)
	}
	want := record(t, "c1")
	if err := j.Put(want); err != nil {
		t.Fatal(err)
	}
	got, err := j.Get("c1", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-put +got):\n%s", diff)
	}
	if b := string(got.Attachments[0].Network.Plugins[0].Bytes); !strings.Contains(b, "9007199254740993") {
		t.Errorf("the network's bytes changed: %s", b)
	}
	for range 2 {
		if err := j.Remove("c1", "eth0"); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if all, err := j.All(); len(all) != 0 || err != nil {
		t.Errorf("All = %v, %v", all, err)
	}
}

// TestTornRecords: whatever length a record was cut to, it is told from a sound one, and the others are still read.
func TestTornRecords(t *testing.T) {
	j, dir := open(t)
	for _, id := range []string{"c1", "c2"} {
		if err := j.Put(record(t, id)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "c1:eth0.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	broken := [][]byte{make([]byte, len(whole))} // as long as it was, all zeroes
	for n := range len(whole) {
		broken = append(broken, whole[:n])
	}
	broken = append(broken, []byte("{}"), []byte("null"), []byte("[]"), append(whole[:len(whole):len(whole)], 'x'))
	for _, content := range broken {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		var corrupt *journal.CorruptError
		if _, err := j.Get("c1", "eth0"); !errors.As(err, &corrupt) {
			t.Fatalf("Get of %q: %v", content, err)
		}
		all, err := j.All()
		if !errors.As(err, &corrupt) || len(all) != 1 || all[0].ContainerID != "c2" {
			t.Fatalf("All beside %q = %v, %v", content, all, err)
		}
	}
	if err := j.SetAside("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	if all, err := j.All(); len(all) != 1 || err != nil {
		t.Errorf("All after SetAside = %v, %v", all, err)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	j, dir := open(t)
	if err := j.Put(record(t, "c1")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "c1:eth0.json")
	b, _ := os.ReadFile(path)
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), `"version":1`, `"version":99`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := j.Get("c1", "eth0")
	var corrupt *journal.CorruptError
	if err == nil || errors.As(err, &corrupt) || !strings.Contains(err.Error(), "newer Braid") {
		t.Errorf("error = %v", err)
	}
}

func TestLockSerializesOneContainerOnly(t *testing.T) {
	j, _ := open(t)
	ctx := context.Background()
	unlock, err := j.Lock(ctx, "c1")
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := j.Lock(over, "c1"); !errors.Is(err, context.Canceled) {
		t.Errorf("second Lock of the container: %v", err)
	}
	if _, err := j.LockAll(over); !errors.Is(err, context.Canceled) {
		t.Errorf("LockAll: %v", err)
	}
	other, err := j.Lock(ctx, "c2")
	if err != nil {
		t.Fatalf("Lock of another container: %v", err)
	}
	other()

	var wg sync.WaitGroup
	wg.Go(func() {
		again, err := j.Lock(ctx, "c1")
		if err != nil {
			t.Error(err)
			return
		}
		again()
	})
	unlock()
	wg.Wait()
	all, err := j.LockAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer all()
	if _, err := j.Lock(over, "c3"); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock during LockAll: %v", err)
	}
}

// TestLockAllGetsItsTurn: on a busy node there is no moment without a Lock.
func TestLockAllGetsItsTurn(t *testing.T) {
	j, _ := open(t)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	held, err := j.Lock(over, "c0")
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan error)
	go func() {
		unlock, err := j.LockAll(context.Background())
		if err == nil {
			unlock()
		}
		all <- err
	}()
	for i := 0; ; i++ {
		if i == 2000 {
			t.Error("others come before LockAll for ever")
			break
		}
		next, err := j.Lock(over, fmt.Sprint("c", i+1))
		if errors.Is(err, context.Canceled) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
		held()
		held = next
	}
	held()
	if err := <-all; err != nil {
		t.Error(err)
	}
}

// TestNumbersSurvive: DEL asks the plugins for what ADD asked them for, to the last digit.
func TestNumbersSurvive(t *testing.T) {
	j, _ := open(t)
	r := record(t, "c1")
	r.Attachments[0].Capabilities = map[string]any{"bandwidth": map[string]any{"ingressRate": uint64(1<<60 + 1)}}
	if err := j.Put(r); err != nil {
		t.Fatal(err)
	}
	got, err := j.Get("c1", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(got.Attachments[0].Capabilities)
	if want := `{"bandwidth":{"ingressRate":1152921504606846977}}`; err != nil || string(b) != want {
		t.Errorf("found %s, %v, want %s", b, err, want)
	}
}

func TestLockEndsWithItsProcess(t *testing.T) {
	j, dir := open(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), holdLock+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := j.Lock(over, "c1"); err == nil {
		t.Error("two processes hold the lock")
	}
	cmd.Process.Kill()
	cmd.Wait()
	unlock, err := j.Lock(context.Background(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// TestTidy: what a killed Put has left goes when the record is written anew or removed, or by itself; never what somebody is
// about to write.
func TestTidy(t *testing.T) {
	j, dir := open(t)
	left := func() []string {
		t.Helper()
		names, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	kill := func() {
		t.Helper()
		for _, id := range []string{"c1", "c2"} {
			if err := os.WriteFile(filepath.Join(dir, id+":eth0.json.tmp"), []byte(`{"vers`), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	kill()
	if all, err := j.All(); len(all) != 0 || err != nil {
		t.Errorf("All = %v, %v", all, err)
	}
	if err := errors.Join(j.Put(record(t, "c1")), j.Put(record(t, "c1")), j.Remove("c2", "eth0")); err != nil || len(left()) != 0 {
		t.Errorf("after Put and Remove: %v, %q", err, left())
	}
	kill()
	unlock, err := j.Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Tidy(); err != nil || len(left()) != 1 {
		t.Errorf("after Tidy with c1 locked: %v, %q", err, left())
	}
	unlock()
	if err := j.Tidy(); err != nil || len(left()) != 0 {
		t.Errorf("after Tidy: %v, %q", err, left())
	}
	kill()
	if unlock, err = j.LockAll(t.Context()); err != nil || len(left()) != 0 {
		t.Errorf("after LockAll: %v, %q", err, left())
	}
	unlock()
	if got, err := j.Get("c1", "eth0"); err != nil || got.ContainerID != "c1" {
		t.Errorf("the record: %v, %v", got, err)
	}
}

// TestRemoveLater: a record is gone at once. Its blocks are, later.
func TestRemoveLater(t *testing.T) {
	j, dir := open(t)
	var later []func()
	j.Later = func(do func()) { later = append(later, do) }
	if err := errors.Join(j.Put(record(t, "c1")), j.Remove("c1", "eth0"), j.Remove("c1", "eth0")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "c1:eth0.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	held := func() (n int) {
		t.Helper()
		open, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range open {
			if path, err := os.Readlink(fd); err == nil && path == filepath.Join(dir, "c1:eth0.json")+" (deleted)" {
				n++
			}
		}
		return n
	}
	if len(later) != 1 || held() != 1 {
		t.Fatalf("%d things to do later, %d descriptors", len(later), held())
	}
	later[0]()
	if n := held(); n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
}

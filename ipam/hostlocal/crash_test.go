package hostlocal_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/hostlocal"
)

// TestKilled kills processes at random places of ADD and DEL. What they leave is whole, belongs to its owner, and is
// released by DEL.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	whole := regexp.MustCompile(`^c[0-9]+-[0-9]+\r\neth0$`)
	for round := range 25 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), doEnv+"=churn", timesEnv+"=100000", configEnv+"="+conf)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range rand.IntN(20) + 1 {
			lines.Scan()
		}
		time.Sleep(rand.N(3 * time.Millisecond)) // to hit another place each time
		_ = cmd.Process.Kill()
		_ = cmd.Wait()

		owners := map[string]int{}
		for name, content := range reserved(t, dir) {
			if !whole.MatchString(content) {
				t.Errorf("round %d: %s has %q", round, name, content)
			}
			id, _, _ := strings.Cut(content, "\r\n")
			owners[id]++
		}
		if len(owners) > 30 {
			for id := range owners {
				del(t, id, conf)
			}
			wantNoReservation(t, dir)
		}
		id := fmt.Sprint("after-", round)
		add(t, id, conf)
		del(t, id, conf)
		if t.Failed() {
			return
		}
	}
}

// TestFullDisk: an ADD that fails for want of space leaves nothing, DEL works, and ADD works when there is space again.
func TestFullDisk(t *testing.T) {
	nettest.NeedRoot(t)
	for name, options := range map[string]string{"no space": "size=128k", "no inodes": "nr_inodes=20"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
				}
			})
			conf := config(dir, `[[{"subnet":"10.0.0.0/24"}]]`)
			add(t, "c1", conf)
			fill(t, filepath.Join(dir, "fill"))
			before := fmt.Sprint(files(t, dir))
			for range 2 {
				_, err := hostlocal.Plugin{}.Add(t.Context(), request("c2", conf))
				if !errors.Is(err, unix.ENOSPC) {
					t.Errorf("error = %v", err)
				}
			}
			if after := fmt.Sprint(files(t, dir)); after != before {
				t.Errorf("files: %s, before: %s", after, before)
			}
			del(t, "c1", conf)
			wantNoReservation(t, dir)
			if err := os.RemoveAll(filepath.Join(dir, "fill")); err != nil {
				t.Fatal(err)
			}
			wantIPs(t, add(t, "c2", conf), "10.0.0.3/24")
		})
	}
}

// TestDelOnAFullDisk: DEL finds what the reference reserved before there was any index, and has no space to make one.
func TestDelOnAFullDisk(t *testing.T) {
	nettest.NeedRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=12"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	writeFile(t, filepath.Join(dir, "blue", "10.0.0.2"), "c1\r\neth0")
	writeFile(t, filepath.Join(dir, "blue", "lock"), "")
	fill(t, filepath.Join(dir, "fill"))
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}]]`)
	_, err := hostlocal.Plugin{}.Add(t.Context(), request("c2", conf))
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("ADD: %v", err)
	}
	del(t, "c1", conf)
	wantNoReservation(t, dir)
}

// fill uses up what the file system has of space and inodes.
func fill(t testing.TB, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 10_000 {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), make([]byte, 4096), 0o600)
		if errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the disk does not get full")
}

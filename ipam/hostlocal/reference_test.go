package hostlocal_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/ipam/hostlocal"
)

// A library is the reference's own allocator and store, used as its main function does.
type library struct {
	testing.TB
	dir  string
	sets []allocator.RangeSet
}

func newLibrary(t testing.TB, dir, conf string) *library {
	t.Helper()
	c, _, err := allocator.LoadIPAMConfig([]byte(conf), "")
	if err != nil {
		t.Fatal(err)
	}
	return &library{t, dir, c.Ranges}
}

func (l *library) store() *disk.Store {
	store, err := disk.New("blue", l.dir)
	if err != nil {
		l.Fatal(err)
	}
	return store
}

func (l *library) add(id string, requested net.IP) (got []string, err error) {
	store := l.store()
	defer store.Close()
	for i := range l.sets {
		var wish net.IP
		if l.sets[i].Contains(requested) {
			wish = requested
		}
		ip, err := allocator.NewIPAllocator(&l.sets[i], store, i).Get(id, "eth0", wish)
		if err != nil {
			return nil, err
		}
		got = append(got, ip.Address.String())
	}
	return got, nil
}

func (l *library) del(id string) {
	store := l.store()
	defer store.Close()
	for i := range l.sets {
		if err := allocator.NewIPAllocator(&l.sets[i], store, i).Release(id, "eth0"); err != nil {
			l.Fatal(err)
		}
	}
}

// TestOracle puts the same calls to the reference's own allocator and store: the same addresses, the same files.
func TestOracle(t *testing.T) {
	for name, ranges := range map[string]string{
		"one range":   `[[{"subnet":"10.0.0.0/28"}]]`,
		"pool":        `[[{"subnet":"10.0.0.0/29"},{"subnet":"10.0.1.0/29","rangeStart":"10.0.1.3"},{"subnet":"10.0.2.0/28","gateway":"10.0.2.5"}]]`,
		"dual stack":  `[[{"subnet":"10.0.0.0/27"}],[{"subnet":"fd00::/64","rangeEnd":"fd00::3f"}]]`,
		"gateway end": `[[{"subnet":"10.0.0.0/28","rangeStart":"10.0.0.5","rangeEnd":"10.0.0.9","gateway":"10.0.0.9"}]]`,
		"gateway out": `[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.5","rangeEnd":"10.0.0.20","gateway":"10.0.0.254"}]]`,
		"one address": `[[{"subnet":"10.0.0.0/30","rangeStart":"10.0.0.2"}]]`,
		"chunks":      `[[{"subnet":"10.0.0.0/16","rangeStart":"10.0.63.250","rangeEnd":"10.0.64.7"}]]`,
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := t.TempDir(), t.TempDir()
			conf := config(ours, ranges)
			reference := newLibrary(t, theirs, config(theirs, ranges))
			random := rand.New(rand.NewPCG(3, 4))
			for step := range 200 {
				id := fmt.Sprint("c", step)
				switch what := random.IntN(10); {
				case what < 4 && step > 0: // the reference's DEL makes the folder if there is none
					id = fmt.Sprint("c", random.IntN(step+1)) // one of before, or one that failed
					del(t, id, conf)
					reference.del(id)
				default:
					req := request(id, conf)
					var wish net.IP
					if what == 9 {
						first := reference.sets[0][0].RangeStart.To4()
						wish = net.IPv4(first[0], first[1], first[2], first[3]+byte(random.IntN(8))).To4()
						if reference.sets[0].Contains(wish) {
							req.Args = "IP=" + wish.String()
						}
					}
					want, wantErr := reference.add(id, wish)
					res, err := hostlocal.Plugin{}.Add(t.Context(), req)
					if (err == nil) != (wantErr == nil) {
						t.Fatalf("step %d, %s: error %v, the reference's is %v", step, req.Args, err, wantErr)
					}
					if err == nil && !slices.Equal(ips(res), want) {
						t.Fatalf("step %d, %s: %q, the reference gave %q", step, req.Args, ips(res), want)
					}
				}
				if diff := cmp.Diff(files(t, theirs), files(t, ours)); diff != "" {
					t.Fatalf("step %d: files (-reference +ours):\n%s", step, diff)
				}
			}
		})
	}
}

// binary runs the reference plugin.
func binary(path, verb, id, conf string) (*types100.Result, error) {
	cmd := exec.Command(path)
	cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=/none", "CNI_IFNAME=eth0", "CNI_PATH=/none"}
	cmd.Stdin = strings.NewReader(conf)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("reference %s %s: %w: %s", verb, id, err, out)
	}
	res := new(types100.Result)
	if verb == "ADD" {
		err = json.Unmarshal(out, res)
	}
	return res, err
}

// TestSharedFolder: the reference binary and ours take turns on one folder, and see and undo what the other did.
func TestSharedFolder(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(refplugins.Dir(t), "host-local")
	conf := config(dir, `[[{"subnet":"10.0.0.0/28"}],[{"subnet":"fd00::/64"}]]`)
	reference := func(verb, id string) []string {
		t.Helper()
		res, err := binary(path, verb, id, conf)
		if err != nil {
			t.Fatal(err)
		}
		return ips(res)
	}
	wantIPs(t, reference("ADD", "a"), "10.0.0.2/28", "fd00::2/64")
	wantIPs(t, add(t, "b", conf), "10.0.0.3/28", "fd00::3/64")
	wantIPs(t, reference("ADD", "c"), "10.0.0.4/28", "fd00::4/64")
	_, err := hostlocal.Plugin{}.Add(t.Context(), request("c", conf))
	wantError(t, err, 0, "duplicate allocation")
	if _, err := binary(path, "ADD", "b", conf); err == nil || !strings.Contains(err.Error(), "duplicate allocation") {
		t.Errorf("reference: ADD of a container that has addresses: %v", err)
	}
	check := config(dir, `[[{"subnet":"10.0.0.0/28"}],[{"subnet":"fd00::/64"}]]`,
		`,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.4/28"},{"address":"fd00::4/64"}]}`)
	if err := (hostlocal.Plugin{}).Check(t.Context(), request("c", check)); err != nil {
		t.Errorf("CHECK of what the reference reserved: %v", err)
	}
	reference("CHECK", "b")
	del(t, "a", conf)
	reference("DEL", "b")
	if got := reserved(t, dir); len(got) != 2 {
		t.Errorf("reserved: %q", got)
	}
	if _, err := binary(path, "CHECK", "b", conf); err == nil {
		t.Error("reference: CHECK after DEL succeeds")
	}
	if err := (hostlocal.Plugin{}).GC(t.Context(), request("", config(dir, `[]`, `,"cni.dev/valid-attachments":[]`))); err != nil {
		t.Fatal(err)
	}
	wantNoReservation(t, dir)
	wantIPs(t, reference("ADD", "d"), "10.0.0.5/28", "fd00::5/64")
}

// TestProcesses has eight processes of ours and of the reference allocate at once. No address is given out twice, and
// each can release what the other reserved.
func TestProcesses(t *testing.T) {
	dir, path := t.TempDir(), filepath.Join(refplugins.Dir(t), "host-local")
	conf := config(dir, `[[{"subnet":"10.0.0.0/16"}]]`)
	const each = 25
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	owner := make(map[string]string) // by address
	given := func(address, id string) {
		mu.Lock()
		defer mu.Unlock()
		if other, twice := owner[address]; twice {
			t.Errorf("%s was given to %s and to %s", address, other, id)
		}
		owner[address] = id
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), doEnv+"=add", timesEnv+"="+fmt.Sprint(each), configEnv+"="+conf)
			out, err := cmd.CombinedOutput()
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if err != nil || len(lines) != each {
				t.Errorf("%v: %s", err, out)
				return
			}
			for _, line := range lines {
				id, address, _ := strings.Cut(line, " ")
				given(address, id)
			}
		})
		wg.Go(func() {
			for j := range each {
				id := fmt.Sprintf("r%d-%d", i, j)
				res, err := binary(path, "ADD", id, conf)
				if err != nil {
					t.Error(err)
					return
				}
				given(res.IPs[0].Address.IP.String(), id)
			}
		})
	}
	wg.Wait()
	want := map[string]string{}
	for address, id := range owner {
		want[address] = id + "\r\neth0"
	}
	if got := reserved(t, dir); !maps.Equal(got, want) || len(got) != 8*each {
		t.Errorf("%d files, %d addresses were given out; (-given +files):\n%s", len(got), len(owner), cmp.Diff(want, got))
	}
	for _, id := range owner {
		wg.Go(func() {
			if strings.HasPrefix(id, "r") {
				if err := (hostlocal.Plugin{}).Del(t.Context(), request(id, conf)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i, id := range slices.Sorted(maps.Values(owner)) {
		if strings.HasPrefix(id, "c") && i%4 == 0 {
			if _, err := binary(path, "DEL", id, conf); err != nil {
				t.Error(err)
			}
		} else if strings.HasPrefix(id, "c") {
			del(t, id, conf)
		}
	}
	wg.Wait()
	wantNoReservation(t, dir)
}

// TestKept: it makes no difference that folders are kept open.
func TestKept(t *testing.T) {
	defer hostlocal.Keep()()
	for name, test := range map[string]func(*testing.T){
		"oracle": TestOracle, "shared folder": TestSharedFolder, "processes": TestProcesses, "parallel": TestParallel, "lock": TestLock,
		"round robin": TestRoundRobin, "all or nothing": TestAllOrNothing, "foreign files": TestForeignFiles, "GC": TestGC, "sticky": TestSticky,
		"reboot": TestReboot, "killed": TestKilled,
	} {
		t.Run(name, test)
	}
}

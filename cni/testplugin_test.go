package cni_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/internal/nettest"
)

// Under the name testplugin-NAME this test binary is a CNI plugin that behaves as NAME says.
func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(filepath.Base(os.Args[0]), prefix); ok {
		behave, ok := behaviours[name]
		if !ok {
			panic("no such test plugin: " + name)
		}
		behave()
		os.Exit(0)
	}
	os.Exit(nettest.Main(m))
}

const (
	prefix = "testplugin-"
	result = `{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.3/24"}]}`
)

var behaviours = map[string]func(){
	"sized":      sized,
	"ok":         func() { cni.Main(&cnitest.Fake{Result: wholeResult()}, "CNI plugin ok") },
	"error":      func() { cni.Main(failing(types.NewError(11, "no lease", "the server is silent")), "") },
	"plainerror": func() { cni.Main(failing(errors.New("something else")), "") },
	"waits":      func() { cni.Main(&cnitest.Fake{On: waits}, "") },
	"loud":       func() { cni.Main(&cnitest.Fake{On: loud}, "") },
	"named":      func() { cni.Main(&cnitest.Fake{On: named}, "") },
	"proxy":      func() { cni.Main(cni.Exec{Type: prefix + "hangs"}, "") },

	"echo":        echo,
	"answers":     func() { fmt.Print(argument("answer")) },
	"silent":      func() {},
	"garbage":     func() { fmt.Print("Segmentation fault, probably") },
	"two":         func() { fmt.Print(result, result) },
	"trailing":    func() { fmt.Print(result, "\nall done\n") },
	"endless":     func() { endless() },
	"deaf":        func() { fmt.Print(result) },
	"noise":       func() { fmt.Fprint(os.Stderr, strings.Repeat("noise ", 1<<19)); fmt.Print(result) },
	"mute":        func() { os.Exit(3) },
	"stderr":      func() { fmt.Fprint(os.Stderr, "cannot find\nmy keys"); os.Exit(3) },
	"nonjson":     func() { fmt.Print("panic: oops"); os.Exit(2) },
	"emptyerror":  func() { fmt.Print("{}"); os.Exit(1) },
	"resultfirst": func() { fmt.Print(result, `{"code": 8, "msg": "not this namespace"}`); os.Exit(1) },
	"killed":      func() { fmt.Print(result); _ = syscall.Kill(os.Getpid(), syscall.SIGKILL); hang() },
	"panics":      func() { panic("at the disco") },
	"hangs":       func() { ready(os.Getpid()); hang() },
	"forkshangs":  func() { ready(fork()); hang() },
	"forksleaves": func() { ready(fork()); fmt.Print(result) },
	"hang":        hang,
}

// install gives test plugins to a folder, and returns it as CNI_PATH.
func install(t *testing.T, names ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, prefix+name)); err != nil {
			t.Fatal(err)
		}
	}
	return []string{dir}
}

func wholeResult() *types100.Result {
	v4, _ := types.ParseCIDR("10.1.2.3/24")
	v6, _ := types.ParseCIDR("fd00::3/64")
	any4, _ := types.ParseCIDR("0.0.0.0/0")
	any6, _ := types.ParseCIDR("::/0")
	return &types100.Result{
		Interfaces: []*types100.Interface{{Name: "host0"}, {Name: "net1", Mac: "02:00:00:00:00:01", Mtu: 1400, Sandbox: "/run/netns/x"}},
		IPs: []*types100.IPConfig{
			{Interface: types100.Int(1), Address: *v4, Gateway: []byte{10, 1, 2, 1}},
			{Interface: types100.Int(1), Address: *v6},
		},
		Routes: []*types.Route{{Dst: *any4}, {Dst: *any6, Priority: 7}},
		DNS:    types.DNS{Nameservers: []string{"10.1.2.1"}, Search: []string{"example.org"}},
	}
}

func failing(err error) cni.Plugin {
	return &cnitest.Fake{On: func(context.Context, string, *cni.Request) error { return err }}
}

// waits ends with its context.
func waits(ctx context.Context, _ string, _ *cni.Request) error {
	ready(os.Getpid())
	<-ctx.Done()
	return context.Cause(ctx)
}

// named says which call it is, and what plugins would inherit of that.
func named(ctx context.Context, _ string, _ *cni.Request) error {
	_, inherited := os.LookupEnv(edge.CallEnv)
	fmt.Fprintf(os.Stderr, "call %q, inherited: %t\n", cni.CallID(ctx), inherited)
	return nil
}

// loud says what is called.
func loud(_ context.Context, command string, _ *cni.Request) error {
	fmt.Fprintln(os.Stderr, "called:", command)
	return nil
}

// echo returns its environment and its standard input within a result.
func echo() {
	stdin, _ := io.ReadAll(os.Stdin)
	res := types100.Result{CNIVersion: "1.0.0", DNS: types.DNS{Domain: string(stdin), Options: os.Environ()}}
	_ = json.NewEncoder(os.Stdout).Encode(&res)
}

// sized prints a result of a size.
func sized() {
	var n int
	_, _ = fmt.Sscan(argument("size"), &n)
	const result = `{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8"}]}`
	fmt.Print(result, strings.Repeat(" ", n-len(result)))
}

// argument returns a value of CNI_ARGS.
func argument(key string) string {
	value, _ := cni.Attachment{Args: os.Getenv("CNI_ARGS")}.Arg(key)
	return value
}

func endless() {
	chunk := bytes.Repeat([]byte(" "), 1<<16)
	for {
		_, _ = os.Stdout.Write(chunk) // an error does not stop it
	}
}

// ready tells the test, on standard error, that a process waits now.
func ready(pid int) { fmt.Fprintf(os.Stderr, "waiting: %d\n", pid) }

func hang() {
	for {
		syscall.Pause()
	}
}

// fork starts a process that holds standard output, and ignores what it can.
func fork() int {
	cmd := exec.Command(filepath.Join(filepath.Dir(os.Args[0]), prefix+"hang"))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	return cmd.Process.Pid
}

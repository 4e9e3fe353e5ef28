package hostexec_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/node/hostexec"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

func TestRun(t *testing.T) {
	cmd := hostexec.Command(t.Context(), "", "/bin/sh", "-c", "pwd; ps -o pgid= -p $$ | tr -d ' '; echo $$; exit 3")
	var out strings.Builder
	cmd.Stdout = &out
	pid := 0
	err := hostexec.Run(cmd, func(p *os.Process) { pid = p.Pid })
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 {
		t.Errorf("found %v, want exit code 3", err)
	}
	lines := strings.Fields(out.String())
	if len(lines) != 3 || lines[0] != "/" || lines[1] != lines[2] || pid != cmd.ProcessState.Pid() {
		t.Errorf("it says %q, want that it is in / and a group of its own; process %d", lines, pid)
	}
}

// A program of another file system is looked up there, and sees nothing else.
func TestRunInRoot(t *testing.T) {
	root := nettest.Root(t)
	shown := nettest.EmptyFolder(t)
	mark := filepath.Join(t.TempDir(), "mark")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nettest.Bind(t, filepath.Dir(mark), filepath.Join(root, shown)) // there only
	if err := hostexec.Run(hostexec.Command(t.Context(), root, "/bin/ls", filepath.Join(shown, "mark")), nil); err != nil {
		t.Errorf("in the root: %v", err)
	}
	if err := hostexec.Run(hostexec.Command(t.Context(), "", "/bin/ls", filepath.Join(shown, "mark")), nil); err == nil {
		t.Error("it is to be seen outside")
	}
}

func TestRunNothing(t *testing.T) {
	err := hostexec.Run(hostexec.Command(t.Context(), "", "/nonexistent"), func(*os.Process) { t.Error("there is a process") })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("found %v, want %v", err, os.ErrNotExist)
	}
	if err := hostexec.Run(hostexec.Command(t.Context(), "/nonexistent", "/bin/true"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a root: found %v, want %v", err, os.ErrNotExist)
	}
}

// When the context ends a program is asked to end, and killed if it does not.
func TestRunEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   syscall.Signal // that has ended it; 0 if it has exited
	}{
		"obedient": {"trap 'exit 0' TERM; echo; while :; do sleep 0.01; done", 0},
		"default":  {"echo; exec sleep 1000", syscall.SIGTERM},
		"stubborn": {"trap '' TERM; echo; while :; do sleep 0.01; done", syscall.SIGKILL},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cmd := hostexec.Command(ctx, "", "/bin/sh", "-c", tt.script)
			if name == "stubborn" {
				cmd.WaitDelay = 50 * time.Millisecond
			}
			cmd.Stdout = onWrite(cancel)
			if err := hostexec.Run(cmd, nil); err == nil {
				t.Error("it ends without an error, though the context has ended")
			}
			status := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if signalled := status.Signaled(); signalled != (tt.want != 0) || signalled && status.Signal() != tt.want {
				t.Errorf("found %v, want %v", cmd.ProcessState, tt.want)
			}
		})
	}
}

// onWrite is called when something is written.
type onWrite func()

func (f onWrite) Write(b []byte) (int, error) {
	f()
	return len(b), nil
}

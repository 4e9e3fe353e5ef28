package worker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
)

// TestExecute: the plugin of somebody else, which the plugin process runs, is to the worker as if it ran it.
func TestExecute(t *testing.T) {
	t.Setenv("OF_THE_RUNTIME", "kept")
	for name, script := range map[string]string{
		"answers":     `echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $CNI_PATH $TRACEPARENT $OF_THE_RUNTIME"; cat`,
		"is silent":   "",
		"fails":       `echo '{"cniVersion": "1.1.0", "code": 11, "msg": "later", "details": "soon"}'; exit 1`,
		"exits":       "echo oops >&2; exit 3",
		"is killed":   "kill -9 $$",
		"hangs":       "exec sleep 60",
		"is no file":  "none",
		"is no text":  "binary",
		"has no name": "nameless",
	} {
		t.Run(name, func(t *testing.T) {
			netns, dir := nettest.NewNS(t).Path(), t.TempDir()
			e := cni.Exec{Type: "third", Timeout: time.Second}
			content := "#!/bin/sh\n" + script + "\n"
			switch script {
			case "binary":
				content = "\x7fELF"
			case "nameless":
				e.Type = "../third"
			}
			if script != "none" {
				if err := os.WriteFile(filepath.Join(dir, "third"), []byte(content), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			var here, there executedAs
			socket, _ := serve(t, &Worker{Plugin: func(c Caller) cni.Plugin {
				return &cnitest.Fake{On: func(ctx context.Context, command string, req *cni.Request) error {
					asked := *req
					asked.Path, asked.Config = []string{"/nowhere", dir}, []byte("a \x00 configuration")
					here.run(ctx, e, &asked)
					elsewhere := e
					elsewhere.Executor = c.Execute
					there.run(ctx, elsewhere, &asked)
					return nil
				}}
			}})
			trace := "TRACEPARENT=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			if _, done := Call(socket, environ("CHECK", "c1", netns, trace), []byte(config)); !done {
				t.Fatal("the call is not done")
			}
			if here != there {
				t.Errorf("executed by the worker: %+v, by the plugin process: %+v", here, there)
			}
			if name == "answers" && (!strings.Contains(there.stdout, "kept") || !strings.Contains(there.stdout, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")) {
				t.Errorf("found %+v", there)
			}
			if (name == "answers" || name == "is silent") != (there.text == "") {
				t.Errorf("found %+v", there)
			}
		})
	}
}

// executedAs is what an execution has brought.
type executedAs struct {
	stdout, text         string
	notFound, notStarted bool
	code                 uint
	message, details     string
}

func (x *executedAs) run(ctx context.Context, e cni.Exec, req *cni.Request) {
	stdout, err := e.Run(ctx, "DEL", req)
	*x = executedAs{stdout: string(stdout)}
	if err == nil {
		return
	}
	x.text = err.Error()
	_, x.notFound = errors.AsType[*cni.NotFoundError](err)
	_, x.notStarted = errors.AsType[*cni.NotStartedError](err)
	if inner, ok := errors.AsType[*types.Error](err); ok {
		x.code, x.message, x.details = inner.Code, inner.Msg, inner.Details
	}
}

// TestExecuteIsCancelled: what is executed ends with the context of the call, and the next is executed as ever.
func TestExecuteIsCancelled(t *testing.T) {
	netns, dir := nettest.NewNS(t).Path(), t.TempDir()
	started := filepath.Join(dir, "started")
	script := "#!/bin/sh\n[ $CNI_COMMAND = DEL ] && echo deleted && exit\ntouch " + started + "\nexec sleep 60\n"
	if err := os.WriteFile(filepath.Join(dir, "third"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough of it")
	socket, _ := serve(t, &Worker{Plugin: func(c Caller) cni.Plugin {
		return &cnitest.Fake{On: func(ctx context.Context, command string, req *cni.Request) error {
			asked := *req
			asked.Path = []string{dir}
			e := cni.Exec{Type: "third", Executor: c.Execute}
			ending, cancel := context.WithCancelCause(ctx)
			go func() {
				for ctx.Err() == nil {
					if _, err := os.Stat(started); err == nil {
						cancel(cause)
						return
					}
					time.Sleep(time.Millisecond)
				}
			}()
			if _, err := e.Run(ending, "ADD", &asked); !errors.Is(err, cause) {
				t.Errorf("a call that ends: found %v", err)
			}
			if _, err := e.Run(ending, "ADD", &asked); !errors.Is(err, cause) {
				t.Errorf("a call that has ended: found %v", err)
			}
			if out, err := e.Run(ctx, "DEL", &asked); err != nil || string(out) != "deleted\n" {
				t.Errorf("what undoes it: found %q, %v", out, err)
			}
			return nil
		}}
	}})
	if _, done := Call(socket, environ("CHECK", "c1", netns), []byte(config)); !done {
		t.Fatal("the call is not done")
	}
}

package worker

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/nettest"
)

// What a delegator has made for a caller that is gone is undone, though it gives back whatever nobody waits for.
func TestDelegatorForCallerThatIsGone(t *testing.T) {
	netns, dir := nettest.NewNS(t).Path(), t.TempDir()
	config := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"braid","cniDir":%q,"delegates":[{"cniVersion":"1.1.0","name":"a","type":"fake"}]}`, dir)
	begun := make(chan struct{}, 1)
	fake := &cnitest.Fake{On: func(ctx context.Context, command string, req *cni.Request) error {
		if command == "ADD" && req.ContainerID == "killed" {
			begun <- struct{}{}
			<-ctx.Done() // and succeed
		}
		return nil
	}}
	memory := new(memo.Memory)
	delegator := func(waits func() error) *delegate.Delegator {
		return &delegate.Delegator{
			Own: func(cni.Lookup) map[string]cni.Plugin { return map[string]cni.Plugin{"fake": fake} }, Stderr: t.Output(), BootID: "b", Caller: waits, Memory: memory,
		}
	}
	socket, stop := serve(t, &Worker{Plugin: func(c Caller) cni.Plugin { return delegator(c.Waits) }})
	p := child(t, self(t), "caller", socket, "ADD", "killed", netns, config).start()
	<-begun
	p.signal(unix.SIGKILL)
	wantRecords := func(want int) {
		t.Helper()
		if files, err := filepath.Glob(filepath.Join(dir, "attachments", "*.json")); err != nil || len(files) != want {
			t.Errorf("records: %q, %v, want %d", files, err, want)
		}
	}
	eventually(t, "it is undone", func() bool { return len(fake.Calls()) == 2 })
	if a, done := Call(socket, environ("ADD", "c1", netns), []byte(config)); !done || a.ExitCode != 0 {
		t.Errorf("done %t, %+v", done, a)
	}
	stop()
	wantRecords(1)
	wantCalls(t, fake, "ADD eth0", "DEL eth0", "ADD eth0")
	if err := delegator(nil).Del(t.Context(), &cni.Request{
		Attachment: cni.Attachment{ContainerID: "c1", Netns: netns, IfName: "eth0"}, Config: []byte(config),
	}); err != nil {
		t.Error(err)
	}
	wantRecords(0)
}

package client

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/program"
	"github.com/braid-cni/braid/worker/protocol"
)

// TestSlowWorker: one that has accepted the call gets all that has come of an execution, however late it reads it.
func TestSlowWorker(t *testing.T) {
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "client") // whose path is short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	const plenty = "#!/bin/sh\nexec head -c 1000000 /dev/zero\n"
	if err := os.WriteFile(filepath.Join(dir, "third"), []byte(plenty), 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const patience = 50 * time.Millisecond
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		_, err = protocol.Receive(conn)
		err = errors.Join(err, conn.SetDeadline(time.Now().Add(20*time.Second)),
			protocol.Send(conn, protocol.EncodeProgram(&program.Program{Name: "third", Dirs: []string{dir}})...))
		time.Sleep(10 * patience)
		m, receiveErr := protocol.Receive(conn)
		stdout, executeErr := protocol.DecodeExecuted(m)
		if err = errors.Join(err, receiveErr, executeErr); err == nil && len(stdout) != 1_000_000 {
			err = fmt.Errorf("found %d bytes", len(stdout))
		}
		served <- errors.Join(err, protocol.Send(conn, protocol.Answered, "0", "", ""))
	}()
	c := Client{Socket: socket, Binary: socket, AcceptTime: patience}
	if a, done := c.Call([]string{"CNI_COMMAND=ADD"}, nil); !done || a.ExitCode != 0 {
		t.Errorf("found %+v, done: %t", a, done)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

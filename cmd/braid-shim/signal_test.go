package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/program"
	"github.com/braid-cni/braid/worker/protocol"
)

// TestToldToEnd: one that is told to end while plugins of others are executed does so when the worker has undone the call, and does
// not become braid, which would not know of it. If the worker has done the call all the same it leaves what that answers.
func TestToldToEnd(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(filepath.Join(n.dir, "third"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(n.dir, "e.worker.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error)
	serve := func(answers bool) error {
		conn, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = protocol.Receive(conn)
		err = errors.Join(err, protocol.Send(conn, protocol.EncodeProgram(&program.Program{Name: "third", Dirs: []string{n.dir}})...))
		if _, receiveErr := protocol.Receive(conn); err != nil || receiveErr != nil { // it has executed something
			return errors.Join(err, receiveErr)
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		control := raw.Control(func(fd uintptr) {
			var peer *unix.Ucred
			if peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				err = unix.Kill(int(peer.Pid), unix.SIGTERM)
			}
		})
		m, receiveErr := protocol.Receive(conn)
		if err := errors.Join(control, err, receiveErr); err != nil || len(m) != 1 || m[0] != protocol.Stop {
			return fmt.Errorf("found %q, %w, want %s", m, err, protocol.Stop)
		}
		if answers {
			return protocol.Send(conn, protocol.Answered, "7", "", "")
		}
		return nil
	}
	const times, atOnce = 100, 4 // it is about which of two threads is faster
	go func() {
		defer close(served)
		for i := range times + 1 {
			served <- serve(i == times)
		}
	}()
	call := func(want string) {
		cmd := n.command("ADD", "")
		cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"daemonSocket": %q}`, filepath.Join(n.dir, "e.sock")))
		if err := cmd.Run(); err == nil || err.Error() != want {
			t.Errorf("found %v, want %s", err, want)
		}
	}
	var calling, last sync.WaitGroup
	for range atOnce {
		calling.Go(func() {
			for range times / atOnce {
				call("signal: terminated")
			}
		})
	}
	last.Go(func() {
		calling.Wait()
		call("exit status 7")
	})
	for err := range served {
		if err != nil {
			t.Error(err)
		}
	}
	last.Wait()
}

// TestNobodyReadsStderr: what plugins of others log to nobody does not end the process that executes them, and undoes them.
func TestNobodyReadsStderr(t *testing.T) {
	n := newNode(t)
	if err := os.WriteFile(filepath.Join(n.dir, "third"), []byte("#!/bin/sh\necho a remark >&2\necho done\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(n.dir, "e.worker.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		_, err = protocol.Receive(conn)
		err = errors.Join(err, protocol.Send(conn, protocol.EncodeProgram(&program.Program{Name: "third", Dirs: []string{n.dir}})...))
		m, receiveErr := protocol.Receive(conn)
		stdout, executeErr := protocol.DecodeExecuted(m)
		if err = errors.Join(err, receiveErr, executeErr); err == nil && string(stdout) != "done\n" {
			err = fmt.Errorf("found %q", stdout)
		}
		served <- errors.Join(err, protocol.Send(conn, protocol.Answered, "0", "an answer", "a remark"))
	}()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	cmd := n.command("ADD", "")
	cmd.Stdin, cmd.Stderr = strings.NewReader(fmt.Sprintf(`{"daemonSocket": %q}`, filepath.Join(n.dir, "e.sock"))), w
	if stdout, err := cmd.Output(); err != nil || string(stdout) != "an answer" {
		t.Errorf("found %q, %v", stdout, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// Command braid-shim is a CNI plugin that has the daemon's worker do ADD, DEL and CHECK. For everything else, and whenever the worker
// does not do a call, it becomes braid, which lies beside it. It is small: a runtime executes it for each call, and most of a short
// call is becoming a process. That is why the usual call is over before the runtime of Go has started: see early.
package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

func main() {
	braid := beside()
	switch os.Getenv("CNI_COMMAND") {
	case "ADD", "DEL", "CHECK":
	default:
		become(braid, os.Environ())
	}
	stdin, err := readAll()
	if err != nil {
		become(braid, os.Environ()) // which gets the same error
	}
	environ := os.Environ()
	if len(stdin) <= edge.MaxStdin && exists(braid) {
		environ = with(environ, edge.CallEnv, callName())
		if a, done := call(braid, environ, stdin); done {
			os.Exit(deliver(a, braid, stdin))
		}
	}
	if err := giveStdin(stdin); err != nil {
		fail("hand the configuration over to "+braid, err, "the kernel has to have memfd_create (Linux 3.17), and memory")
	}
	become(braid, environ)
}

// readAll reads standard input to its end, or to where it is too much. What early has read of it is the begin.
func readAll() ([]byte, error) {
	stdin := bytes.Clone(begun.message[stdinAt:][:begun.stdin])
	if begun.ended {
		return stdin, nil
	}
	rest, err := io.ReadAll(io.LimitReader(os.Stdin, int64(edge.MaxStdin+1-len(stdin))))
	return append(stdin, rest...), err
}

// callName returns the name of this call, which is that under which the worker knows it.
func callName() string {
	if begun.conn != 0 {
		return string(begun.name[len(edge.CallEnv)+1:])
	}
	return strconv.FormatUint(rand.Uint64(), 36)
}

// call has a worker do the call, or goes on where early has left it.
func call(braid string, environ []string, stdin []byte) (a client.Answer, done bool) {
	c := client.Client{Binary: braid}
	if begun.conn != 0 {
		a, done = c.Resume(begun.conn, begun.answer[:begun.answered])
		if done { // of what it has answered, that may be printed already
			a.Stdout, a.Stderr = a.Stdout[begun.stdout:], a.Stderr[begun.stderr:]
		}
		return a, done
	}
	socket, ok := daemonSocket(stdin)
	if !ok {
		return a, false
	}
	c.Socket = protocol.SocketOf(string(socket))
	return c.Call(environ, stdin)
}

// beside returns the path of braid. The kernel says where this file is, whatever link has led to it.
func beside() string {
	self, err := os.Readlink(protocol.Own)
	if err != nil {
		fail("find out where braid-shim lies", err, "/proc has to be mounted")
	}
	return filepath.Join(filepath.Dir(self), "braid")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// with returns an environment in which a variable has one value.
func with(environ []string, name, value string) []string {
	own := make([]string, 0, len(environ)+1)
	for _, e := range environ {
		if len(e) <= len(name) || e[:len(name)] != name || e[len(name)] != '=' {
			own = append(own, e)
		}
	}
	return append(own, name+"="+value)
}

// Command braid-shim is a CNI plugin that has the daemon's worker do ADD, DEL and CHECK. For everything else, and whenever the worker
// does not do a call, it becomes braid, which lies beside it. It is small: a runtime executes it for each call, and most of a short
// call is becoming a process.
package main

import (
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
	stdin, err := io.ReadAll(io.LimitReader(os.Stdin, edge.MaxStdin+1))
	if err != nil {
		become(braid, os.Environ()) // which gets the same error
	}
	environ := os.Environ()
	if len(stdin) <= edge.MaxStdin && exists(braid) {
		environ = with(environ, edge.CallEnv, strconv.FormatUint(rand.Uint64(), 36))
		if socket, ok := daemonSocket(stdin); ok {
			c := client.Client{Socket: protocol.SocketOf(socket), Binary: braid}
			if a, done := c.Call(environ, stdin); done {
				os.Exit(deliver(a, braid, stdin))
			}
		}
	}
	if err := giveStdin(stdin); err != nil {
		fail("hand the configuration over to "+braid, err, "the kernel has to have memfd_create (Linux 3.17), and memory")
	}
	become(braid, environ)
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

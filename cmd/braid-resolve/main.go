// Command braid-resolve is `braidd resolve`, quickly: where there is no daemon, every ADD starts it anew. It reads plain
// kubeconfigs, as `braidd install` writes them. For anything else it becomes braidd, which lies beside it.
//
// BRAID_TLS_SESSION in the environment is the path of a file where the TLS session with the API server is kept from one ADD to
// the next; it may be missing. No flag: there is a version of it that does not know one.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"

	"github.com/braid-cni/braid/internal/buildinfo"
	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/devices"
	"github.com/braid-cni/braid/resolve"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "braid-resolve:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if slices.Equal(args, []string{"version"}) {
		_, err := fmt.Printf("braid-resolve %s %s/%s %s\n", buildinfo.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return err
	}
	r, err := open(args)
	if err != nil {
		return become(args, err)
	}
	// A signal ends it at once: there is nothing to be undone, and to wait for signals would take a thread.
	return resolve.Serve(context.Background(), os.Stdin, os.Stdout, r, nil)
}

// open understands the command lines that braid has for a cluster.
func open(args []string) (resolve.Resolver, error) {
	flags := flag.NewFlagSet("braid-resolve", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	kubeconfig := flags.String("kubeconfig", "", "")
	podResources := flags.String("pod-resources", devices.DefaultSocket, "")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("found argument %q", flags.Arg(0))
	}
	server, err := api.Login(*kubeconfig)
	if err != nil {
		return nil, err
	}
	if session := os.Getenv("BRAID_TLS_SESSION"); session != "" {
		server.KeepSession(session)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	return &devices.Resolver{Resolver: api.New(server, api.Options{Log: log}), Socket: *podResources}, nil
}

// become goes on as `braidd resolve`. It returns only if that is impossible, with the reason that made it necessary too.
func become(args []string, cause error) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("%w; find braidd: %w", cause, err)
	}
	braidd := filepath.Join(filepath.Dir(self), "braidd")
	err = syscall.Exec(braidd, append([]string{braidd, "resolve"}, args...), os.Environ())
	return fmt.Errorf("%w; run %s: %w", cause, braidd, err)
}

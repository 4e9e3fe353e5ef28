// Kubebin is a Kubernetes control plane in one binary, for tests: etcd, kube-apiserver and kubectl; with the tag node
// kubelet, kube-controller-manager and kube-scheduler too. It is the program that it is called as, by a symbolic link.
// One link of all saves minutes and hundreds of megabytes.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// programs by name. Each file adds its own.
var programs = map[string]func(){}

func main() {
	name := filepath.Base(os.Args[0])
	run, ok := programs[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "%s: to be called as one of %q\n", name, slices.Sorted(maps.Keys(programs)))
		os.Exit(2)
	}
	run()
}

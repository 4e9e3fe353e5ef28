// Package devicestest gives tests a socket that answers as the pod-resources API of a kubelet does.
package devicestest

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Kubelet starts a program that listens on the socket that it returns, until the test ends. The program is a gRPC server
// with the generated code of the API, built from the nested module kubelet below this package. Pods is a
// ListPodResourcesResponse as JSON. Flags are those of the program.
func Kubelet(t testing.TB, pods string, flags ...string) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelet-") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "pods.json")
	if err := os.WriteFile(file, []byte(pods), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), append(flags, "-socket", socket, "-file", file)...)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("start the kubelet: found %q, %v", line, err)
	}
	return socket
}

// program builds the program, unless the build cache has it, and returns its path.
func program(t testing.TB) string {
	t.Helper()
	cmd := exec.Command("go", "tool", "-n", "kubelet")
	cmd.Dir = filepath.Join(root(t), "kube", "devices", "devicestest", "kubelet")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build the kubelet: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// root is the folder of the main module. -trimpath takes it from the names of source files.
func root(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam/dhcp"
)

// The lease keeper runs until it is stopped, and the plugin finds it.
func TestDHCP(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the lease keeper needs root")
	}
	dir, err := os.MkdirTemp("", "dhcp") // t.TempDir can be longer than the path of a socket may be
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "sub", "dhcp.sock")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := dhcpCommand()
	cmd.SetArgs([]string{"--socket", socket, "--cni-dir", filepath.Join(dir, "braid")})
	cmd.SetErr(io.Discard)
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()

	req := &cni.Request{Config: fmt.Appendf(nil, `{"name": "lan", "ipam": {"type": "dhcp", "daemonSocketPath": %q}}`, socket)}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = (dhcp.Plugin{}).Status(ctx, req); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("STATUS: %v", err)
		}
	}
	second := dhcpCommand()
	second.SetArgs([]string{"--socket", socket})
	second.SetErr(io.Discard)
	second.SilenceUsage = true
	if err := second.ExecuteContext(ctx); err == nil {
		t.Error("a second keeper starts")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the keeper ends with %v", err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

package protocol

import (
	"path/filepath"
	"testing"
)

func TestSocketOf(t *testing.T) {
	for daemon, want := range map[string]string{"/run/braid/braidd.sock": "/run/braid/braidd.worker.sock", "/a/socket": "/a/socket.worker.sock"} {
		if got := SocketOf(daemon); got != want || filepath.Dir(got) != filepath.Dir(daemon) {
			t.Errorf("%s: found %s, want %s", daemon, got, want)
		}
	}
}

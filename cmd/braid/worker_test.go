package main

import "testing"

func TestWorkerSocket(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string // empty: it is no worker
	}{
		{[]string{"braid"}, ""},
		{[]string{"braid", "worker"}, ""},
		{[]string{"braid", "worker", "/run/braid/braidd.worker.sock"}, "/run/braid/braidd.worker.sock"},
		{[]string{"braid", "worker", "--help"}, ""},
		{[]string{"braid", "worker", "w.sock", "more"}, ""},
		{[]string{"braid", "server", "w.sock"}, ""},
	} {
		if socket, ok := workerSocket(tt.args); socket != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: found socket %q, %t", tt.args, socket, ok)
		}
	}
}

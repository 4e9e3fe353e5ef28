package nettest

import (
	"net"
	"testing"
	"time"
)

// Reach fails the test unless a packet gets from one namespace to an address of another one, and an answer back,
// within a few seconds.
func Reach(t testing.TB, from, to *NS, address string) {
	t.Helper()
	if err := echo(t, from, to, address, 5*time.Second); err != nil {
		t.Errorf("%s does not answer: %v", address, err)
	}
}

// NoReach fails the test if a packet gets there and back all the same.
func NoReach(t testing.TB, from, to *NS, address string) {
	t.Helper()
	if err := echo(t, from, to, address, 500*time.Millisecond); err == nil {
		t.Errorf("%s answers, which it must not", address)
	}
}

// echo sends UDP datagrams until one comes back.
func echo(t testing.TB, from, to *NS, address string, patience time.Duration) error {
	t.Helper()
	var server net.PacketConn
	var client net.Conn
	var err error
	to.Do(t, func() { server, err = net.ListenPacket("udp", net.JoinHostPort(address, "0")) })
	if err != nil {
		t.Fatalf("listen on %s: %v", address, err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 64)
		for {
			n, peer, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], peer)
		}
	}()
	from.Do(t, func() { client, err = net.Dial("udp", server.LocalAddr().String()) })
	if err != nil {
		return err
	}
	defer client.Close()
	buf := make([]byte, 64)
	for deadline := time.Now().Add(patience); ; {
		_, err = client.Write([]byte("are you there?"))
		if err == nil {
			_ = client.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err = client.Read(buf)
		}
		if err == nil || time.Now().After(deadline) {
			return err
		}
		if _, timeout := err.(net.Error); !timeout {
			time.Sleep(20 * time.Millisecond) // refused or unreachable at once
		}
	}
}

package worker

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/worker/protocol"
)

// cnitestResult has a text in it.
func cnitestResult(text string) *types100.Result {
	return &types100.Result{CNIVersion: "1.1.0", Interfaces: []*types100.Interface{{Name: text}}}
}

var messages = [][]string{nil, {""}, {"", ""}, {"elsewhere"}, {"a", "", "\x00\xff", strings.Repeat("x", 1<<20)}}

func TestMessages(t *testing.T) {
	for _, texts := range messages {
		r := bytes.NewReader(append(encode(texts...), "rest"...))
		if got, err := protocol.Receive(r); err != nil || !slices.Equal(got, texts) {
			t.Errorf("found %d texts, %v, want %d", len(got), err, len(texts))
		}
		if r.Len() != len("rest") {
			t.Errorf("%d bytes are left, want those of another message", r.Len())
		}
	}
}

// malformed are messages that are none, and what is wrong.
var malformed = map[string]struct {
	b    string
	want error
}{
	"nothing":             {"", io.EOF},
	"half a length":       {"\x00\x00", io.ErrUnexpectedEOF},
	"too long":            {"\x02\x00\x00\x01", protocol.ErrMessage},
	"another protocol":    {"{\"error\":{}}\n", protocol.ErrMessage},
	"cut off":             {"\x00\x00\x00\x05\x00\x00\x00\x01", io.ErrUnexpectedEOF},
	"cut off at the text": {"\x00\x00\x00\x05", io.EOF},
	"half a text length":  {"\x00\x00\x00\x02\x00\x00", protocol.ErrMessage},
	"text beyond the end": {"\x00\x00\x00\x05\x00\x00\x00\x02x", protocol.ErrMessage},
	"huge text":           {"\x00\x00\x00\x04\xff\xff\xff\xff", protocol.ErrMessage},
}

func TestMalformedMessages(t *testing.T) {
	for name, m := range malformed {
		if texts, err := protocol.Receive(strings.NewReader(m.b)); !errors.Is(err, m.want) || texts != nil {
			t.Errorf("%s: found %q, %v, want %v", name, texts, err, m.want)
		}
	}
}

// A worker ends connections that bring no call, and serves others.
func TestMalformedCalls(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	var fake cnitest.Fake
	socket, _ := serve(t, of(&fake))
	for name, m := range malformed {
		conn := dialRaw(t, socket)
		if _, err := io.WriteString(conn, m.b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = conn.CloseWrite()
		if b, err := io.ReadAll(conn); len(b) > 0 {
			t.Errorf("%s: found %q, %v, want no answer", name, b, err)
		}
	}
	wantCalls(t, &fake)
	if _, done := Call(socket, environ("CHECK", "c1", netns), []byte(config)); !done {
		t.Error("after all this no call is done")
	}
}

// What does not speak as a worker does has done nothing.
func TestMalformedAnswers(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	whole := string(encode(protocol.Answered, "0", "out", "err"))
	answers := map[string]string{
		"nothing":        "",
		"elsewhere":      string(encode(protocol.Elsewhere)),
		"too few texts":  string(encode(protocol.Answered, "0", "out")),
		"too many texts": string(encode(protocol.Answered, "0", "out", "err", "")),
		"another word":   string(encode("answer", "0", "out", "err")),
		"no number":      string(encode(protocol.Answered, "zero", "out", "err")),
		"cut off":        whole[:len(whole)-1],
	}
	for name, m := range malformed {
		answers[name] = m.b
	}
	for name, answer := range answers {
		if _, done := Call(impostor(t, answer), environ("ADD", "c1", netns), []byte(config)); done {
			t.Errorf("%s: it counts as done", name)
		}
		if answer == "" || strings.HasPrefix(whole, answer) {
			continue
		}
		if _, done := Call(impostor(t, answer+whole), environ("ADD", "c1", netns), []byte(config)); done {
			t.Errorf("%s, and an answer: it counts as done", name)
		}
	}
	a, done := Call(impostor(t, whole), environ("ADD", "c1", netns), []byte(config))
	if !done || a.Stdout != "out" || a.Stderr != "err" || a.ExitCode != 0 {
		t.Errorf("a whole answer: done %t, %+v", done, a)
	}
	if err := Ping(impostor(t, "SSH-2.0-OpenSSH\r\n")); !errors.Is(err, protocol.ErrMessage) {
		t.Errorf("found %v, want %v", err, protocol.ErrMessage)
	}
}

// impostor listens, takes one request, says something and closes.
func impostor(t *testing.T, says string) (socket string) {
	t.Helper()
	socket = socketPath(t)
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = protocol.Receive(conn)
		_, _ = io.WriteString(conn, says)
	}()
	return socket
}

// Whatever comes is a message or an error, and takes no more than it has a right to.
func FuzzReceive(f *testing.F) {
	for _, texts := range messages {
		f.Add(encode(texts...))
	}
	for _, m := range malformed {
		f.Add([]byte(m.b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		texts, err := protocol.Receive(r)
		if err != nil {
			if texts != nil {
				t.Errorf("an error, %v, and %d texts", err, len(texts))
			}
			return
		}
		n := int(binary.BigEndian.Uint32(b)) + 4
		if len(b)-r.Len() != n {
			t.Errorf("%d bytes are read of a message of %d", len(b)-r.Len(), n)
		}
		if again := encode(texts...); !bytes.Equal(again, b[:n]) {
			t.Errorf("%q becomes %q", b[:n], again)
		}
	})
}

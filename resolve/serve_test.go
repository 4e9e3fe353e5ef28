package resolve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/resolve"
)

func TestServe(t *testing.T) {
	for _, tt := range []struct{ name, in, out string }{
		{"nothing", "", ""},
		{"report", `{"report":{"pod":{"namespace":"a","name":"b"}}}` + "\n", `{"reported":true}` + "\n"},
		{
			"two requests", `{"resolve":{"pod":{"name":"gone"}},"later":"key"}` + "\n" + `{"report":{}}` + "\n",
			`{"error":{"reason":"NotFound","message":"pod is gone"}}` + "\n" + `{"reported":true}` + "\n",
		},
		{"no JSON", "GET / HTTP/1.1\n", `{"error":{"reason":"Invalid","message":"decode request: invalid character 'G' looking for beginning of value"}}` + "\n"},
		{"neither", `{"sweep":{}}` + "\n", `{"error":{"reason":"Invalid","message":"decode request: found \"{\\\"sweep\\\":{}}\", want one of \"resolve\", \"report\" and \"observe\""}}` + "\n"},
		{"both", `{"report":{},"resolve":{}}` + "\n", `{"error":{"reason":"Invalid","message":"decode request: found \"{\\\"report\\\":{},\\\"resolve\\\":{}}\", want one of \"resolve\", \"report\" and \"observe\""}}` + "\n"},
		{"too long", strings.Repeat(" ", 1<<20+1) + "\n{}\n", `{"error":{"reason":"Invalid","message":"read request: document too long: more than 1048576 bytes"}}` + "\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := resolve.Serve(t.Context(), strings.NewReader(tt.in), &out, fake{}, nil); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.out, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestServeTornRequest(t *testing.T) {
	var out bytes.Buffer
	if err := resolve.Serve(t.Context(), strings.NewReader(`{"report":{}}`), &out, fake{}, nil); err == nil || out.Len() > 0 {
		t.Errorf("found error %v and output %q, want an error and none", err, &out)
	}
}

// listen serves a socket as a daemon does.
func listen(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				resolve.Serve(context.Background(), conn, conn, fake{}, nil)
			}()
		}
	}()
	return socket
}

func TestSocket(t *testing.T) {
	c, err := resolve.Dial(t.Context(), listen(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a, err := c.Resolve(t.Context(), query("web")); err != nil || a.Pod.Name != "web" {
		t.Errorf("found %v, %v", a, err)
	}
	if err := c.Report(t.Context(), &resolve.Report{}); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = c.Resolve(ctx, query("stubborn"))
	wantError(t, err, resolve.Unavailable, "context deadline exceeded")
	_, err = c.Resolve(t.Context(), query("web"))
	wantError(t, err, resolve.Unavailable, "connection to braidd is closed")
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	if _, err := resolve.Dial(t.Context(), filepath.Join(dir, "s")); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("found %v, want ENOENT", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := resolve.Dial(t.Context(), filepath.Join(dir, "s")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("found %v, want ECONNREFUSED", err)
	}
}

// Whatever comes in, every line that goes out is one response.
func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"resolve":{"pod":{"name":"web"}}}` + "\n" + `{"report":{"status":[ {} ]}}` + "\n"))
	f.Add([]byte("null\n[]\n\n{}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, name := range []string{"wait", "large", "stubborn", "observe", "OBSERVE"} { // the last two get no response
			if bytes.Contains(in, []byte(name)) {
				t.Skip("the fake resolver takes its time, or there is no answer")
			}
		}
		var out bytes.Buffer
		_ = resolve.Serve(t.Context(), bytes.NewReader(in), &out, fake{}, nil)
		if want, found := bytes.Count(in, []byte("\n")), bytes.Count(out.Bytes(), []byte("\n")); len(in) < 1<<20 && found != want {
			t.Errorf("found %d responses to %d requests", found, want)
		}
		for line := range bytes.Lines(out.Bytes()) {
			var resp map[string]json.RawMessage
			if err := json.Unmarshal(line, &resp); err != nil || len(resp) != 1 {
				t.Errorf("response %q: %v", line, err)
			}
		}
	})
}

// Whatever comes back, the answer is complete or there is an error of the right type.
func FuzzClient(f *testing.F) {
	f.Add([]byte(`{"answer":{"pod":{"name":"web"}}}` + "\n"))
	f.Add([]byte(`{"error":{"reason":"NotFound"}}` + "\n"))
	f.Add([]byte("null\n"))
	f.Fuzz(func(t *testing.T, reply []byte) {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			if conn, err := l.Accept(); err == nil {
				conn.Write(reply)
				conn.(*net.UnixConn).CloseWrite()
				conn.Read(make([]byte, 1<<10))
				conn.Close()
			}
		}()
		c, err := resolve.Dial(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		a, err := c.Resolve(t.Context(), query("web"))
		if err == nil && a == nil {
			t.Error("found neither an answer nor an error")
		}
		if e := (*resolve.Error)(nil); err != nil && !errors.As(err, &e) {
			t.Errorf("found an error of type %T", err)
		}
	})
}

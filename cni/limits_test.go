package cni_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
)

// What a runtime says is bounded: at the limit it is served, one above it is refused with a code and the name of what is too
// long.
func TestLimitsOfRuntimes(t *testing.T) {
	const maxStdin = 8 << 20
	stdin := func(n int) string {
		const open, closing = `{"cniVersion": "1.1.0", "name": "n", "x": "`, `"}`
		return open + strings.Repeat("x", n-len(open)-len(closing)) + closing
	}
	for _, tt := range []struct {
		name  string
		limit int
		vars  func(n int) string // a change of the environment
		stdin func(n int) string
		code  uint
		want  string
	}{
		{"CNI_CONTAINERID", 200, func(n int) string { return "CNI_CONTAINERID=" + strings.Repeat("c", n) }, nil, 4, "CNI_CONTAINERID has 201 bytes: at most 200"},
		{"CNI_IFNAME", 15, func(n int) string { return "CNI_IFNAME=" + strings.Repeat("i", n) }, nil, 4, `CNI_IFNAME is "iiiiiiiiiiiiiiii"`},
		{"CNI_ARGS", 32 << 10, func(n int) string { return "CNI_ARGS=X=" + strings.Repeat("x", n-2) }, nil, 4, "CNI_ARGS has 32769 bytes: at most 32768"},
		{"name", 253, nil, func(n int) string { return `{"cniVersion": "1.1.0", "name": "` + strings.Repeat("n", n) + `"}` }, 7, "name has 254 bytes: at most 253"},
		{"standard input", maxStdin, nil, stdin, 5, "more than 8388608 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			call := func(n int) answer {
				doc, change := stdin(100), "X="
				if tt.stdin != nil {
					doc = tt.stdin(n)
				} else {
					change = tt.vars(n)
				}
				return run(t.Context(), &cnitest.Fake{}, env(t, "ADD", change), doc)
			}
			if got := call(tt.limit); got.exit != 0 {
				t.Errorf("at the limit: %.300s", got.stdout)
			}
			if e := call(tt.limit + 1).failure(t); e.Code != tt.code || !strings.Contains(e.Msg, tt.want) {
				t.Errorf("above: %+v, want code %d and %q", e, tt.code, tt.want)
			}
		})
	}
}

// A name that would lead out of a folder, or that is not what it looks like, is refused.
func TestNamesOfRuntimes(t *testing.T) {
	for _, value := range []string{"..", "../../etc", "/etc", "a/b", "a:b", "a\nb", "a\x1b[2Jb", ".hidden", "\u0430bc", "a b", "\xff", "a\\b"} {
		for _, name := range []string{"CNI_CONTAINERID", "CNI_IFNAME"} {
			if name == "CNI_IFNAME" && (value == ".hidden" || value == "\u0430bc" || value == "a\\b") {
				continue // the kernel takes them, and they lead nowhere
			}
			e := run(t.Context(), &cnitest.Fake{}, env(t, "ADD", name+"="+value), `{"cniVersion": "1.1.0", "name": "n"}`).failure(t)
			if e.Code != types.ErrInvalidEnvironmentVariables || !strings.Contains(e.Msg, name) || strings.ContainsAny(e.Msg, "\x1b\n") {
				t.Errorf("%s=%q: %+v", name, value, e)
			}
		}
	}
	e := run(t.Context(), &cnitest.Fake{}, env(t, "ADD", "CNI_ARGS=K8S_POD_NAME=a\nb"), `{"cniVersion": "1.1.0", "name": "n"}`).failure(t)
	if e.Code != types.ErrInvalidEnvironmentVariables || !strings.Contains(e.Msg, "CNI_ARGS") {
		t.Errorf("%+v", e)
	}
}

func TestLimitsOfResults(t *testing.T) {
	list := func(element string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
	}
	for key, element := range map[string]string{"interfaces": `{"name":"a"}`, "ips": `{"address":"10.0.0.1/8"}`, "routes": `{"dst":"10.0.0.0/8"}`} {
		for _, n := range []int{4096, 4097} {
			_, err := cni.PrevResult(config("1.0.0", json.RawMessage(fmt.Sprintf(`{"cniVersion":"1.0.0",%q:%s}`, key, list(element, n)))))
			if n == 4096 && err != nil {
				t.Errorf("%s at the limit: %v", key, err)
			} else if n > 4096 && (err == nil || !strings.Contains(err.Error(), key+": found 4097, want 4096 at most")) {
				t.Errorf("%s above: %v", key, err)
			}
		}
	}
}

// The output of a plugin is bounded to the byte.
func TestLimitsOfOutput(t *testing.T) {
	path := install(t, "sized")
	for _, n := range []int{1 << 20, 1<<20 + 1} {
		req := request(path)
		req.Args = fmt.Sprintf("size=%d", n)
		_, err := cni.Exec{Type: prefix + "sized"}.Add(t.Context(), req)
		if n == 1<<20 && err != nil {
			t.Errorf("at the limit: %.300v", err)
		} else if n > 1<<20 && (err == nil || !strings.Contains(err.Error(), "standard output exceeds 1048576 bytes")) {
			t.Errorf("above: %.300v", err)
		}
	}
}

// FuzzEnvironment: a call is served only if none of its names can lead out of a folder, whatever the environment; else the answer
// is an error document that a terminal can show.
func FuzzEnvironment(f *testing.F) {
	f.Add("ADD", "c1", "eth0", "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b", "/bin::/x")
	f.Add("DEL", "../../x", "..", "IgnoreUnknown", "")
	f.Add("CHECK", "a\x1b[2J", "a\u202eb", "X=\x00;;=;", ":")
	f.Add("GC", "", "", "", "relative")
	f.Fuzz(func(t *testing.T, command, id, ifName, args, path string) {
		vars := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": id, "CNI_NETNS": "/dev/null", "CNI_IFNAME": ifName, "CNI_ARGS": args, "CNI_PATH": path}
		served := false
		fake := &cnitest.Fake{On: func(_ context.Context, _ string, req *cni.Request) error {
			served = true
			if strings.ContainsAny(req.ContainerID+req.IfName, "/\x00\n:%") || strings.HasPrefix(req.ContainerID, ".") || req.IfName == ".." ||
				len(req.ContainerID) > 200 || len(req.IfName) > 15 {
				t.Errorf("served: %q %q", req.ContainerID, req.IfName)
			}
			_, _ = req.Arg("K8S_POD_NAME")
			return nil
		}}
		got := run(t.Context(), fake, vars, `{"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": []}`)
		if command == "" || command == "VERSION" {
			return
		}
		if served != (got.exit == 0) {
			t.Errorf("served %v, %+v", served, got)
		}
		if got.exit == 0 {
			return
		}
		e := got.failure(t)
		if e.Code != types.ErrInvalidEnvironmentVariables || !strings.Contains(e.Msg, "CNI_") || strings.ContainsFunc(e.Msg, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%+v", e)
		}
	})
}

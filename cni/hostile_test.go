package cni

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/internal/program"
)

// FuzzOutput: whatever a plugin prints, with whatever exit code, becomes a result that is sound or an error that keeps the
// plugin's code, is of one line, has no character that a terminal acts on, and is not as long as the output.
func FuzzOutput(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"a"}],"ips":[{"address":"10.0.0.1/8","interface":7}]}`), []byte("x"))
	f.Add([]byte(`{"cniVersion":"1.0.0"}{"code":11,"msg":"later\u001b[2J","details":"\r\n"}`), []byte("\x1b]0;title\a"))
	f.Add([]byte(`{"code":4294967296,"msg":7}`), []byte{0xff, 0, '\n'})
	f.Add([]byte(`{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.1/8","routes":[{"dst":"::/0"}]},"ip6":{}}`), []byte("panic: x\n"))
	f.Add([]byte(strings.Repeat("[", 20000)), []byte(strings.Repeat("\u202e", 1000)))
	f.Fuzz(func(t *testing.T, stdout, stderr []byte) {
		for _, confVersion := range []string{"", "0.2.0", "1.1.0"} {
			res, err := unmarshalResult(stdout, confVersion)
			if err != nil {
				continue
			}
			for _, ip := range res.IPs {
				if !isCIDR(ip.Address) {
					t.Errorf("%s has address %v", stdout, ip)
				}
			}
			if _, err := MarshalResult(res, "1.1.0"); err != nil {
				t.Errorf("%s cannot be passed on: %v", stdout, err)
			}
		}
		kept := stderr[:min(len(stderr), 2*program.MaxKept)]
		err := failure(&program.FailedError{State: "exit status 1", Exited: true, Stdout: stdout, Stderr: kept})
		if err == nil {
			t.Fatal("no error")
		}
		doc := newErrorDocument(err, "1.1.0")
		var own *types.Error
		if errors.As(err, &own) && own.Code != 0 && doc.Code != own.Code || doc.Code == 0 {
			t.Errorf("code %d of %v", doc.Code, err)
		}
		for _, text := range []string{doc.Msg, doc.Details} {
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > maxMessage+20 {
				t.Errorf("%d bytes: %.300q", len(text), text)
			}
		}
		if b, err := json.Marshal(doc); err != nil || !json.Valid(b) {
			t.Error(err)
		}
	})
}

// FuzzTraceParent: what is read is written as it was.
func FuzzTraceParent(f *testing.F) {
	f.Add("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("00-00000000000000000000000000000000-0000000000000000-00")
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParseTraceParent(s)
		if !ok {
			return
		}
		again, ok := ParseTraceParent(p.String())
		if !ok || again != p || len(p.TraceID) != 32 || len(p.SpanID) != 16 {
			t.Errorf("%q is %+v, and then %+v", s, p, again)
		}
	})
}

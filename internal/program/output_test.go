package program

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzStderr: of whatever a plugin says, in whatever pieces, nothing is passed on that a terminal acts on; the begin and the end are
// kept, and no more.
func FuzzStderr(f *testing.F) {
	f.Add([]byte("x"))
	f.Add([]byte("\x1b]0;title\a"))
	f.Add([]byte{0xff, 0, '\n'})
	f.Add([]byte(strings.Repeat("\u202e", 1000)))
	f.Fuzz(func(t *testing.T, stderr []byte) {
		kept := &tee{forward: new(strings.Builder), left: maxStderr}
		for rest := stderr; len(rest) > 0; { // in pieces
			n := min(len(rest), 1+len(rest)/2)
			_, _ = kept.Write(rest[:n])
			rest = rest[n:]
		}
		if text := kept.forward.(*strings.Builder).String(); strings.ContainsAny(text, "\x1b\x07\x00\r") {
			t.Errorf("passed on: %q", text)
		}
		if len(kept.kept) > 2*MaxKept {
			t.Errorf("%d bytes kept", len(kept.kept))
		}
		if n := min(len(stderr), MaxKept); !bytes.HasPrefix(kept.kept, stderr[:n]) || !bytes.HasSuffix(kept.kept, stderr[len(stderr)-n:]) {
			t.Errorf("of %q kept: %q", stderr, kept.kept)
		}
	})
}

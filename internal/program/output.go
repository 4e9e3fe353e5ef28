package program

import (
	"bytes"
	"fmt"
	"io"
	"unicode"
)

// MaxKept is how much of standard error a [FailedError] has of its begin and of its end, in bytes.
const MaxKept = 512

// bounded keeps what is written up to a size. More is an error, and calls overflow with it.
type bounded struct {
	data     []byte
	left     int // bytes that still may be written
	overflow func(error)
}

func (b *bounded) Write(p []byte) (int, error) {
	if len(p) > b.left {
		err := fmt.Errorf("standard output exceeds %d bytes", len(b.data)+b.left)
		b.overflow(err)
		return 0, err
	}
	b.left -= len(p)
	b.data = append(b.data, p...)
	return len(p), nil
}

// A tee passes on what is written, up to a size, and remembers the begin and the end of it.
type tee struct {
	forward io.Writer
	left    int // bytes that still may be passed on
	kept    []byte
}

// harmless takes control characters out of text that may end up in a terminal. Lines and tabs stay.
func harmless(r rune) rune {
	switch {
	case r == '\n' || r == '\t':
		return r
	case unicode.IsControl(r):
		return '?'
	}
	return r
}

func (t *tee) Write(p []byte) (int, error) {
	if n := min(len(p), t.left); n > 0 {
		t.left -= n
		_, _ = t.forward.Write(bytes.Map(harmless, p[:n])) // a log that cannot be written is no reason to fail the plugin
	}
	t.kept = append(t.kept, p...)
	if surplus := len(t.kept) - 2*MaxKept; surplus > 0 {
		t.kept = append(t.kept[:MaxKept], t.kept[MaxKept+surplus:]...)
	}
	return len(p), nil
}

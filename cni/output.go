package cni

import (
	"bytes"
	"fmt"
	"io"
)

const maxExcerpt = 512 // of output in an error message, bytes

// excerpt quotes the begin of output for a message.
func excerpt(output []byte) string {
	output = bytes.TrimSpace(output)
	if len(output) > maxExcerpt {
		return fmt.Sprintf("%q...", output[:maxExcerpt])
	}
	return fmt.Sprintf("%q", output)
}

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

// A tail passes on what is written, up to a size, and remembers the end of it.
type tail struct {
	forward io.Writer
	left    int // bytes that still may be passed on
	last    []byte
}

func (t *tail) Write(p []byte) (int, error) {
	if n := min(len(p), t.left); n > 0 {
		t.left -= n
		_, _ = t.forward.Write(p[:n]) // a log that cannot be written is no reason to fail the plugin
	}
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-maxExcerpt):]
	return len(p), nil
}

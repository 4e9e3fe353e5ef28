package cni

import (
	"bytes"
	"fmt"
	"io"
)

// maxExcerpt is how much output an error message quotes, in bytes.
const maxExcerpt = 512

// excerpt quotes output for a message: its first line tells of a panic, its last one why a program gave up.
func excerpt(output []byte) string {
	output = bytes.TrimSpace(output)
	if len(output) <= maxExcerpt {
		return fmt.Sprintf("%q", output)
	}
	return fmt.Sprintf("%q ... %q", output[:maxExcerpt/2], output[len(output)-maxExcerpt/2:])
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

// A tee passes on what is written, up to a size, and remembers the begin and the end of it.
type tee struct {
	forward io.Writer
	left    int // bytes that still may be passed on
	kept    []byte
}

func (t *tee) Write(p []byte) (int, error) {
	if n := min(len(p), t.left); n > 0 {
		t.left -= n
		_, _ = t.forward.Write(p[:n]) // a log that cannot be written is no reason to fail the plugin
	}
	t.kept = append(t.kept, p...)
	if surplus := len(t.kept) - 2*maxExcerpt; surplus > 0 {
		t.kept = append(t.kept[:maxExcerpt], t.kept[maxExcerpt+surplus:]...)
	}
	return len(p), nil
}

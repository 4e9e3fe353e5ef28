package cni

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
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

// maxMessage bounds a message for people, in bytes. An event of Kubernetes has 1,024 at most, and complaints about every network of
// a pod some thousand.
const maxMessage = 32 << 10

// Message is the text of an error as people may get to see it, in a terminal too: on one line, with all that is not printable
// escaped, and cut where it is beyond measure. Plugins quote what tenants have written.
func Message(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) { // errors.Join puts each error on a line of its own
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("; ")
		}
		for _, r := range line {
			if unicode.IsPrint(r) {
				b.WriteRune(r)
			} else {
				b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
			}
			if b.Len() > maxMessage {
				return b.String() + " ... (cut)"
			}
		}
	}
	return b.String()
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
	if surplus := len(t.kept) - 2*maxExcerpt; surplus > 0 {
		t.kept = append(t.kept[:maxExcerpt], t.kept[maxExcerpt+surplus:]...)
	}
	return len(p), nil
}

package cni

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/braid-cni/braid/internal/program"
)

// maxExcerpt is how much output an error message quotes, in bytes.
const maxExcerpt = program.MaxKept

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
